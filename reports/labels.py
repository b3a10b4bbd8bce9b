"""Names at the ends of lines, where they fit without touching each other."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D

from .lettering import POINTS_PER_INCH, width_in
from .lines import Line
from .panels import Panel, clipped

LABEL_PT = 8
LINE_IN = 1.3 * LABEL_PT / POINTS_PER_INCH
GAP_IN = 0.12
"""From the right end of the axis to the label: room for the leader of a label that was moved."""

FARTHEST_IN = 0.2
"""A label farther from its line's end than this would be read as another line's."""

REACH = 0.9
"""How far right, as a share of the axis, a line must come for a label beside the axis to be taken for its own."""


def room_for_labels(texts: Sequence[str]) -> float:
    """The width, in inches, that labels need to the right of a panel."""
    return GAP_IN + max(width_in(text, LABEL_PT) for text in texts)


def label_heights(panel: Panel, limits: tuple[float, float], height_in: float) -> list[float] | None:
    """The height of each line's label above the x axis, in inches; None where they do not fit."""
    if any(panel.scale.fraction(line.points[-1].x) < REACH for line in panel.lines):
        return None
    ends = end_heights(panel, limits, height_in)
    heights = spread(ends, LINE_IN, height_in)
    if heights is None or any(abs(a - b) > FARTHEST_IN for a, b in zip(ends, heights, strict=True)):
        return None
    return heights


def end_heights(panel: Panel, limits: tuple[float, float], height_in: float) -> list[float]:
    """The height of each line's last point above the x axis, in inches."""
    low, high = limits
    return [(clipped(line.points[-1].value) - low) / (high - low) * height_in for line in panel.lines]


def spread(wanted: Sequence[float], gap: float, top: float) -> list[float] | None:
    """Heights in 0..top as near to `wanted` as a least `gap` between neighbours allows; None where too many.

    Least squares under an order: subtracting the gaps leaves a monotone regression, solved by pooling neighbours that
    are out of order into blocks at their mean.
    """
    if (len(wanted) - 1) * gap > top:
        return None
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    blocks: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        total, count = wanted[index] - rank * gap, 1
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / count:
            below = blocks.pop()
            total, count = total + below[0], count + below[1]
        blocks.append((total, count))
    levels = [total / count for total, count in blocks for _ in range(count)]
    ceiling = top - (len(wanted) - 1) * gap
    heights = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        heights[index] = min(max(levels[rank], 0.0), ceiling) + rank * gap
    return heights


def draw_labels(
    axes: Axes, panel: Panel, texts: Sequence[str], limits: tuple[float, float], size_in: tuple[float, float]
) -> None:
    """Write each line's name beside its end; one that had to move is tied to it by a thin leader."""
    width, height = size_in
    heights = label_heights(panel, limits, height) or []
    for line, text, place, end in zip(panel.lines, texts, heights, end_heights(panel, limits, height), strict=True):
        left, level = 1 + GAP_IN / width, place / height
        axes.text(
            left,
            level,
            text,
            transform=axes.transAxes,
            fontsize=LABEL_PT,
            va="center",
            ha="left",
            color=darker(line),
        )
        if abs(place - end) > LINE_IN / 4:
            start = panel.scale.fraction(line.points[-1].x) + 0.04 / width
            leader = Line2D([start, left - 0.02 / width], [end / height, level], transform=axes.transAxes)
            leader.set(color=line.look.colour, linewidth=0.5, clip_on=False, marker="", linestyle="-")
            axes.add_line(leader)


def darker(line: Line) -> str:
    """The line's colour, dark enough for small letters on white."""
    red, green, blue = to_rgb(line.look.colour)
    return to_hex((0.7 * red, 0.7 * green, 0.7 * blue))
