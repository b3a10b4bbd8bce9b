"""Small multiples: one panel for each task and model size, a line for each model, as papers compare distillates."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.figure import Figure

from harness.analysis.summary import Axis, RunSummary
from harness.reporting import Material

from .files import save_figure
from .grouping import groups, slug
from .headings import heading, stamps_of
from .lettering import printable
from .lines import arm_names, drawn, is_free, line_of, look_of
from .panels import Panel
from .sheet import PAGE_IN, WIDEST, compose, paper_style

SAME_SIZE = 1.6
"""Models whose parameters differ by less than this factor from the next one's are of one size."""

SIZE = re.compile(r"[-_.]?(?<![A-Za-z])\d+(?:[._]\d+)?[BbMm](?![A-Za-z])")
"""The part of a model's name that says its size: `-1B`, `-1.5b`, `_350M`."""


def multiples(summaries: Sequence[RunSummary], out: Path, material: Material | None = None) -> list[Path]:
    """Draw `multiples-SELECTOR` into `out` for each selector, where runs are of several tasks or sizes.

    Along seconds where they were recorded, else along k; a protocol's name follows where there are two. Returns the
    paths.
    """
    material = material or Material()
    written = []
    with paper_style(material.style):
        for protocol in dict.fromkeys(summary.protocol for summary in summaries):
            runs = [summary for summary in summaries if summary.protocol == protocol]
            axis: Axis = "seconds" if any(drawn(run, ["seconds"]) for run in runs) else "k"
            suffix = f"-{protocol}" if len(runs) < len(summaries) else ""
            for selector in dict.fromkeys(curve.selector for run in runs for curve in drawn(run, [axis])):
                figure = draw_cells(cells_of(summaries, protocol, material), selector, axis)
                written += save_figure(figure, out, f"multiples-{slug(selector)}{suffix}", material.formats)
    return written


def cells_of(
    summaries: Sequence[RunSummary], protocol: str, material: Material | None = None
) -> dict[tuple[str, str], list[RunSummary]]:
    """The runs of a protocol by size and task, small sizes first; a task asked in several ways has several columns."""
    sizes = size_names(summaries)
    cells: dict[tuple[str, str], list[RunSummary]] = {}
    tasks: dict[str, int] = {}
    for group in groups(summaries, material):
        if group.summaries[0].protocol == protocol:
            task = printable(group.summaries[0].task)
            tasks[task] = tasks.get(task, 0) + 1
            for place, run in zip(group.places, group.summaries, strict=True):
                name = task if tasks[task] == 1 else f"{task} #{tasks[task]}"
                cells.setdefault((sizes[place], name), []).append(run)
    order = list(dict.fromkeys(sizes[place] for place in by_size(summaries)))
    columns = list(dict.fromkeys(task for _, task in cells))
    return dict(sorted(cells.items(), key=lambda cell: (order.index(cell[0][0]), columns.index(cell[0][1]))))


def by_size(summaries: Sequence[RunSummary]) -> list[int]:
    """The places of the runs from the smallest model to the largest; those of unknown size last."""
    return sorted(range(len(summaries)), key=lambda place: parameters(summaries[place]) or float("inf"))


def parameters(summary: RunSummary) -> float:
    """The model's number of parameters, 0 where the engine does not know it."""
    count = summary.facts.get("parameters")
    return float(count) if isinstance(count, int | float) and count > 0 else 0.0


def size_names(summaries: Sequence[RunSummary]) -> list[str]:
    """A name such as `1.2B parameters` for each run's size class: neighbours within `SAME_SIZE` share one."""
    known = sorted({parameters(summary) for summary in summaries} - {0.0})
    names, smallest = dict[float, str]({0.0: ""}), 0.0
    for before, count in pairwise([0.0, *known]):
        smallest = count if not before or count > SAME_SIZE * before else smallest
        names[count] = f"{spell(smallest)} parameters"
    return [names[parameters(summary)] for summary in summaries]


def spell(count: float) -> str:
    """`1.2B`, `350M`, `4.1k`."""
    unit, letter = next(
        ((unit, letter) for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if count >= unit), (1, "")
    )
    return f"{float(f'{count / unit:.2g}'):g}{letter}"


def families(names: Sequence[str]) -> list[str]:
    """Names without the part that says the size."""
    return [SIZE.sub("", name).strip("-_. ") or name for name in names]


def draw_cells(cells: dict[tuple[str, str], list[RunSummary]], selector: str, axis: Axis) -> Figure | None:
    """One panel for each cell with points; None where there would be only one."""
    arms = {cell: names_in(runs, cells) for cell, runs in cells.items()}
    order = list(dict.fromkeys(name for names in arms.values() for name in names))
    panels: list[Panel] = []
    tasks = list(dict.fromkeys(task for _, task in cells))
    sizes = list(dict.fromkeys(size for size, _ in cells))
    for cell, runs in cells.items():
        lines = tuple(
            line_of(arm, curve, look_of(order.index(arm), order.index(arm)))
            for run, arm in zip(runs, arms[cell], strict=True)
            for curve in drawn(run, [axis])
            if curve.selector == selector and not is_free(curve)
        )
        if lines:
            size, task = cell
            row, column = (sizes.index(size), tasks.index(task)) if len(tasks) > 1 else divmod(len(panels), WIDEST)
            if len(tasks) > WIDEST:
                row, column = divmod(len(panels), WIDEST)
            panels.append(Panel(row, column, ", ".join(part for part in (task, size) if part), axis, lines))
    if len(panels) < 2:
        return None
    shown = [line for panel in panels for line in panel.lines]
    runs = [run for runs in cells.values() for run in runs]
    words = heading(runs, shown, PAGE_IN) if len(tasks) == 1 else f"{printable(selector)}, by task and model size"
    return compose(words, stamps_of(runs), shown, panels, runs[0].protocol)


def names_in(runs: Sequence[RunSummary], cells: dict[tuple[str, str], list[RunSummary]]) -> list[str]:
    """The arms' names in one cell: the family alone where that keeps the arms of every cell apart."""
    named = {id(run): name for runs in cells.values() for run, name in zip(runs, arm_names(runs), strict=True)}
    short = [families([named[id(run)] for run in members]) for members in cells.values()]
    apart = all(len(set(names)) == len(names) for names in short)
    names = [named[id(run)] for run in runs]
    return families(names) if apart else names
