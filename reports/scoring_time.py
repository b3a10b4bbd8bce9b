"""What a reward model's own time and FLOPs do to its selectors: each curve with and without them."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from harness.analysis.summary import Axis, RunSummary
from harness.reporting import Material

from .files import save_figure
from .grouping import groups
from .headings import GREY, Entry, heading, legend_blocks, stamps_of
from .lines import SOLID, Line, Look, arm_names, finite_points, is_free, line_of, look_of
from .panels import Panel, line_style
from .sheet import PAGE_IN, compose, paper_style


def scoring_time(summaries: Sequence[RunSummary], out: Path, material: Material | None = None) -> list[Path]:
    """Draw `scoring-time` into `out` for each group with a selector that reads a reward model's scores.

    A panel for each such selector along seconds and along FLOPs. Returns the paths.
    """
    material = material or Material()
    written = []
    with paper_style(material.style):
        for group in groups(summaries, material):
            figure = draw_pairs(group.summaries)
            written += save_figure(figure, out, f"scoring-time{group.suffix}", material.formats)
    return written


def draw_pairs(summaries: Sequence[RunSummary]) -> Figure | None:
    """The figure; None where no selector reads a reward model's scores."""
    lines = pairs_of(summaries)
    panels = [
        Panel(row, column, name, axis, members)
        for row, name in enumerate(dict.fromkeys(line.selector for line in lines))
        for column, axis in enumerate(places_of(lines))
        if (members := tuple(line for line in lines if (line.selector, line.axis) == (name, axis)))
    ]
    if not panels:
        return None
    kept = [line for line in lines if not line.free]
    words = heading(summaries, lines, PAGE_IN)
    legend = [*legend_blocks(kept, titled=True), entries()]
    return compose(words, stamps_of(summaries), kept, panels, summaries[0].protocol, legend=legend)


def places_of(lines: Sequence[Line]) -> list[Axis]:
    """The axes with lines, seconds first."""
    axes: tuple[Axis, ...] = ("seconds", "flops")
    return [axis for axis in axes if any(line.axis == axis for line in lines)]


def pairs_of(summaries: Sequence[RunSummary]) -> list[Line]:
    """Both curves of every selector that has two, in the colour, marker and dash of its arm."""
    lines = []
    for place, (summary, arm) in enumerate(zip(summaries, arm_names(summaries), strict=True)):
        free = {(curve.selector, curve.axis) for curve in summary.curves if is_free(curve) and finite_points(curve)}
        for curve in summary.curves:
            if (curve.selector, curve.axis) in free and finite_points(curve):
                lines.append(line_of(arm, curve, look_of(place, place)))
    return lines


def entries() -> list[Entry]:
    """What the two kinds of line mean."""
    return [
        ("scoring charged", line_style(Look(GREY, "o", SOLID), False)),
        ("scoring not charged", line_style(Look(GREY, "", SOLID), False, free=True)),
    ]
