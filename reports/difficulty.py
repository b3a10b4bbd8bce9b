"""Accuracy by difficulty: the problems in five bins from the easiest to the hardest, each with its own curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from harness.analysis.bank import Item, load_bank
from harness.analysis.curves import values_along, views_of
from harness.analysis.intervals import mean_with_interval
from harness.analysis.summary import Curve, Point, RunSummary
from harness.nouns import Selector
from harness.reporting import Material
from harness.stats.difficulty import BINS, difficulty_bins

from .files import save_figure
from .grouping import Group, groups
from .headings import heading, stamps_of
from .lettering import printable
from .lines import Line, arm_names, line_of, look_of
from .panels import Panel
from .sheet import PAGE_IN, compose, paper_style

if TYPE_CHECKING:
    from harness.analysis.curves import View

LEAST = 2 * BINS
"""With fewer problems a bin would hold a single one."""

ROWS = 4
"""Selectors that are drawn, in the order in which they were asked for."""

NAMES = ("easiest fifth", "second fifth", "middle fifth", "fourth fifth", "hardest fifth")


def difficulty(summaries: Sequence[RunSummary], out: Path, material: Material | None = None) -> list[Path]:
    """Draw `difficulty` into `out` for each group with at least ten problems: a row for each selector.

    Difficulty is the share of wrong samples, the mean over the group's runs; so the bins are drawn from the samples
    that the curves show, which favours the easy bins a little. Returns the paths.
    """
    material = material or Material()
    written = []
    with paper_style(material.style):
        for group in groups(summaries, material) if material.runs else []:
            figure = draw_bins(group, material)
            written += save_figure(figure, out, f"difficulty{group.suffix}", material.formats)
    return written


def draw_bins(group: Group, material: Material) -> Figure | None:
    """A group's figure; None where the problems are too few or the runs do not share them."""
    banks = [load_bank(material.runs[place]) for place in group.places]
    ids = [item.problem_id for item in banks[0]]
    if len(ids) < LEAST or any([item.problem_id for item in bank] != ids for bank in banks):
        return None
    rates = np.mean([[np.mean(item.graded.correct) for item in bank] for bank in banks], axis=0)
    bin_of = difficulty_bins(rates)
    names = arm_names(group.summaries)
    found = [
        (name, curve_in(view, grid_of(group.summaries[place], view.selector.name), bin_of == number), number, place)
        for place, (bank, name) in enumerate(zip(banks, names, strict=True))
        for view in shown_views(bank, material.selectors)
        for number in range(BINS)
        if np.any(bin_of == number)
    ]
    return sheet(group, found, np.bincount(bin_of, minlength=BINS).tolist())


def shown_views(bank: Sequence[Item], selectors: Sequence[Selector]) -> "list[View]":
    """The first selectors, those that read scores charged for them."""
    return [view for view in views_of(bank, selectors, "seconds") if view.charged is not False][:ROWS]


def grid_of(summary: RunSummary, selector: str) -> list[float]:
    """The places of the run's own curve along seconds."""
    curves = (curve for curve in summary.curves if (curve.selector, curve.axis) == (selector, "seconds"))
    return [point.x for point in next(curves, Curve(selector, "seconds", ())).points]


def curve_in(view: "View", grid: Sequence[float], chosen: np.ndarray) -> Curve:
    """A selector's curve over the chosen problems; without points where nothing was recorded along seconds."""
    if not grid:
        return Curve(view.selector.name, "seconds", ())
    items = [item for item, inside in zip(view.items, chosen, strict=True) if inside]
    values = values_along(view.selector, items, "seconds", grid)
    points = tuple(
        Point(float(x), float(value), float(low), float(high), len(items))
        for x, value, low, high in zip(grid, *mean_with_interval(values), strict=True)
    )
    return Curve(view.selector.name, "seconds", points)


def sheet(group: Group, found: Sequence[tuple[str, Curve, int, int]], sizes: Sequence[int]) -> Figure | None:
    """Put the curves into panels, a row for each selector and a column for each bin that holds problems."""
    columns = [number for number in range(BINS) if sizes[number]]
    panels: list[Panel] = []
    for row, selector in enumerate(dict.fromkeys(curve.selector for _, curve, _, _ in found)):
        for column, number in enumerate(columns):
            lines = tuple(
                line_of(arm, curve, look_of(place, place))
                for arm, curve, own, place in found
                if own == number and curve.selector == selector and curve.points
            )
            if lines:
                note = f"{NAMES[number]}, {sizes[number]}"
                panels.append(Panel(row, column, printable(selector), "seconds", lines, (note,)))
    if not panels:
        return None
    legend = one_of_each(panels)
    words = heading(group.summaries, [line for panel in panels for line in panel.lines], PAGE_IN)
    return compose(f"{words}, by difficulty", stamps_of(group.summaries), legend, panels, group.summaries[0].protocol)


def one_of_each(panels: Sequence[Panel]) -> list[Line]:
    """A line of each arm, for the legend."""
    return list({line.arm: line for panel in panels for line in panel.lines}.values())
