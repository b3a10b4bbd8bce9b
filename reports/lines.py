"""Which curves of which runs are drawn, under what name, in what colour, marker and dash."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import rcParams

from harness.analysis.summary import Axis, Curve, Point, RunSummary

from .lettering import printable

Dash = tuple[float, tuple[float, ...]]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
SOLID: Dash = (0, ())
DASHES: tuple[Dash, ...] = (SOLID, (0, (1, 1.1)), (0, (5, 1.4, 1, 1.4)), (0, (7, 1.5)), (0, (3, 1.2, 1, 1.2, 1, 1.2)))
MODELLED: Dash = (0, (3, 1.6))
"""Kept for modelled curves, whose markers are hollow too."""

FREE: Dash = (0, (0.8, 1.2))
"""Kept for curves that leave a reward model's time out, which carry no markers."""

PATH = re.compile(r"[\w.~-]*(/[\w.-]+)+")
FACET_ABOVE = 6
"""More lines than this in one panel cannot be told apart under their bands; each selector then gets its own."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a line is drawn."""

    colour: str
    marker: str
    dash: Dash


@dataclass(frozen=True, slots=True)
class Line:
    """One curve ready to draw: its arm (the model, or the model and the run), its look and its points in order of x."""

    arm: str
    selector: str
    axis: Axis
    modelled: bool
    points: tuple[Point, ...]
    look: Look
    free: bool = False
    """The reward model's time and FLOPs are left out of x."""

    @property
    def key(self) -> tuple[str, str, bool, bool]:
        """What tells a line from the others of its panel."""
        return self.arm, self.selector, self.modelled, self.free


def colour_of(place: int) -> str:
    """The colour of an arm or a selector by its place, from the style's cycle."""
    colours = rcParams["axes.prop_cycle"].by_key()["color"]
    return str(colours[place % len(colours)])


def look_of(colour: int, form: int) -> Look:
    """The look of a line by the places of what its colour, and its marker and dash, stand for."""
    return Look(colour_of(colour), MARKERS[form % len(MARKERS)], DASHES[form % len(DASHES)])


def finite_points(curve: Curve) -> tuple[Point, ...]:
    """The points that have a place on paper, in order of x."""
    places = (point for point in curve.points if math.isfinite(point.x) and math.isfinite(point.value))
    return tuple(sorted(places, key=lambda point: point.x))


def arm_names(summaries: Sequence[RunSummary]) -> list[str]:
    """A name for each run that no other has: the model's; with the run's where one model ran twice.

    Hub ids and paths are cut to their last part where that keeps them apart. A run that is INVALID says so.
    """
    models = {summary.model: printable(last_part(summary.model)) for summary in summaries}
    if len(set(models.values())) < len(models):
        models = {model: printable(model) for model in models}
    names = [models[summary.model] for summary in summaries]
    runs = Counter(names)
    names = [
        f"{name} ({printable(summary.run)})" if runs[name] > 1 else name
        for name, summary in zip(names, summaries, strict=True)
    ]
    again = Counter(names)
    names = [f"{name} #{place}" if again[name] > 1 else name for place, name in enumerate(names, 1)]
    return [
        f"{name} (INVALID)" if summary.validity == "INVALID" else name
        for name, summary in zip(names, summaries, strict=True)
    ]


def last_part(model: str) -> str:
    """`name` of `org/name` or of a path; any other text as it is."""
    return model.rsplit("/", 1)[-1] if PATH.fullmatch(model) else model


def selector_names(summaries: Sequence[RunSummary], axes: Sequence[Axis]) -> list[str]:
    """The selectors with something to draw on these axes, in order of appearance."""
    found = (curve.selector for summary in summaries for curve in drawn(summary, axes))
    return list(dict.fromkeys(found))


def drawn(summary: RunSummary, axes: Sequence[Axis]) -> list[Curve]:
    """The curves of a run along these axes that have points, reward models charged where there are any."""
    curves = (curve for curve in summary.curves if not is_free(curve))
    return [curve for curve in curves if curve.axis in axes and finite_points(curve)]


def is_faceted(summaries: Sequence[RunSummary], axes: Sequence[Axis]) -> bool:
    """Whether several arms and several selectors make too many lines for one panel."""
    arms = [summary for summary in summaries if drawn(summary, axes)]
    selectors = len(selector_names(arms, axes))
    return len(arms) > 1 and selectors > 1 and len(arms) * selectors > FACET_ABOVE


def lines_of(summaries: Sequence[RunSummary], axes: Sequence[Axis], own_panels: bool | None = None) -> list[Line]:
    """Every line of a figure.

    With one arm, a selector's colour, marker and dash are its own. With several, the colour is the arm's and marker and
    dash are the selector's; where selectors have panels of their own (by default those that `is_faceted` gives them),
    all three are the arm's.
    """
    summaries = [summary for summary in summaries if drawn(summary, axes)]
    selectors = selector_names(summaries, axes)
    if own_panels is None:
        own_panels = len(selectors) == 1 or is_faceted(summaries, axes)
    lines = []
    for place, (summary, arm) in enumerate(zip(summaries, arm_names(summaries), strict=True)):
        for curve in drawn(summary, axes):
            rank = selectors.index(curve.selector)
            colour, form = (rank, rank) if len(summaries) == 1 else (place, place if own_panels else rank)
            lines.append(line_of(arm, curve, look_of(colour, form)))
    return lines


def line_of(arm: str, curve: Curve, look: Look) -> Line:
    """A curve ready to draw."""
    modelled, points = curve.kind == "modelled", finite_points(curve)
    return Line(arm, printable(curve.selector), curve.axis, modelled, points, look, is_free(curve))


def is_free(curve: Curve) -> bool:
    """Whether a reward model chose along this curve and its own time and FLOPs are left out."""
    return curve.charged is False
