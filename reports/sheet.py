"""A whole figure: its panels in a grid, under a heading, the stamps of INVALID runs and a legend. Sizes in inches."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from harness.summary import Axis, RunSummary

from .labels import draw_labels, label_heights, room_for_labels
from .lettering import POINTS_PER_INCH, printable, shorten, shorten_all, width_in, wrap
from .lines import FACET_ABOVE, SOLID, Line, Look, arm_names, drawn, is_faceted, lines_of
from .panels import Panel, draw_panel, interval, line_style
from .scales import accuracy_limits

COLUMN_IN, PAGE_IN = 3.3, 6.75
LEFT_IN, RIGHT_IN, BOTTOM_IN, TOP_IN = 0.46, 0.1, 0.4, 0.06
GAP_IN = 0.2
ROW_IN = 0.145
SMALLEST_IN = 1.65
"""A panel that labels would make narrower than this gets a legend instead."""

WIDEST = 4
"""The most panels beside each other."""

TYPE_PT, STAMP_PT = 8, 7.5
HANDLE_IN = 0.51
"""A legend entry without its words: sample of the line, padding, distance to the next column."""

GREY, STAMP = "#404040", "#B00020"
STYLE = Path(__file__).with_name("paper.mplstyle")

Entry = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Grid:
    """The panels' common size, the room for labels right of each, and what is above each row."""

    columns: int
    rows: int
    width: float
    height: float
    labels: float
    titles: float

    @property
    def depth(self) -> float:
        """From the top of the first row of panels to the bottom of the figure."""
        return self.rows * (self.titles + self.height + BOTTOM_IN)

    def left(self, column: int) -> float:
        """Where a column's axes begin."""
        return LEFT_IN + column * (self.width + self.labels + GAP_IN)

    def bottom(self, row: int) -> float:
        """Where a row's axes stand, from the bottom of the figure."""
        return BOTTOM_IN + (self.rows - 1 - row) * (self.titles + self.height + BOTTOM_IN)


@contextmanager
def paper_style() -> Iterator[None]:
    """The style of `paper.mplstyle` on matplotlib's defaults, for drawing and for saving."""
    with style.context(["default", STYLE]):
        yield


def draw(summaries: Sequence[RunSummary], axes: Sequence[Axis]) -> Figure | None:
    """The figure of runs that share a task and a protocol, with panels along `axes`; None where nothing has points.

    Call it, and save what it returns, inside `paper_style()`.
    """
    axes = [axis for axis in axes if any(drawn(summary, [axis]) for summary in summaries)]
    summaries = [summary for summary in summaries if drawn(summary, axes)]
    if not summaries:
        return None
    lines = lines_of(summaries, axes)
    panels = panels_of(lines, axes, is_faceted(summaries, axes))
    limits = accuracy_limits(*zip(*(interval(point) for line in lines for point in line.points), strict=True))
    page = COLUMN_IN if len(panels) == 1 else PAGE_IN
    grid, labelled = grid_of(panels, lines, limits, page)
    figure = Figure(figsize=(page, 1))
    FigureCanvasAgg(figure)
    blocks = [] if labelled else legend_blocks(lines, titled=grid.titles > 0)
    set_heading(figure, grid, summaries, lines, blocks)
    for panel in panels:
        draw_in_grid(figure, grid, panel, limits, summaries[0].protocol)
    return figure


