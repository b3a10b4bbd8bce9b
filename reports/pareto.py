"""The Pareto front: for every amount spent the most accurate model and selector, with its points named."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.analysis.bank import load_bank
from harness.analysis.summary import Axis, RunSummary
from harness.reporting import Material
from harness.storage.runs import Run

from .files import save_figure
from .grouping import Group, groups
from .headings import Entry, heading, legend_blocks, stamps_of
from .lines import Line, arm_names, lines_of
from .panels import Panel, clipped
from .scales import PREFIXES, number, unit_of
from .sheet import PAGE_IN, compose, paper_style

BOUNDS = ("coverage", "oracle")
"""Selectors of these names need the gold answer: bounds, which no real choice reaches."""

NAMED = 9
"""The most points of a front that are named."""

APART = 0.06
"""The least distance between two named points, as a share of the axis."""

FRONT = {"color": "#202020", "linewidth": 1.4, "zorder": 4, "marker": "", "solid_joinstyle": "round"}


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A point that no other point beats: nothing that costs as little is as accurate."""

    x: float
    value: float
    arm: str
    selector: str


def pareto(summaries: Sequence[RunSummary], out: Path, material: Material | None = None) -> list[Path]:
    """Draw `pareto-seconds` and `pareto-flops` into `out` for each group with at least two lines to choose among.

    Only valid, measured points stand on a front; k is the mean number of samples that had finished. Returns the paths.
    """
    material = material or Material()
    written = []
    with paper_style(material.style):
        for group in groups(summaries, material):
            for axis in ("seconds", "flops"):
                figure = draw_fronts(group, axis, material.runs)
                written += save_figure(figure, out, f"pareto-{axis}{group.suffix}", material.formats)
    return written


def draw_fronts(group: Group, axis: Axis, runs: Sequence[Run] = ()) -> Figure | None:
    """A panel for what selectors reach and one for the bounds; None where no front has a choice of lines."""
    lines = [line for line in styled(group.summaries, axis) if not line.modelled]
    stands = standing(group.summaries)
    panels, entries = list[Panel](), list[Entry]()
    fronts: dict[str, tuple[list[FrontPoint], list[FrontPoint], int]] = {}
    for title, bound in (("chosen by a selector", False), ("bound: some sample is correct", True)):
        members = tuple(line for line in lines if line.selector.startswith(BOUNDS) == bound)
        if len([line for line in members if line.arm in stands]) < 2:
            continue
        # An empty note under the title leaves room for the number of a point at the top.
        panel = Panel(0, len(panels), title, axis, members, ("",))
        front = front_of([line for line in members if line.arm in stands])
        chosen = named(front, panel)
        panels.append(panel)
        fronts[title] = (front, chosen, len(entries))
        entries += [entry(point, group, axis, runs, place) for place, point in enumerate(chosen, len(entries) + 1)]
    if not panels:
        return None

    def marks(axes: Axes, panel: Panel) -> None:
        front, chosen, before = fronts[panel.title]
        draw_front(axes, panel, front, chosen, before)

    shown = [line for panel in panels for line in panel.lines]
    blocks = legend_blocks(shown, titled=False)
    blocks[-1].append(("Pareto front", {**FRONT, "zorder": 1}))
    legend = [*blocks, entries]
    words = heading(group.summaries, shown, PAGE_IN)
    stamps, protocol = stamps_of(group.summaries), group.summaries[0].protocol
    return compose(words, stamps, shown, panels, protocol, marks=marks, legend=legend, faint=True)


def styled(summaries: Sequence[RunSummary], axis: Axis) -> list[Line]:
    """The lines along an axis with the arm in the colour and the selector in marker and dash."""
    return lines_of(summaries, [axis], own_panels=False)


def standing(summaries: Sequence[RunSummary]) -> set[str]:
    """The names of the arms whose runs are valid."""
    return {arm for arm, run in zip(arm_names(summaries), summaries, strict=True) if run.validity == "VALID"}


def front_of(lines: Sequence[Line]) -> list[FrontPoint]:
    """The points that cost less than every point that is as accurate, in order of cost."""
    points = [FrontPoint(point.x, point.value, line.arm, line.selector) for line in lines for point in line.points]
    front: list[FrontPoint] = []
    for point in sorted(points, key=lambda point: (point.x, -point.value)):
        if not front or point.value > front[-1].value:
            front.append(point)
    return front


def named(front: Sequence[FrontPoint], panel: Panel) -> list[FrontPoint]:
    """The points to name: the last, and the middle of each stretch of one model and selector, longest first.

    A point too near to one that is named already, and any past `NAMED`, goes without.
    """
    stretches = [list(points) for _, points in groupby(front, key=lambda point: (point.arm, point.selector))]
    chosen: list[FrontPoint] = []
    for point in [front[-1], *(points[len(points) // 2] for points in sorted(stretches, key=len, reverse=True))]:
        places = [panel.scale.fraction(other.x) for other in chosen]
        if len(chosen) < NAMED and all(abs(panel.scale.fraction(point.x) - place) >= APART for place in places):
            chosen.append(point)
    return sorted(chosen, key=lambda point: point.x)


def entry(point: FrontPoint, group: Group, axis: Axis, runs: Sequence[Run], place: int) -> Entry:
    """A named point in the legend: its number, model, selector, k, cost and accuracy."""
    unit = unit_of(axis, point.x)
    cost = f"{number(float(f'{point.x / unit:.2g}'))} {cost_unit(axis, unit)}"
    k = finished_by(group, axis, runs, point)
    samples = [] if math.isnan(k) else [f"k ≈ {k:.2g}" if k < 10 else f"k ≈ {k:.0f}"]
    return f"{place}  {', '.join([point.arm, point.selector, *samples, cost, f'{100 * point.value:.0f} %'])}", {}


def cost_unit(axis: Axis, unit: float) -> str:
    """`s`, or FLOPs with their prefix."""
    return "s" if axis == "seconds" else f"{PREFIXES[round(math.log10(unit))]}FLOP"


def finished_by(group: Group, axis: Axis, runs: Sequence[Run], point: FrontPoint) -> float:
    """The mean number of a problem's samples that had finished at a point; NaN where the run is not at hand."""
    import numpy as np

    if not runs:
        return math.nan
    place = group.places[arm_names(group.summaries).index(point.arm)]
    counts = [np.count_nonzero(np.asarray(item.positions[axis]) <= point.x) for item in load_bank(runs[place])]
    return float(np.mean(counts))


def draw_front(
    axes: Axes, panel: Panel, front: Sequence[FrontPoint], chosen: Sequence[FrontPoint], before: int
) -> None:
    """The front up to the end of the axis, with numbers above the points that the legend names."""
    xs, values = [point.x for point in front], [clipped(point.value) for point in front]
    last = max(point.x for line in panel.lines for point in line.points)
    axes.plot([*xs, last], [*values, values[-1]], **FRONT)  # type: ignore[arg-type]
    looks = {(line.arm, line.selector): line.look for line in panel.lines}
    for place, point in enumerate(chosen, before + 1):
        look = looks[point.arm, point.selector]
        axes.plot(
            [point.x], [clipped(point.value)], marker=look.marker, color=look.colour, markersize=5.5,
            markeredgecolor="#202020", markeredgewidth=0.8, linestyle="", zorder=5, clip_on=False,
        )  # fmt: skip
        axes.annotate(
            str(place),
            (point.x, clipped(point.value)),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            fontweight="bold",
            zorder=6,
            annotation_clip=False,
        )
