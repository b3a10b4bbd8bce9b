"""The numbers behind the figures: a Markdown table, a LaTeX table for booktabs, and their caption."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.analysis.summary import Curve, Point, RunSummary
from harness.inert import inert
from harness.reporting import Material
from harness.storage.replacing import replace_file

from .captions import caption_text
from .grouping import groups
from .lines import is_free
from .significance import Cell, significantly_best
from .tex import latex_text

HEADS: dict[str, tuple[str, str]] = {
    "run": ("run", "Run"),
    "model": ("model", "Model"),
    "task": ("task", "Task"),
    "protocol": ("protocol", "Protocol"),
    "budget": ("budget", "Budget"),
    "selector": ("selector", "Selector"),
    "problems": ("problems", "Problems"),
    "samples": ("samples", "Samples"),
    "first": ("k = 1 (%)", r"$k = 1$ (\%)"),
    "largest_k": ("k max", r"$k_{\max}$"),
    "last": ("k = max (%)", r"$k = k_{\max}$ (\%)"),
    "seconds": ("seconds", "Seconds"),
    "full": ("full budget (%)", r"Full budget (\%)"),
    "verdict": ("verdict", "Verdict"),
}
"""The columns and their heads in Markdown and LaTeX."""

RIGHT = ("problems", "samples", "first", "largest_k", "last", "seconds", "full")
CONSTANT = ("task", "protocol", "budget", "problems", "samples", "verdict")
"""Columns that the LaTeX table and the page leave to the caption where all rows say the same."""

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Row:
    """One run, by its place among all, under one selector; a point is None where the run has no such curve.

    `first` and `last` are the accuracies at k = 1 and at the largest k, `full` that at the full budget: the last point
    along seconds.
    """

    place: int
    summary: RunSummary
    selector: str
    first: Point | None
    last: Point | None
    full: Point | None


def tables(summaries: Sequence[RunSummary], out: Path, material: Material | None = None) -> list[Path]:
    """Write `table.md`, `table.tex`, `caption.txt` and `caption.tex` into the existing folder `out`.

    In LaTeX the best of each selector is bold where it is significantly better than every other run (`significance`).
    Returns the paths.
    """
    material = material or Material()
    rows = table_rows(summaries)
    best = {cell for group in groups(summaries, material) for cell in significantly_best(group, material)}
    caption = caption_text(summaries)
    sure = " Bold: better than every other run (paired test, Holm-adjusted p < 0.05)." if best else ""
    return [
        replace_file(out / "table.md", markdown(rows)),
        replace_file(out / "table.tex", latex(rows, best)),
        replace_file(out / "caption.txt", inert(caption) + "\n"),
        replace_file(out / "caption.tex", rf"\caption{{{latex_text(caption + sure)}}}" + "\n"),
    ]


def table_rows(summaries: Sequence[RunSummary]) -> list[Row]:
    """One row for each run and selector, then one for each of its modelled or uncharged curves along seconds."""
    rows = []
    for place, summary in enumerate(summaries):
        for selector in dict.fromkeys(curve.selector for curve in summary.curves):
            along_k, along_seconds = (points_along(summary, selector, axis) for axis in ("k", "seconds"))
            if along_k or along_seconds:
                at_one = next((point for point in along_k if point.x == 1), None)
                rows.append(Row(place, summary, selector, at_one, last(along_k), last(along_seconds)))
            for kind, free, words in (("modelled", False, "modelled"), ("measured", True, "scoring not charged")):
                other = points_along(summary, selector, "seconds", kind, free)
                if other:
                    rows.append(Row(place, summary, f"{selector}, {words}", None, None, last(other)))
    return rows


def points_along(
    summary: RunSummary, selector: str, axis: str, kind: str = "measured", free: bool = False
) -> tuple[Point, ...]:
    """The points of one curve in order of x; none where the run has no such curve."""
    wanted: Iterator[Curve] = (
        curve
        for curve in summary.curves
        if (curve.selector, curve.axis, curve.kind, is_free(curve)) == (selector, axis, kind, free)
    )
    found = next(wanted, None)
    return tuple(sorted(found.points, key=lambda point: point.x)) if found else ()


def last(points: Sequence[Point]) -> Point | None:
    """The last point, None where there is none."""
    return points[-1] if points else None


def cells(row: Row) -> dict[str, str | Point | None]:
    """A row's cells by column: plain text, or an accuracy."""
    run = row.summary
    return {
        "run": run.run,
        "model": run.model,
        "task": run.task,
        "protocol": run.protocol,
        "budget": run.budget or NOTHING,
        "selector": row.selector,
        "problems": str(run.problems),
        "samples": str(run.samples),
        "first": row.first,
        "largest_k": f"{row.last.x:g}" if row.last else NOTHING,
        "last": row.last,
        "seconds": f"{row.full.x:.4g}" if row.full else NOTHING,
        "full": row.full,
        "verdict": run.validity,
    }


