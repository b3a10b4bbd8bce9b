"""What stands above the panels: the heading, the stamps of INVALID runs and the legend. Sizes in inches."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from harness.analysis.summary import RunSummary

from .lettering import POINTS_PER_INCH, printable, shorten, shorten_all, width_in, wrap
from .lines import SOLID, Line, Look, arm_names
from .panels import line_style

LEFT_IN, RIGHT_IN, TOP_IN = 0.46, 0.1, 0.06
ROW_IN = 0.145
TYPE_PT, STAMP_PT = 8, 8
HANDLE_IN = 0.51
"""A legend entry without its words: sample of the line, padding, distance to the next column."""

BARE = {"handlelength": 0, "handletextpad": 0}

GREY, STAMP = "#404040", "#B00020"

Entry = tuple[str, dict[str, Any]]


def set_heading(
    figure: Figure, depth_in: float, words: str, reasons: Sequence[str], blocks: Sequence[list[Entry]]
) -> None:
    """Write heading, stamps and legends from the top down, and give the figure the height that all of it needs.

    `depth_in` is what the panels need below; `reasons` are the stamps' texts.
    """
    page = float(figure.get_size_inches()[0])
    room = page - LEFT_IN - RIGHT_IN
    stamps = [line for stamp in reasons for line in wrap(stamp, room - 0.1, STAMP_PT, weight="bold")]
    legends = [make_legend(figure, entries, room) for entries in blocks]
    deep = [legend.get_window_extent().height / figure.dpi + 0.05 for legend in legends]
    stamped = len(stamps) * ROW_IN + 0.14 if stamps else 0.0
    above = TOP_IN + ROW_IN + 0.05 + stamped + sum(deep) + 0.05
    depth = math.ceil(100 * (above + depth_in)) / 100
    figure.set_size_inches(page, depth)
    left, y = LEFT_IN / page, depth - TOP_IN
    figure.text(left, y / depth, shorten(words, room), fontsize=TYPE_PT, va="top")
    y -= ROW_IN + 0.05
    if stamps:
        draw_stamp(figure, left + 0.05 / page, (y - 0.04) / depth, stamps)
        y -= stamped
    for legend, height in zip(legends, deep, strict=True):
        legend.set_bbox_to_anchor((left, y / depth), transform=figure.transFigure)
        y -= height


def heading(summaries: Sequence[RunSummary], lines: Sequence[Line], page: float) -> str:
    """What all lines share: the model if it is one, else the selector if it is one; the task; how many problems."""
    room = page - LEFT_IN - RIGHT_IN
    arms, selectors = {line.arm for line in lines}, {line.selector for line in lines}
    shared = arms if len(arms) == 1 else selectors if len(selectors) == 1 else set()
    low, high = min(run.problems for run in summaries), max(run.problems for run in summaries)
    size = f", {low} problems" if low == high else f", {low} to {high} problems"
    task = shorten(printable(summaries[0].task), room / 3) + size
    return "".join(shorten(name, room - width_in(f" on {task}")) + " on " for name in shared) + task


def stamps_of(summaries: Sequence[RunSummary]) -> list[str]:
    """A line for each INVALID run: which, where there are several, and why."""
    stamps = []
    for summary, name in zip(summaries, arm_names(summaries), strict=True):
        if summary.validity == "INVALID":
            which = f" {name.removesuffix(' (INVALID)')}:" if len(summaries) > 1 else ""
            stamps.append(f"INVALID:{which} {printable('; '.join(summary.reasons) or 'no reason was recorded')}")
    return stamps


def draw_stamp(figure: Figure, left: float, top: float, stamps: Sequence[str]) -> None:
    """A red frame with the reasons in it."""
    frame = {"boxstyle": "square,pad=0.35", "facecolor": "white", "edgecolor": STAMP, "linewidth": 0.8}
    spacing = ROW_IN * POINTS_PER_INCH / STAMP_PT / 1.2
    figure.text(
        left,
        top,
        "\n".join(stamps),
        fontsize=STAMP_PT,
        fontweight="bold",
        color=STAMP,
        va="top",
        linespacing=spacing,
        bbox=frame,
    )


def legend_blocks(lines: Sequence[Line], titled: bool) -> list[list[Entry]]:
    """The legend: arms, selectors, or both one under the other; a last entry explains modelled lines."""
    arms, selectors = {line.arm: line for line in lines}, {line.selector: line for line in lines}
    if len(arms) == 1:
        blocks = [[(name, line_style(line.look, False)) for name, line in selectors.items()]]
    elif titled or len(selectors) == 1:
        blocks = [[(name, line_style(line.look, False)) for name, line in arms.items()]]
    else:
        plain = [(name, line_style(Look(line.look.colour, "", SOLID), False)) for name, line in arms.items()]
        forms = [
            (name, line_style(Look(GREY, line.look.marker, line.look.dash), False)) for name, line in selectors.items()
        ]
        blocks = [plain, forms]
    if any(line.modelled for line in lines):
        blocks[-1].append(("modelled", line_style(Look(GREY, "o", SOLID), True)))
    return blocks


def make_legend(figure: Figure, entries: Sequence[Entry], room: float) -> Legend:
    """A legend of as many columns as the room has for its longest name; entries without a look are words alone."""
    bare = not any(look for _, look in entries)
    handle = 0.12 if bare else HANDLE_IN
    names = shorten_all([name for name, _ in entries], room - handle, TYPE_PT)
    wide = max(width_in(name, TYPE_PT) for name in names) + handle
    handles = [Line2D([], [], **(look or {"linestyle": ""})) for _, look in entries]
    columns = max(1, min(len(entries), int((room + 0.15) / wide)))
    legend = figure.legend(handles, names, loc="upper left", ncols=columns, **(BARE if bare else {}))
    legend.set_in_layout(False)
    return legend
