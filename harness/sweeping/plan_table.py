"""A sweep's plan as a table: its runs, how far they are, and what they will cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.inert import inert_line

COLUMNS = {
    "run": "run", "engine": "engine", "protocol": "protocol", "budget": "budget", "samples": "samples",
    "workers": "workers", "state": "state", "problems": "problems", "prompt_tokens": "prompt",
    "parameters": "parameters", "largest_batch": "rows fit", "hours": "hours",
    "hours_at_most": "at most", "scoring_hours": "scoring",
}  # fmt: skip
"""Columns by the field they show; those that no run fills are left out."""
WORDS = {"run", "engine", "protocol", "state"}
"""Those that hold words; the others hold numbers."""


def print_rows(rows: Sequence[Mapping[str, Any]], total: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Print the table, the sums and what they rest on."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [{name: spelled(name, row[name]) for name in COLUMNS} for row in rows]
    shown.append(dict.fromkeys(COLUMNS, "") | {name: spelled(name, value) for name, value in total.items()})
    shown[-1]["run"] = "in all"
    kept = [name for name in COLUMNS if any(row[name] != "–" for row in shown[:-1])]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in kept:
        table.add_column(COLUMNS[name], overflow="fold", justify="left" if name in WORDS else "right")
    for row in shown if total["hours_at_most"] is not None else shown[:-1]:
        table.add_row(
            *(Text(inert_line("" if row[name] == "–" and row["run"] == "in all" else row[name])) for name in kept)
        )
    console = Console(width=200, highlight=False)
    console.print(table)
    disk = {"records": total["record_bytes"], "weights": total["weight_bytes"]}
    told = [f"{name} {value / 1e9:.3g} GB" for name, value in disk.items() if value is not None]
    for line in [f"disk: {', '.join(told)}"] * bool(told) + list(notes):
        console.print(Text(inert_line(line)))


def spelled(name: str, value: Any) -> str:
    """A cell: hours with three digits, counts in millions where they are large, a dash for what is not known."""
    if value is None:
        return "–"
    if "hours" in name:
        return f"{value:.3g}"
    if name == "parameters":
        return f"{value / 1e6:,.1f} M"
    return f"{value:,.0f}" if isinstance(value, float) else str(value)
