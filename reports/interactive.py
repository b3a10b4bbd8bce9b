"""The figures of the page as data that its script hands to plotly."""

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from harness.analysis.summary import Axis, Curve, Point, finite
from harness.inert import inert

from .grouping import Group
from .lines import Look, arm_names, finite_points, is_free, look_of
from .panels import interval
from .scales import axis_label
from .sheet import paper_style

SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross", "X": "x",
    "<": "triangle-left", ">": "triangle-right", "p": "pentagon", "h": "hexagon", "*": "star",
}  # fmt: skip
"""plotly's names for our markers."""

SIGNS = {
    "o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "<": "◀", ">": "▶", "p": "⬟", "h": "⬢",
    "*": "★",
}  # fmt: skip
"""Letters that look like our markers."""

AXES: tuple[Axis, ...] = ("seconds", "k", "tokens", "flops")


def chart(group: Group) -> dict[str, Any]:
    """One group's series with their looks, its arms and selectors with theirs, and the axes that have any."""
    selectors = list(dict.fromkeys(curve.selector for run in group.summaries for curve in run.curves))
    names = arm_names(group.summaries)
    several = len(names) > 1
    series = []
    with paper_style():
        arms = [arm_key(arm, look_of(place, 0), several) for place, arm in enumerate(names)]
        kinds = [
            selector_key(one, look_of(0 if several else rank, rank), several) for rank, one in enumerate(selectors)
        ]
        for place, (run, arm) in enumerate(zip(group.summaries, names, strict=True)):
            for curve in run.curves:
                rank = selectors.index(curve.selector)
                look = look_of(place if several else rank, rank)
                points = finite_points(curve)
                if points:
                    series.append({
                        "arm": arm, "selector": curve.selector, "axis": curve.axis, "kind": curve.kind,
                        "free": is_free(curve), "colour": look.colour, "symbol": SYMBOLS[look.marker],
                        "dash": dash_of(curve, look.dash[1]), "points": [spelled(point) for point in points],
                    })  # fmt: skip
    protocol = group.summaries[0].protocol
    axes = [{"name": axis, "label": axis_label(axis, protocol, 1.0)} for axis in AXES if has(series, axis)]
    return {"axes": axes, "arms": arms, "selectors": kinds, "series": series}


def arm_key(name: str, look: Look, several: bool) -> dict[str, str]:
    """What the page shows beside an arm's name: its colour, where arms have colours."""
    return {"name": name, "colour": on_paper(look) if several else ""}


def selector_key(name: str, look: Look, several: bool) -> dict[str, str]:
    """What the page shows beside a selector's name: its dash and marker, and its colour where arms have none."""
    colour = "currentColor" if several else on_paper(look)
    dash = " ".join(f"{2 * length:g}" for length in look.dash[1])
    return {"name": name, "colour": colour, "dash": dash, "sign": SIGNS[look.marker]}


def on_paper(look: Look) -> str:
    """The colour of a look, black being the ink of the page, which may be light on dark."""
    return "currentColor" if look.colour == "#000000" else look.colour


def has(series: Sequence[dict[str, Any]], axis: str) -> bool:
    """Whether a series runs along the axis."""
    return any(one["axis"] == axis for one in series)


def dash_of(curve: Curve, dashes: Sequence[float]) -> str:
    """A dash pattern as plotly spells it, in pixels of a line two pixels wide."""
    if is_free(curve):
        return "dot"
    if curve.kind == "modelled":
        return "dash"
    return ",".join(f"{2 * length:g}px" for length in dashes) or "solid"


def spelled(point: Point) -> list[float]:
    """x, value, low, high in percent and n, short enough to read and to send."""
    low, high = interval(point)
    numbers = (100 * point.value, 100 * low, 100 * high)
    return [float(f"{point.x:.6g}"), *(round(number, 3) for number in numbers), point.n]


def legible(value: Any) -> Any:
    """A JSON value whose texts have nothing in them that a browser obeys, such as a turn of the direction."""
    if isinstance(value, str):
        return inert(value)
    if isinstance(value, dict):
        return {name: legible(each) for name, each in value.items()}
    return [legible(each) for each in value] if isinstance(value, list | tuple) else value


def as_script_data(value: Any) -> Markup:
    """JSON that may stand inside a script element, whatever names it holds."""
    text = json.dumps(legible(finite(value)), ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
