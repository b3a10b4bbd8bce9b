"""Two arms against each other: both curves, where one overtakes the other, and how much sooner it is as accurate."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.analysis.summary import RunSummary
from harness.comparisons.comparison import SelectorComparison, TaskComparison
from harness.comparisons.comparison import spelled as spelled_amount
from harness.reporting import Material
from harness.stats.crossing import Crossover
from harness.stats.iso_accuracy import SpeedUp

from .files import save_figure
from .grouping import Group, groups
from .headings import GREY, heading, stamps_of
from .lettering import printable
from .lines import Line, arm_names, drawn, line_of, look_of
from .panels import Panel
from .sheet import PAGE_IN, WIDEST, compose, paper_style

ROWS = 4
"""Rows of panels in one figure; more pairs go on in the next."""


def comparison(summaries: Sequence[RunSummary], out: Path, material: Material | None = None) -> list[Path]:
    """Draw `comparison` into `out` for each group of runs with a paired comparison: the first arm against each other.

    A panel for each pair and selector along seconds, or the first axis that was recorded; `comparison-2` and so on hold
    the pairs past the fourth. Returns the paths.
    """
    material = material or Material()
    written = []
    with paper_style(material.style):
        for group in groups(summaries, material):
            found = material.comparisons.get(group.places)
            for number, figure in enumerate(draw_pairs(group, found) if found else [], 1):
                name = f"comparison{group.suffix}" if number == 1 else f"comparison{group.suffix}-{number}"
                written += save_figure(figure, out, name, material.formats)
    return written


def draw_pairs(group: Group, found: TaskComparison) -> list[Figure]:
    """The figures of a group's pairs, `ROWS` rows of panels in each."""
    panels: list[Panel] = []
    marked: dict[tuple[int, int], SelectorComparison] = {}
    names = short_names(group, found)
    row = 0
    for pair in found.pairs:
        results = [one for one in pair.selectors if one.axis == pair.selectors[0].axis]
        for place, result in enumerate(results):
            lines = lines_in(group, found, (pair.a, pair.b), result)
            where = (row + place // WIDEST, place % WIDEST)
            if len(lines) == 2:
                title = result.selector if len(found.pairs) == 1 else f"{names[pair.b]}: {result.selector}"
                panels.append(Panel(*where, printable(title), result.axis, lines, notes_of(result)))
                marked[where] = result
        row += 1 + (max(len(results), 1) - 1) // WIDEST
    return [sheet(group, panels, first, marked) for first in range(0, row, ROWS) if of_rows(panels, first)]


def of_rows(panels: Sequence[Panel], first: int) -> list[Panel]:
    """The panels of `ROWS` rows from `first` on."""
    return [panel for panel in panels if first <= panel.row < first + ROWS]


def sheet(
    group: Group, panels: Sequence[Panel], first: int, marked: dict[tuple[int, int], SelectorComparison]
) -> Figure:
    """One figure: the panels of its rows with their marks."""
    from dataclasses import replace

    held = [replace(panel, row=panel.row - first) for panel in of_rows(panels, first)]
    lines = list({line.arm: line for panel in held for line in panel.lines}.values())
    words = heading(group.summaries, [line for panel in held for line in panel.lines], PAGE_IN)

    def marks(axes: Axes, panel: Panel) -> None:
        result = marked[panel.row + first, panel.column]
        draw_crossover(axes, panel, result.crossover)
        draw_speed_up(axes, panel, shown_speed_up(result))

    return compose(words, stamps_of(group.summaries), lines, held, group.summaries[0].protocol, marks=marks)


def short_names(group: Group, found: TaskComparison) -> dict[str, str]:
    """What the figures call each arm of a comparison: the name of its first run."""
    named = {run.run: name for run, name in zip(group.summaries, arm_names(group.summaries), strict=True)}
    return {arm.name: named[arm.runs[0]].removesuffix(" (INVALID)") for arm in found.arms}


def lines_in(
    group: Group, found: TaskComparison, pair: tuple[str, str], result: SelectorComparison
) -> tuple[Line, ...]:
    """The two arms' lines under one selector; of an arm with several seeds its first run's."""
    runs = {arm.name: arm.runs[0] for arm in found.arms}
    places = {run.run: place for place, run in enumerate(group.summaries)}
    names = arm_names(group.summaries)
    lines = []
    for name in pair:
        place = places[runs[name]]
        curves = drawn(group.summaries[place], [result.axis])
        lines += [
            line_of(names[place], curve, look_of(place, place))
            for curve in curves
            if curve.selector == result.selector and curve.kind == "measured"
        ][:1]
    return tuple(lines)


def shown_speed_up(result: SelectorComparison) -> SpeedUp | None:
    """The speed-up at the highest accuracy that both arms reach, with both limits where one has them; None for none."""
    reached = [one for one in result.speed_ups if one.factor is not None]
    sure = [one for one in reached if one.low is not None and one.high is not None]
    return max(sure or reached, key=lambda one: one.level) if reached else None


def notes_of(result: SelectorComparison) -> tuple[str, ...]:
    """What the marks of a panel mean, with intervals; a limit beyond what was measured is a dash."""
    notes = []
    found, cross = shown_speed_up(result), result.crossover
    if found is not None and found.factor is not None:
        low, high = (f"{limit:.2g}" if limit is not None else "–" for limit in (found.low, found.high))
        notes.append(f"{found.factor:.2g}× [{low}, {high}] at {100 * found.level:.0f} %")
    if cross.x is not None:
        low, high = (spelled_amount(result.axis, x) if x is not None else "–" for x in (cross.low, cross.high))
        notes.append(f"cross {spelled_amount(result.axis, cross.x)} [{low}, {high}]")
    return tuple(notes)


def draw_crossover(axes: Axes, panel: Panel, found: Crossover) -> None:
    """A line where one arm overtakes the other, in a band that is its interval, cut at the ends of the axis."""
    if found.x is None:
        return
    low = panel.scale.low if found.low is None else max(found.low, panel.scale.low)
    high = panel.scale.high if found.high is None else min(found.high, panel.scale.high)
    axes.axvspan(low, high, color=GREY, alpha=0.08, linewidth=0, zorder=0.5)
    axes.axvline(found.x, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=2.5)


def draw_speed_up(axes: Axes, panel: Panel, found: SpeedUp | None) -> None:
    """An arrow at one accuracy from where the slower arm reaches it to where the faster one does."""
    if found is None or found.a is None or found.b is None:
        return
    slow, fast = max(found.a, found.b), min(found.a, found.b)
    arrow = {"arrowstyle": "-|>", "color": GREY, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
    axes.annotate("", (fast, found.level), (slow, found.level), arrowprops=arrow, zorder=4)
