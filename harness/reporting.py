"""From summaries to files and to what is printed: every report plug-in writes, then the table is told."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import plugins
from harness.errors import UserError
from harness.runs import Run
from harness.summary import Curve, RunSummary, as_document


def report_folder(out: Path | None, runs: Sequence[Run]) -> Path:
    """Where a bench puts its report: inside the run when there is one, beside the runs when there are several."""
    if len(runs) == 1:
        return runs[0].path / "report"
    return (out or runs[0].path.parent) / "report"


def write_reports(summaries: Sequence[RunSummary], out: Path) -> list[Path]:
    """Have every report plug-in write into `out`; returns the files. Raises UserError when it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the report to '{out}' ({error.strerror}); choose another --out") from None
    written: list[Path] = []
    for name in plugins.builtins("reports"):
        written += plugins.load_function("reports", name)(summaries, out)
    return written


def tell(summaries: Sequence[RunSummary], written: Sequence[Path], runs: Sequence[Run], json_: bool) -> None:
    """Print the JSON document, or the table followed by where everything is."""
    if json_:
        print(json.dumps(as_document(summaries)))
        return
    print_table(summaries)
    for summary, run in zip(summaries, runs, strict=True):
        for reason, mend in zip(summary.reasons, mends(run, len(summary.reasons)), strict=True):
            print(f"{summary.run} is INVALID: {reason}{mend}")
    for label, kind in (("figure", ".png"), ("points", ".csv"), ("page", ".html")):
        for path in written:
            if path.suffix == kind:
                print(f"{label:7} {path}")
    for run in runs:
        print(f"{'run':7} {run.path}")


def mends(run: Run, count: int) -> list[str]:
    """What to do about each reason; reasons that come from comparing runs have no mend of their own."""
    known = [f" ({mend})" for mend in run.manifest["validity"]["mend"]]
    return [*known, *[""] * count][:count]


def print_table(summaries: Sequence[RunSummary]) -> None:
    """One row per run and selector: accuracy with its interval at the full budget, at one sample and at all."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    columns = ("model", "task", "selector", "k=1", "k=max", "at the budget", "problems", "samples", "budget", "verdict")
    for column in columns:
        table.add_column(column, justify="right" if column in columns[3:8] else "left", overflow="fold")
    for summary in summaries:
        for name in dict.fromkeys(curve.selector for curve in summary.curves):
            curves = {curve.axis: curve for curve in summary.curves if curve.selector == name}
            cells = (
                summary.model,
                summary.task,
                name,
                spell(curves.get("k"), 0),
                spell(curves.get("k"), -1),
                spell(curves.get("seconds"), -1),
                str(summary.problems),
                str(summary.samples),
                summary.budget or "none",
                summary.validity,
            )
            table.add_row(*map(Text, cells))
    width = None if sys.stdout.isatty() else 140
    Console(width=width, highlight=False, soft_wrap=False).print(table)


def spell(curve: Curve | None, index: int) -> str:
    """`54.2 [41.0, 66.9]` in percent, or a dash where there is no such point."""
    if curve is None or not curve.points:
        return "–"
    point = curve.points[index]
    return f"{100 * point.value:.1f} [{100 * point.low:.1f}, {100 * point.high:.1f}]"