def accuracy(point: Point) -> tuple[str, str, str]:
    """Percent, and how far the 95 % interval reaches above and below it, to a tenth."""
    value, low, high = (round(100 * share, 1) for share in (point.value, point.low, point.high))
    return f"{value:.1f}", f"{high - value:.1f}", f"{value - low:.1f}"


def markdown(rows: Sequence[Row]) -> str:
    """The whole table for a README."""
    rule = ("---:" if name in RIGHT else ":---" for name in HEADS)
    body = ([markdown_cell(cell) for cell in cells(row).values()] for row in rows)
    lines = ([head for head, _ in HEADS.values()], rule, *body)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_cell(cell: str | Point | None) -> str:
    """`62.5 ± 15.0`, or `62.5 +12.1 −15.3` where the two sides differ; text with its Markdown signs escaped."""
    if cell is None:
        return NOTHING
    if isinstance(cell, str):
        return markdown_text(cell)
    value, above, below = accuracy(cell)
    return f"{value} ± {above}" if above == below else f"{value} +{above} −{below}"


def markdown_text(text: str) -> str:
    """The text on one line, so that no renderer takes a sign of it for markup and no terminal obeys it."""
    entities = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    signs = re.sub(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", entities)
    return inert(re.sub(r"[\s\x00-\x1f\x7f]+", " ", signs))


def latex(rows: Sequence[Row], best: Collection[Cell] = ()) -> str:
    r"""A `tabular` for `\usepackage{booktabs}`; columns that say the same in all rows are left to the caption.

    The accuracies of `best` are bold.
    """
    table = [cells(row) for row in rows]
    names = [name for name in HEADS if name not in left_out(table)]
    layout = "".join("r" if name in RIGHT else "l" for name in names)
    head = " & ".join(HEADS[name][1] for name in names)
    body = [
        " & ".join(latex_cell(line[name], (row.place, row.selector, name) in best) for name in names) + r" \\"
        for row, line in zip(rows, table, strict=True)
    ]
    top = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{{layout}}}", r"\toprule", rf"{head} \\", r"\midrule"]
    return "\n".join([*top, *body, r"\bottomrule", r"\end{tabular}", ""])


def left_out(table: Sequence[dict[str, str | Point | None]]) -> set[str]:
    """Constant columns, and the run's name where model, task, protocol and budget already tell the runs apart."""
    constant = {name for name in CONSTANT if len({line[name] for line in table}) == 1}
    if table and table[0]["verdict"] == "INVALID":
        constant.discard("verdict")
    known = {tuple(line[name] for name in ("model", "task", "protocol", "budget")) for line in table}
    return constant | ({"run"} if len(known) == len({line["run"] for line in table}) else set())


def latex_cell(cell: str | Point | None, bold: bool = False) -> str:
    """An accuracy with its interval in mathematics, or escaped text."""
    if cell is None or cell == NOTHING:
        return "--"
    if isinstance(cell, str):
        return latex_text(cell)
    value, above, below = accuracy(cell)
    value = rf"\mathbf{{{value}}}" if bold else value
    return rf"${value} \pm {above}$" if above == below else f"${value}^{{+{above}}}_{{-{below}}}$"
