"""A whole figure: its panels in a grid, under a heading, the stamps of INVALID runs and a legend. Sizes in inches."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.analysis.summary import Axis, RunSummary

from .headings import GREY, LEFT_IN, RIGHT_IN, ROW_IN, TYPE_PT, Entry, heading, legend_blocks, set_heading, stamps_of
from .labels import draw_labels, label_heights, room_for_labels
from .lettering import POINTS_PER_INCH, shorten, wrap
from .lines import FACET_ABOVE, Line, drawn, is_faceted, lines_of
from .panels import Panel, draw_panel, interval
from .scales import accuracy_limits

COLUMN_IN, PAGE_IN = 3.25, 6.75
BOTTOM_IN = 0.4
GAP_IN = 0.2
SMALLEST_IN = 1.6
"""A panel that labels would make narrower than this gets a legend instead."""

NOTE_PT, NOTE_IN = 8, 0.14
"""The small print under a panel's title, and the height of its lines."""

WIDEST = 4
"""The most panels beside each other."""

STYLE = Path(__file__).with_name("paper.mplstyle")
FIXED = {f"{name}size": TYPE_PT for name in ("font.", "axes.title", "axes.label", "xtick.label", "ytick.label")}
FIXED |= {"legend.fontsize": TYPE_PT, "text.usetex": False, "text.parse_math": False}
"""What a user's style may not change: the size that the layout is measured at, and that names are plain text."""

Marks = Callable[[Axes, Panel], None]
"""What a figure draws into a panel on top of its lines."""


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
def paper_style(own: Path | None = None) -> Iterator[None]:
    """The style of `paper.mplstyle` on matplotlib's defaults, then the user's `own`, for drawing and for saving."""
    with style.context(["default", STYLE, *([own] if own else []), FIXED]):
        yield


def draw(summaries: Sequence[RunSummary], axes: Sequence[Axis], wide: bool = False) -> Figure | None:
    """The figure of runs that share a task and a protocol, with panels along `axes`; None where nothing has points.

    One panel is as wide as a column, or as a page where `wide` is asked for. Call it, and save what it returns, inside
    `paper_style()`.
    """
    axes = [axis for axis in axes if any(drawn(summary, [axis]) for summary in summaries)]
    summaries = [summary for summary in summaries if drawn(summary, axes)]
    if not summaries:
        return None
    lines = lines_of(summaries, axes)
    panels = panels_of(lines, axes, is_faceted(summaries, axes))
    page = COLUMN_IN if len(panels) == 1 and not wide else PAGE_IN
    words = heading(summaries, lines, page)
    return compose(words, stamps_of(summaries), lines, panels, summaries[0].protocol, page)


def compose(
    words: str,
    stamps: Sequence[str],
    lines: Sequence[Line],
    panels: Sequence[Panel],
    protocol: str,
    page: float = PAGE_IN,
    marks: Marks | None = None,
    legend: Sequence[list[Entry]] | None = None,
    faint: bool = False,
) -> Figure:
    """Put panels under a heading, with `legend` or else the one that `lines` need, and `marks` on top of each panel."""
    held = [line for panel in panels for line in panel.lines]
    limits = accuracy_limits(*zip(*(interval(point) for line in held for point in line.points), strict=True))
    grid, labelled = grid_of(panels, lines, limits, page)
    figure = Figure(figsize=(page, 1))
    FigureCanvasAgg(figure)
    if legend is None:
        legend = [] if labelled else legend_blocks(lines, titled=grid.titles > 0)
    set_heading(figure, grid.depth, words, stamps, legend)
    for panel in panels:
        axes = draw_in_grid(figure, grid, panel, limits, protocol, faint)
        if marks:
            marks(axes, panel)
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
    notes = NOTE_IN * max(len(panel.notes) for panel in panels)
    lines_of_titles = max(len(title_lines(panel, width)) for panel in panels)
    titles = ROW_IN * lines_of_titles + 0.05 + notes if lines_of_titles else 0.0
    height = 1.3 if titles and max(len(panel.lines) for panel in panels) <= FACET_ABOVE else 1.85
    room = room_for_labels(list(label_texts(lines).values()))
    if not titles and width - room >= SMALLEST_IN and all(label_heights(panel, limits, height) for panel in panels):
        return Grid(columns, rows, width - room, height, room, titles), True
    return Grid(columns, rows, width, height, 0.0, titles), False


def title_lines(panel: Panel, width: float) -> list[str]:
    """The lines of a panel's title, two at most; they may reach into the gap right of the panel."""
    return wrap(panel.title, width + GAP_IN / 2, lines=2)


def label_texts(lines: Sequence[Line]) -> dict[tuple[str, str, bool, bool], str]:
    """What to write at the end of each line: what tells it from the others."""
    arms, selectors = {line.arm for line in lines}, {line.selector for line in lines}
    texts = {}
    for line in lines:
        parts = [line.arm] if len(arms) > 1 else []
        parts += [line.selector] if len(selectors) > 1 or len(arms) == 1 else []
        parts += ["modelled"] if line.modelled else []
        parts += ["scoring not charged"] if line.free else []
        texts[line.key] = ", ".join(parts)
    return texts


def draw_in_grid(
    figure: Figure, grid: Grid, panel: Panel, limits: tuple[float, float], protocol: str, faint: bool
) -> Axes:
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
    draw_panel(axes, panel, limits, protocol, grid.width, faint)
    if panel.title:
        # The notes stand between the title and the panel, one line each.
        pad = 3 + bool(panel.notes) + POINTS_PER_INCH * NOTE_IN * len(panel.notes)
        axes.set_title("\n".join(title_lines(panel, grid.width)), loc="left", pad=pad)
        for place, note in enumerate(reversed(panel.notes)):
            level = 1 + (0.045 + NOTE_IN * place) / grid.height
            words = shorten(note, grid.width + GAP_IN / 2, NOTE_PT)
            axes.text(0, level, words, transform=axes.transAxes, fontsize=NOTE_PT, va="bottom", color=GREY)
    if grid.labels:
        texts = label_texts(panel.lines)
        draw_labels(axes, panel, [texts[line.key] for line in panel.lines], limits, (grid.width, grid.height))
    return axes
