"""Every point of every curve as one CSV: what the figures are drawn from."""

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

from harness.analysis.summary import RunSummary
from harness.inert import inert_line
from harness.storage.replacing import replace_file

COLUMNS = (
    "run",
    "model",
    "task",
    "protocol",
    "budget",
    "selector",
    "axis",
    "kind",
    "reward_model",
    "charged",
    "x",
    "value",
    "low",
    "high",
    "n",
    "validity",
)


def points(summaries: Sequence[RunSummary], out: Path) -> list[Path]:
    """Write `points.csv` into the existing folder `out`: a line for each point, fractions in 0..1.

    Floats read back exactly. `charged` says whether the reward model's time and FLOPs are in x; what does not apply is
    an empty field. Returns the path.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([harmless(cell) for cell in row] for row in rows(summaries))
    return [replace_file(out / "points.csv", text.getvalue())]


def harmless(cell: object) -> object:
    """A text cell that no terminal obeys and no spreadsheet takes for a formula; other cells as they are."""
    if not isinstance(cell, str):
        return cell
    return inert_line(f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell)


def rows(summaries: Sequence[RunSummary]) -> Iterator[tuple[object, ...]]:
    """The fields of every point, in the order of `COLUMNS`."""
    for run in summaries:
        whose = (run.run, run.model, run.task, run.protocol, run.budget)
        for curve in run.curves:
            for point in curve.points:
                place = (curve.selector, curve.axis, curve.kind, curve.reward_model, curve.charged, point.x)
                yield (*whose, *place, point.value, point.low, point.high, point.n, run.validity)
