"""The figure of `ttc speed`: decode throughput and its roofline against the batch, and the share that was reached."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from harness.timing.timing_tables import Cell, TimingTable

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^v<>"


def draw(tables: Sequence[TimingTable]) -> Figure:
    """Two panels: tokens per second with the bound as a dashed line, and achieved over possible.

    A model has one colour; of its contexts the smallest and the largest are drawn, with filled and hollow markers.
    """
    figure = Figure(figsize=(6.75, 2.9), layout="constrained", dpi=200)
    rates, shares = figure.subplots(1, 2)
    for table, colour, marker in zip(tables, COLOURS * len(tables), MARKERS * len(tables), strict=False):
        for cells, hollow in ends_of(table):
            draw_line(rates, shares, cells, colour, marker, hollow, label(table, cells))
    for axes, title in ((rates, "tokens per second (dashed: roofline)"), (shares, "share of the roofline reached")):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("rows in flight")
        axes.set_title(title, fontsize=8, loc="left")
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.5)
    rates.set_yscale("log")
    shares.set_ylim(bottom=0)
    if not shares.lines:
        shares.set_visible(False)
    if rates.lines:
        figure.legend(
            *rates.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7, frameon=False
        )
    return figure


def draw_line(
    rates: Any, shares: Any, cells: Sequence[Cell], colour: str, marker: str, hollow: bool, name: str
) -> None:
    """One model at one context in both panels."""
    batches = [cell.batch for cell in cells]
    look = {
        "color": colour,
        "marker": marker,
        "markersize": 3.5,
        "linewidth": 1.2,
        "mfc": "white" if hollow else colour,
    }
    middle = [cell.tokens_per_s for cell in cells]
    spread = [
        [cell.tokens_per_s - cell.batch / cell.high_s for cell in cells],
        [cell.batch / cell.low_s - cell.tokens_per_s for cell in cells],
    ]
    rates.errorbar(batches, middle, yerr=spread, elinewidth=0.7, label=name, **look)
    known = [cell for cell in cells if cell.bound_s is not None]
    if known:
        bounds = [cell.batch / (cell.bound_s or 1.0) for cell in known]
        rates.plot([cell.batch for cell in known], bounds, color=colour, linewidth=0.8, linestyle=(0, (4, 2)))
        shares.plot([cell.batch for cell in known], [cell.share for cell in known], **look)


def ends_of(table: TimingTable) -> list[tuple[list[Cell], bool]]:
    """The decode cells at the smallest context and, hollow, at the largest."""
    cells = table.of("decode")
    contexts = sorted({cell.context for cell in cells})
    ends = list(dict.fromkeys((contexts[0], contexts[-1]))) if contexts else []
    return [([cell for cell in cells if cell.context == end], place > 0) for place, end in enumerate(ends)]


def label(table: TimingTable, cells: Sequence[Cell]) -> str:
    """The legend's words for a line."""
    return f"{table.facts['model']}, {cells[0].context} tokens"
