"""One panel of a figure: bands, lines and markers of its curves, and its two axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator

from harness.analysis.summary import Axis, Point

from .lines import FREE, MODELLED, Line, Look
from .scales import Scale, accuracy_ticks, axis_label, minor_ticks, number, scale_of, ticks, unit_of

MARKER_ROOM_IN = 0.13
"""The least distance between two markers of a line; the line itself goes through every point."""

BAND_ALPHA = {3: 0.2, 6: 0.12}
DENSE_ALPHA = 0.05
DENSE = {"linewidth": 0.9, "markersize": 2.8}
"""More than six lines in a panel are drawn finer, with fewer markers."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Where a panel stands in the grid, what it is headed, and its lines, which share one x axis.

    `notes` are lines of small print under the title.
    """

    row: int
    column: int
    title: str
    axis: Axis
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def scale(self) -> Scale:
        """The x axis that holds every point of the panel."""
        return scale_of(self.axis, [point.x for line in self.lines for point in line.points])


def draw_panel(
    axes: Axes, panel: Panel, limits: tuple[float, float], protocol: str, width_in: float, faint: bool = False
) -> None:
    """Draw a panel into axes `width_in` inches wide; `limits` are those of the accuracy, shared by all panels.

    `faint` lines have no bands and leave the foreground to something else.
    """
    scale = panel.scale
    set_axes(axes, panel, limits, protocol, width_in)
    alpha = next((alpha for count, alpha in BAND_ALPHA.items() if len(panel.lines) <= count), DENSE_ALPHA)
    finer = DENSE if alpha == DENSE_ALPHA or faint else {}
    apart = MARKER_ROOM_IN * (2 if finer else 1)
    for line in panel.lines:
        if not line.free and not faint:
            draw_band(axes, line, alpha / 2 if line.modelled else alpha)
    for line in panel.lines:
        axes.plot(
            [point.x for point in line.points],
            [clipped(point.value) for point in line.points],
            markevery=marked([scale.fraction(point.x) * width_in for point in line.points], apart),
            clip_on=False,
            zorder=3,
            alpha=0.5 if faint else 1.0,
            **{**line_style(line.look, line.modelled, line.free), **finer},
        )


def line_style(look: Look, modelled: bool, free: bool = False) -> dict[str, Any]:
    """The keywords of a line: dashed with hollow markers when it is modelled, thin and bare when scoring is free."""
    return {
        "color": look.colour,
        "marker": "" if free else look.marker,
        "linestyle": FREE if free else MODELLED if modelled else look.dash,
        "linewidth": 0.8 if free else rcParams["lines.linewidth"],
        "markerfacecolor": "white" if modelled else look.colour,
        "markeredgecolor": look.colour,
    }


def draw_band(axes: Axes, line: Line, alpha: float) -> None:
    """The 95 % interval: a band, or a bar where the line is a single point."""
    lows, highs = zip(*(interval(point) for point in line.points), strict=True)
    xs = [point.x for point in line.points]
    if len(xs) == 1:
        axes.vlines(xs, lows, highs, color=line.look.colour, linewidth=0.8, alpha=0.7, zorder=2)
    else:
        axes.fill_between(xs, lows, highs, color=line.look.colour, alpha=alpha, linewidth=0, zorder=1)


def interval(point: Point) -> tuple[float, float]:
    """The interval inside 0..1; the value itself where an end is unknown."""
    low, high = (end if math.isfinite(end) else point.value for end in (point.low, point.high))
    return clipped(low), clipped(high)


def clipped(value: float) -> float:
    """The accuracy, kept inside 0..1."""
    return min(1.0, max(0.0, value))


def marked(places_in: Sequence[float], apart_in: float) -> list[int]:
    """The points that carry a marker: the last, and going left every next one that is so far from the one before."""
    kept = [len(places_in) - 1]
    for index in range(len(places_in) - 2, -1, -1):
        if places_in[kept[-1]] - places_in[index] >= apart_in:
            kept.append(index)
    return kept[::-1]


def set_axes(axes: Axes, panel: Panel, limits: tuple[float, float], protocol: str, width_in: float) -> None:
    """Range, ticks and labels of both axes; only the first column of panels says the accuracies."""
    scale = panel.scale
    if scale.base is not None:
        axes.set_xscale("log", base=scale.base)
    unit = unit_of(panel.axis, scale.high)
    places = ticks(scale, unit, width_in)
    axes.set_xlim(scale.low, scale.high)
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FixedFormatter([number(place / unit) for place in places]))
    axes.xaxis.set_minor_locator(FixedLocator(minor_ticks(scale)))
    axes.xaxis.set_minor_formatter(FixedFormatter([]))
    axes.set_xlabel(axis_label(panel.axis, protocol, unit))
    axes.set_ylim(*limits)
    heights = accuracy_ticks(*limits)
    axes.yaxis.set_major_locator(FixedLocator(heights))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{100 * height:.0f}" for height in heights]))
    if panel.column == 0:
        axes.set_ylabel("accuracy (%)")
    else:
        axes.tick_params(axis="y", labelleft=False)