def panels_of(lines: Sequence[Line], axes: Sequence[Axis], faceted: bool) -> list[Panel]:
    """One panel for each axis side by side; where faceted, rows of panels for each axis, one for each selector."""
    if not faceted:
        return [
            Panel(0, place, "", axis, tuple(line for line in lines if line.axis == axis))
            for place, axis in enumerate(axes)
        ]
    count = len({line.selector for line in lines})
    columns = math.ceil(count / math.ceil(count / WIDEST))
    panels: list[Panel] = []
    for axis in axes:
        top = 1 + max((panel.row for panel in panels), default=-1)
        names = dict.fromkeys(line.selector for line in lines if line.axis == axis)
        for place, name in enumerate(names):
            members = tuple(line for line in lines if (line.axis, line.selector) == (axis, name))
            panels.append(Panel(top + place // columns, place % columns, name, axis, members))
    return panels


def grid_of(
    panels: Sequence[Panel], lines: Sequence[Line], limits: tuple[float, float], page: float
) -> tuple[Grid, bool]:
    """The grid, and whether the lines carry their names; if not, the figure needs a legend."""
    columns = 1 + max(panel.column for panel in panels)
    rows = 1 + max(panel.row for panel in panels)
    width = (page - LEFT_IN - RIGHT_IN - (columns - 1) * GAP_IN) / columns
    titles = ROW_IN + 0.04 if any(panel.title for panel in panels) else 0.0
    height = 1.3 if titles and max(len(panel.lines) for panel in panels) <= FACET_ABOVE else 1.85
    room = room_for_labels(list(label_texts(lines).values()))
    if not titles and width - room >= SMALLEST_IN and all(label_heights(panel, limits, height) for panel in panels):
        return Grid(columns, rows, width - room, height, room, titles), True
    return Grid(columns, rows, width, height, 0.0, titles), False


def label_texts(lines: Sequence[Line]) -> dict[tuple[str, str, bool], str]:
    """What to write at the end of each line: what tells it from the others."""
    arms, selectors = {line.arm for line in lines}, {line.selector for line in lines}
    texts = {}
    for line in lines:
        parts = [line.arm] if len(arms) > 1 else []
        parts += [line.selector] if len(selectors) > 1 or len(arms) == 1 else []
        parts += ["modelled"] if line.modelled else []
        texts[line.arm, line.selector, line.modelled] = ", ".join(parts)
    return texts


def draw_in_grid(figure: Figure, grid: Grid, panel: Panel, limits: tuple[float, float], protocol: str) -> None:
    """Place a panel's axes on the figure and draw them."""
    page, depth = figure.get_size_inches()
    axes = figure.add_axes(
        (
            grid.left(panel.column) / page,
            grid.bottom(panel.row) / depth,
            grid.width / page,
            grid.height / depth,
        )
    )
    draw_panel(axes, panel, limits, protocol, grid.width)
    if panel.title:
        axes.set_title(shorten(panel.title, grid.width + GAP_IN / 2), loc="left", pad=3)
    if grid.labels:
        texts = label_texts(panel.lines)
        names = [texts[line.arm, line.selector, line.modelled] for line in panel.lines]
        draw_labels(axes, panel, names, limits, (grid.width, grid.height))


def set_heading(
    figure: Figure, grid: Grid, summaries: Sequence[RunSummary], lines: Sequence[Line], blocks: Sequence[list[Entry]]
) -> None:
    """Write heading, stamps and legends from the top down, and give the figure the height that all of it needs."""
    page = float(figure.get_size_inches()[0])
    room = page - LEFT_IN - RIGHT_IN
    stamps = [line for stamp in stamps_of(summaries) for line in wrap(stamp, room - 0.1, STAMP_PT, weight="bold")]
    legends = [make_legend(figure, entries, room) for entries in blocks]
    deep = [legend.get_window_extent().height / figure.dpi + 0.05 for legend in legends]
    stamped = len(stamps) * ROW_IN + 0.14 if stamps else 0.0
    above = TOP_IN + ROW_IN + 0.05 + stamped + sum(deep) + 0.05
    depth = math.ceil(100 * (above + grid.depth)) / 100
    figure.set_size_inches(page, depth)
    left, y = LEFT_IN / page, depth - TOP_IN
    figure.text(left, y / depth, heading(summaries, lines, room), fontsize=TYPE_PT, va="top")
    y -= ROW_IN + 0.05
    if stamps:
        draw_stamp(figure, left + 0.05 / page, (y - 0.04) / depth, stamps)
        y -= stamped
    for legend, height in zip(legends, deep, strict=True):
        legend.set_bbox_to_anchor((left, y / depth), transform=figure.transFigure)
        y -= height


def heading(summaries: Sequence[RunSummary], lines: Sequence[Line], room: float) -> str:
    """What all lines share: the model if it is one, else the selector if it is one; the task; how many problems."""
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
    """A legend of as many columns as the room has for its longest name."""
    names = shorten_all([name for name, _ in entries], room - HANDLE_IN, TYPE_PT)
    wide = max(width_in(name, TYPE_PT) for name in names) + HANDLE_IN
    handles = [Line2D([], [], **look) for _, look in entries]
    columns = max(1, min(len(entries), int((room + 0.15) / wide)))
    legend = figure.legend(handles, names, loc="upper left", ncols=columns)
    legend.set_in_layout(False)
    return legend
