"""Axes of the figures: their range, their ticks and what the ticks say."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.ticker import MaxNLocator

from harness.analysis.summary import Axis

from .lettering import width_in

MARGIN = 0.04
"""Room left free at either end of an x axis, as a share of it, so that markers stay off the frame."""

DECADE = 10
LABEL_GAP_IN = 0.08
"""The least room between the labels of two ticks."""

PREFIXES = {0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E", 21: "Z"}
WORDS = {0: "", 3: "thousand ", 6: "million ", 9: "billion ", 12: "trillion "}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Scale:
    """An x axis: logarithmic to `base`, or linear where it is None, from `low` to `high`."""

    base: int | None
    low: float
    high: float

    def fraction(self, x: float) -> float:
        """Where x lies on the axis, 0 at its left end and 1 at its right end."""
        if self.base is None:
            return (x - self.low) / (self.high - self.low)
        return math.log(x / self.low) / math.log(self.high / self.low)


def scale_of(axis: Axis, xs: Sequence[float]) -> Scale:
    """The x axis that holds all of `xs` (finite, not empty): log2 for k, log10 where they span more than a decade."""
    low, high = min(xs), max(xs)
    positive = low > 0
    if positive and axis == "k":
        return logarithmic(2, low, high)
    if positive and high > DECADE * low:
        return logarithmic(10, low, high)
    room = (high - low) * MARGIN or abs(high) / 2 or 0.5
    return Scale(None, low - room, high + room)


def logarithmic(base: int, low: float, high: float) -> Scale:
    """A logarithmic axis with the same margin at both ends; a single value gets half a step on either side."""
    factor = (high / low) ** MARGIN if high > low else base**0.5
    return Scale(base, low / factor, high * factor)


def ticks(scale: Scale, unit: float, axis_in: float) -> list[float]:
    """The labelled ticks of an axis `axis_in` inches long: the densest round numbers whose labels stay apart."""
    options = [places for places in tick_options(scale) if places]
    clear = (places for places in options if all_clear(scale, places, unit, axis_in))
    return next(clear, options[-1][:1] if options else [])


def tick_options(scale: Scale) -> Iterator[list[float]]:
    """Sets of ticks inside the axis, from dense to sparse."""
    if scale.base is None or scale.high < 4 * scale.low:
        for bins in range(8, 0, -1):
            places = MaxNLocator(nbins=bins, steps=[1, 2, 2.5, 5, 10]).tick_values(scale.low, scale.high)
            inside = [float(place) for place in places if scale.low <= place <= scale.high]
            yield [place for place in inside if scale.base is None or place.is_integer()]
        return
    if scale.base == 10:
        yield heads(scale, (1, 2, 5))
        yield heads(scale, (1, 3))
    first = math.ceil(math.log(scale.low, scale.base) - 1e-9)
    last = math.floor(math.log(scale.high, scale.base) + 1e-9)
    for step in range(1, last - first + 2):
        yield [float(scale.base) ** exponent for exponent in range(first, last + 1, step)]


def heads(scale: Scale, digits: Sequence[int]) -> list[float]:
    """These leading digits in every decade inside the axis."""
    decades = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    places = [digit * 10.0**decade for decade in decades for digit in digits]
    return [place for place in places if scale.low <= place <= scale.high]


def all_clear(scale: Scale, places: Sequence[float], unit: float, axis_in: float) -> bool:
    """Whether the labels of neighbouring ticks leave a gap between them."""
    return all(
        (scale.fraction(right) - scale.fraction(left)) * axis_in
        >= LABEL_GAP_IN + (width_in(number(left / unit)) + width_in(number(right / unit))) / 2
        for left, right in pairwise(places)
    )


def minor_ticks(scale: Scale) -> list[float]:
    """The unlabelled ticks of a log10 axis that is short enough to show them."""
    if scale.base != 10 or scale.high / scale.low > 1e6:
        return []
    return heads(scale, range(1, 10))


def number(value: float) -> str:
    """A tick's number: plain, or as a power of ten where plain digits would be many."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}".replace("-", "−")
    mantissa, exponent = f"{value:.3e}".split("e")
    head = f"{float(mantissa):g}".replace("-", "−")
    power = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
    return power if head == "1" else f"{head}×{power}"


def unit_of(axis: Axis, high: float) -> float:
    """What one unit of the axis's numbers stands for: 1, or a thousand, million, ... of FLOPs or tokens."""
    if axis in {"k", "seconds"} or high < 1e4:
        return 1.0
    return 10.0 ** min(3 * int(math.log10(high) // 3), max(PREFIXES if axis == "flops" else WORDS))


def axis_label(axis: Axis, protocol: str, unit: float) -> str:
    """What stands under the axis, with its unit and scope."""
    if axis == "k":
        return "samples k"
    scope = "problem" if protocol == "latency" else "run"
    power = round(math.log10(unit))
    name = {"seconds": "seconds", "flops": f"{PREFIXES[power]}FLOPs", "tokens": f"{WORDS.get(power)}tokens"}[axis]
    return f"{name} per {scope}"


def accuracy_limits(lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
    """A range of accuracies in tenths, at least three of them and inside 0..1, that holds every band."""
    low = math.floor(max(0.0, min(lows)) * 10 + 1e-9)
    high = math.ceil(min(1.0, max(highs)) * 10 - 1e-9)
    while high - low < 3:
        low, high = max(0, low - 1), min(10, high + 1)
    return low / 10, high / 10


def accuracy_ticks(low: float, high: float) -> list[float]:
    """Every tenth of a narrow range, every fifth of a wide one, ends included where they are even."""
    step = 1 if high - low <= 0.45 else 2
    first, last = round(low * 10), round(high * 10)
    return [tenth / 10 for tenth in range(first, last + 1) if tenth % step == 0]
