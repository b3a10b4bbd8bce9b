"""What `ttc speed` prints and draws: cells with their bounds, whole generations, speed-ups over the first model."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.inert import inert_line
from harness.storage.replacing import clear_parts, replace_file
from harness.storage.storing import plainly
from harness.timing.modelled import generation_s
from harness.timing.timing_tables import TimingTable

Row = dict[str, Any]


def document(tables: Sequence[TimingTable]) -> dict[str, Any]:
    """Everything as one JSON document."""
    return {
        "tables": [
            {
                "facts": dict(table.facts),
                "cells": [asdict(cell) | {"share": cell.share} for cell in table.cells],
                "generations": generations(table),
            }
            for table in tables
        ],
        "speed_ups": speed_ups(tables),
    }


def generations(table: TimingTable) -> list[Row]:
    """For every batch: seconds of the whole length that was asked for, after the shortest prompt, and tokens/s."""
    grid = table.facts["grid"]
    if not table.prefills.lines or not table.decodes.lines:
        return []
    prompt, line = table.prefills.lines[0].first, table.decodes.lines[0]
    # A tokenizer may not allow exactly the prompt that was asked for.
    start = max(prompt, line.first)
    generated = min(grid["generated"], line.last - start + 2)
    rows = []
    for batch in grid["batches"]:
        try:
            seconds = generation_s(table, batch, prompt, generated, start)
        except UserError:  # a batch that did not fit
            continue
        bound_s = generation_bound_s(table, batch, prompt, generated, start)
        row = {"batch": batch, "prompt": prompt, "generated": generated, "seconds": seconds, "bound_s": bound_s}
        rows.append(row | {"tokens_per_s": batch * generated / seconds})
    return rows


def generation_bound_s(table: TimingTable, batch: int, prompt: int, generated: int, start: int) -> float | None:
    """What the ceilings allow for such a generation; None where the work is not known."""
    bounds = [replace(cell, seconds=cell.bound_s) for cell in table.cells if cell.bound_s is not None]
    return generation_s(TimingTable(tuple(bounds)), batch, prompt, generated, start) if bounds else None


def speed_ups(tables: Sequence[TimingTable]) -> list[Row]:
    """How much faster each further model is than the first at equal batch and lengths, beside the ceilings' bound."""
    if len(tables) < 2:
        return []
    first = {(row["batch"], row["generated"]): row for row in generations(tables[0])}
    found = []
    for table in tables[1:]:
        for row in generations(table):
            base = first.get((row["batch"], row["generated"]))
            if base is None:
                continue
            both = row["bound_s"] and base["bound_s"]
            found.append(
                {
                    "model": table.facts["model"],
                    "over": tables[0].facts["model"],
                    **{name: row[name] for name in ("batch", "prompt", "generated")},
                    "measured": base["seconds"] / row["seconds"],
                    "bound": base["bound_s"] / row["bound_s"] if both else None,
                }
            )
    return found


def show(tables: Sequence[TimingTable], written: Sequence[Path], json_: bool) -> None:
    """Print the document, or tables and where they are kept."""
    if json_:
        print(json.dumps(document(tables) | {"files": [str(path) for path in written]}, default=str))
        return
    for table in tables:
        print_table(table)
    found = speed_ups(tables)
    if found:
        columns = ("model", "over", "batch", "prompt", "generated", "measured", "bound")
        print_rows("speed-up at equal batch and length", columns, found)
    for path in written:
        print(inert_line(str(path)))


def print_table(table: TimingTable) -> None:
    """The cells of one model and its whole generations."""
    facts, engine = table.facts, table.facts["engine"]
    told = [str(engine.get(name)) for name in ("engine", "dtype", "device_name") if engine.get(name)]
    print(inert_line(f"{facts['model']}  {', '.join(told)}; {facts['decode_timed_by']}"))
    peaks = facts.get("ceilings")
    if peaks:
        rates = f"{peaks['bytes_per_s'] / 1e9:.1f} GB/s, {peaks['flops_per_s'] / 1e12:.3g} TFLOP/s {peaks['dtype']}"
        print(f"ceilings: {rates}")
    if "largest_batch" in facts:
        print(
            f"memory: {facts['largest_batch']['rows']:,} rows of {facts['largest_batch']['context']:,} tokens at most"
        )
    columns = ("phase", "batch", "context", "ms", "from", "to", "tokens/s", "GFLOP", "GB", "bound ms", "share")
    print_rows(
        "", columns, [spelled(cell) for cell in sorted(table.cells, key=lambda c: (c.phase, c.batch, c.context))]
    )
    rows = [row | {"tokens/s": rate(row["tokens_per_s"]), "s": row["seconds"]} for row in generations(table)]
    print_rows("whole generations", ("batch", "prompt", "generated", "s", "tokens/s"), rows)
    for note in facts.get("not_measured", []):
        print(inert_line(f"not measured: {note}"))


def spelled(cell: Any) -> Row:
    """One cell as it is printed."""
    row: Row = {"phase": cell.phase, "batch": cell.batch, "context": cell.context or "", "ms": 1e3 * cell.seconds}
    row |= {"from": 1e3 * cell.low_s, "to": 1e3 * cell.high_s}
    row["tokens/s"] = "" if cell.phase == "finish" else rate(cell.tokens_per_s)
    if cell.bound_s is not None:
        row |= {"GFLOP": cell.flops / 1e9, "GB": cell.bytes / 1e9, "bound ms": 1e3 * cell.bound_s}
        row["share"] = f"{cell.share:.0%}"
    return row


def rate(tokens_per_s: float) -> str:
    """Whole tokens per second, or three digits of few."""
    return f"{tokens_per_s:,.0f}" if tokens_per_s >= 100 else f"{tokens_per_s:.3g}"


def print_rows(title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """A table of the columns that some row fills."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    kept = [name for name in columns if any(row.get(name) not in (None, "") for row in rows)]
    for name in kept:
        table.add_column(name, justify="left" if name in ("phase", "model", "over") else "right")
    for row in rows:
        cells = (row.get(name) for name in kept)
        table.add_row(
            *(Text(f"{x:.4g}" if isinstance(x, float) else "" if x is None else inert_line(str(x))) for x in cells)
        )
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def write_figure(tables: Sequence[TimingTable], out: Path) -> list[Path]:
    """Draw tokens per second against the batch with the roofline, and the share of it reached; PNG, SVG and PDF.

    Raises UserError when the folder cannot be written.
    """
    from matplotlib import rc_context

    from harness.timing.speed_figure import draw

    written = []
    with plainly(out), rc_context({"text.parse_math": False}):
        figure = draw(tables)
        out.mkdir(parents=True, exist_ok=True)
        clear_parts(out)
        for form in ("png", "svg", "pdf"):
            buffer = BytesIO()
            dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
            figure.savefig(buffer, format=form, metadata=dated)
            written.append(replace_file(out / f"speed.{form}", buffer.getvalue()))
    return written
