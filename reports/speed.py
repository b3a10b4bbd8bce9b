"""Time per decode step against the batch, beside what the hardware allows, and how much faster one model is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator

from harness.analysis.summary import RunSummary
from harness.reporting import Material
from harness.timing.timing_tables import Cell, TimingTable

from .files import save_figure
from .headings import GREY, LEFT_IN, RIGHT_IN, Entry, set_heading
from .lettering import printable
from .lines import Look, last_part, look_of
from .panels import line_style
from .scales import number, scale_of, ticks
from .sheet import BOTTOM_IN, COLUMN_IN, PAGE_IN, paper_style

HEIGHT_IN, BETWEEN_IN = 1.85, 0.62
ROOF = (0, (1, 1.4))


@dataclass(frozen=True, slots=True)
class Speeds:
    """One model's decode steps at one context, by batch."""

    name: str
    look: Look
    cells: tuple[Cell, ...]

    def seconds(self) -> dict[int, float]:
        """The measured time of a step at each batch."""
        return {cell.batch: cell.seconds for cell in self.cells}

    def bounds(self) -> dict[int, float]:
        """The least time that the hardware allows at each batch, where it is known."""
        return {cell.batch: cell.bound_s for cell in self.cells if cell.bound_s is not None}


def speed(summaries: Sequence[RunSummary], out: Path, material: Material | None = None) -> list[Path]:
    """Draw `speed` into `out` from timing tables: milliseconds per step, and the speed-up over the first model.

    Dotted lines are the roofline: what memory bandwidth and arithmetic allow. Returns the paths; none without tables.
    """
    material = material or Material()
    if not material.timings:
        return []
    with paper_style(material.style):
        return save_figure(draw_speeds(material.timings), out, "speed", material.formats)


def draw_speeds(tables: Sequence[TimingTable]) -> Figure | None:
    """The figure at the longest context that all tables have; None where they share none."""
    contexts = [{cell.context for cell in table.of("decode")} for table in tables]
    shared = set.intersection(*contexts)
    if not shared:
        return None
    context = max(shared)
    arms = [arm_of(table, place, context) for place, table in enumerate(tables)]
    several = len(arms) > 1
    page = PAGE_IN if several else COLUMN_IN
    figure = Figure(figsize=(page, 1))
    FigureCanvasAgg(figure)
    words = f"decode steps at a context of {context:,} tokens"
    set_heading(figure, HEIGHT_IN + BOTTOM_IN, words, [], [legend_of(arms)])
    width = (page - LEFT_IN - RIGHT_IN - BETWEEN_IN * several) / (2 if several else 1)
    draw_times(panel(figure, LEFT_IN, width), arms, width)
    if several:
        draw_speed_ups(panel(figure, LEFT_IN + width + BETWEEN_IN, width), arms, width)
    return figure


def arm_of(table: TimingTable, place: int, context: int) -> Speeds:
    """One table's decode steps at a context, under the model's name and dtype."""
    name = printable(last_part(str(table.facts.get("model", f"model {place + 1}"))))
    cells = tuple(cell for cell in table.of("decode") if cell.context == context)
    return Speeds(name, look_of(place, place), cells)


def legend_of(arms: Sequence[Speeds]) -> list[Entry]:
    """The models, and what dotted lines are."""
    entries = [(arm.name, line_style(arm.look, False)) for arm in arms]
    roof = {"color": GREY, "linestyle": ROOF, "linewidth": 1.0}
    return [*entries, ("what the hardware allows", roof)] if any(arm.bounds() for arm in arms) else entries


def panel(figure: Figure, left: float, width: float) -> Axes:
    """Axes at the foot of the figure; sizes in inches."""
    page, depth = figure.get_size_inches()
    return figure.add_axes((left / page, BOTTOM_IN / depth, width / page, HEIGHT_IN / depth))


def draw_times(axes: Axes, arms: Sequence[Speeds], width: float) -> None:
    """Milliseconds per step, with the range of the repeats, over the roofline."""
    for arm in arms:
        xs, style = [cell.batch for cell in arm.cells], line_style(arm.look, False)
        axes.fill_between(
            xs, [1e3 * cell.low_s for cell in arm.cells], [1e3 * cell.high_s for cell in arm.cells],
            color=arm.look.colour, alpha=0.2, linewidth=0,
        )  # fmt: skip
        axes.plot(xs, [1e3 * cell.seconds for cell in arm.cells], clip_on=False, **style)
        bounds = arm.bounds()
        axes.plot(list(bounds), [1e3 * bound for bound in bounds.values()], color=arm.look.colour, linestyle=ROOF,
                  linewidth=1.0)  # fmt: skip
    values = [1e3 * second for arm in arms for second in (*arm.seconds().values(), *arm.bounds().values())]
    set_scales(axes, arms, values, width)
    axes.set_ylabel("ms per step")


def draw_speed_ups(axes: Axes, arms: Sequence[Speeds], width: float) -> None:
    """How many times faster than the first each model's step is, and would be at the roofline; ends are labelled."""
    first = arms[0]
    values = [1.0]
    for arm in arms[1:]:
        for own, base, roof in ((arm.seconds(), first.seconds(), False), (arm.bounds(), first.bounds(), True)):
            ratios = {batch: base[batch] / second for batch, second in own.items() if batch in base}
            if not ratios:
                continue
            values += list(ratios.values())
            style = (
                {"color": arm.look.colour, "linestyle": ROOF, "linewidth": 1.0} if roof else line_style(arm.look, False)
            )
            axes.plot(list(ratios), list(ratios.values()), clip_on=False, **style)
            if not roof:
                label_ends(axes, ratios)
    axes.axhline(1.0, color=GREY, linewidth=0.7, zorder=1)
    set_scales(axes, arms, values, width)
    axes.set_ylabel(f"speed-up over {first.name}" if len(first.name) < 18 else "speed-up over the first")


def label_ends(axes: Axes, ratios: dict[int, float]) -> None:
    """The speed-up at the smallest and at the largest batch, above the point."""
    for batch, side in ((min(ratios), "left"), (max(ratios), "right")):
        axes.annotate(
            f"{ratios[batch]:.2g}×", (batch, ratios[batch]), xytext=(0, 4), textcoords="offset points", ha=side,
            va="bottom", fontsize=8, fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def set_scales(axes: Axes, arms: Sequence[Speeds], values: Sequence[float], width: float) -> None:
    """Both axes logarithmic: powers of two along the batch, round numbers up the side."""
    across = scale_of("k", [cell.batch for arm in arms for cell in arm.cells])
    axes.set_xscale("log", base=2)
    axes.set_xlim(across.low, across.high)
    places = ticks(across, 1.0, width)
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FixedFormatter([number(place) for place in places]))
    axes.set_xlabel("batch")
    low, high = min(values) / 1.15, max(values) * 1.3
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    heads = (1, 2, 5) if high / low < 300 else (1,)
    levels = [head * 10.0**power for power in range(-6, 7) for head in heads if low <= head * 10.0**power <= high]
    axes.yaxis.set_major_locator(FixedLocator(levels))
    axes.yaxis.set_major_formatter(FixedFormatter([number(level) for level in levels]))
    axes.yaxis.set_minor_locator(FixedLocator([]))
