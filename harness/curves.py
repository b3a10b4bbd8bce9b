"""Accuracy along an axis: against k as an expectation over subsets, against seconds, FLOPs and tokens as it happened.

At a point t of a spent axis a problem's candidates are those that had finished by t; the selector chooses among them
and the value is the mean over problems. At k it is the expected value over all subsets of k of the N samples: exact
where the selector knows it in closed form, the mean over `SUBSETS` seeded random subsets elsewhere.
"""

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.bank import Item
from harness.intervals import mean_with_interval
from harness.nouns import Candidate, Choice, Graded, Selector
from harness.summary import Axis, Curve, Point

if TYPE_CHECKING:
    import numpy as np

SUBSETS = 100
"""Subsets behind a value at k without a closed form: all when there are no more, else so many random ones (as M1)."""
GRID = 25
"""Points of a curve along a spent axis."""


def value_of(selector: Selector, prompt: str, graded: Graded) -> float:
    """The selector's accuracy on all of these candidates: 1 correct, 0 wrong or no choice, the mean over a tie.

    Raises ValueError when a selector returns a candidate it was not given.
    """
    if not graded.candidates:
        return 0.0
    if selector.select is None:
        assert selector.expected is not None
        return selector.expected(graded, len(graded.candidates))
    chosen = selector.select(prompt, graded.candidates)
    if chosen is None:
        return 0.0
    tied = chosen.candidates if isinstance(chosen, Choice) else (chosen,)
    return sum(correct_of(selector, one, graded) for one in tied) / len(tied) if tied else 0.0


def correct_of(selector: Selector, chosen: Candidate, graded: Graded) -> bool:
    """Whether the chosen candidate is correct; a text without an answer never is."""
    for candidate, correct in zip(graded.candidates, graded.correct, strict=True):
        if candidate is chosen or candidate == chosen:
            return correct
    raise ValueError(f"the selector {selector.name} returned something it was not given: {chosen!r:.80}")


def subset(graded: Graded, indices: Sequence[int]) -> Graded:
    """The candidates at these places."""
    return Graded(tuple(graded.candidates[i] for i in indices), tuple(graded.correct[i] for i in indices))


def expected_value(selector: Selector, item: Item, k: int) -> float:
    """The expected accuracy over all subsets of `k` of the item's candidates, or its Monte-Carlo estimate."""
    n = len(item.graded.candidates)
    if selector.expected is not None:
        return selector.expected(item.graded, k)
    drawn: Iterable[tuple[int, ...]]
    if math.comb(n, k) <= SUBSETS:
        drawn = itertools.combinations(range(n), k)
    else:
        rng = random.Random(f"{item.problem_id}/{k}")
        drawn = (tuple(sorted(rng.sample(range(n), k))) for _ in range(SUBSETS))
    values = [value_of(selector, item.prompt, subset(item.graded, indices)) for indices in drawn]
    return sum(values) / len(values)


def k_grid(n: int) -> list[int]:
    """1, 2, 4, ... and n."""
    powers = [2**i for i in range(n.bit_length())]
    return sorted({*(k for k in powers if k <= n), n})


def k_curve(selector: Selector, items: Sequence[Item]) -> Curve:
    """Accuracy against the number of samples."""
    import numpy as np

    grid = k_grid(min(len(item.graded.candidates) for item in items))
    values = np.array([[expected_value(selector, item, k) for k in grid] for item in items])
    return Curve(selector.name, "k", points_of(grid, values))


def value_at(selector: Selector, item: Item, axis: Axis, x: float) -> float:
    """The selector's accuracy on what had finished by `x`."""
    places = item.positions[axis]
    return value_of(selector, item.prompt, subset(item.graded, [i for i, place in enumerate(places) if place <= x]))


def spent_curve(selector: Selector, items: Sequence[Item], axis: Axis, grid: Sequence[float]) -> Curve:
    """Accuracy against what was spent, each distinct set of finished candidates evaluated once."""
    import numpy as np

    values = np.zeros((len(items), len(grid)))
    for row, item in enumerate(items):
        known: dict[int, float] = {}
        for column, x in enumerate(grid):
            finished = sum(place <= x for place in item.positions[axis])
            if finished not in known:
                known[finished] = value_at(selector, item, axis, x)
            values[row, column] = known[finished]
    return Curve(selector.name, axis, points_of(grid, values))


def spent_grid(items: Sequence[Item], axis: Axis, budgets: Sequence[float] = ()) -> list[float]:
    """Places from the first finish to the largest of `budgets`, evenly spaced on a log scale, and each budget itself.

    Without budgets the grid ends at the last finish. It is empty when the axis was not recorded or nothing had been
    spent on it.
    """
    import numpy as np

    places = [place for item in items for place in item.positions[axis] if math.isfinite(place)]
    last = max(budgets, default=max(places, default=0.0))
    if not places or last <= 0 or any(math.isnan(place) for item in items for place in item.positions[axis]):
        return []
    first = min((place for place in places if place > 0), default=last)
    spread = [float(x) for x in np.geomspace(first, last, GRID)[:-1]] if first < last else []
    return sorted({*spread, last, *budgets})


def points_of(grid: Sequence[float], values: "np.ndarray") -> tuple[Point, ...]:
    """Means over problems with their 95 % intervals; `values` is (problems, len(grid))."""
    means, lows, highs = mean_with_interval(values)
    n = values.shape[0]
    return tuple(
        Point(float(x), float(value), float(low), float(high), n)
        for x, value, low, high in zip(grid, means, lows, highs, strict=True)
    )


def curves_of(
    items: Sequence[Item], selectors: Sequence[Selector], budgets: Mapping[Axis, Sequence[float]]
) -> tuple[Curve, ...]:
    """Every selector along k and along each spent axis of `budgets` (see `spent_grid`)."""
    curves = [k_curve(selector, items) for selector in selectors]
    for axis, amounts in budgets.items():
        grid = spent_grid(items, axis, amounts)
        if grid:
            curves += [spent_curve(selector, items, axis, grid) for selector in selectors]
    return tuple(curves)
