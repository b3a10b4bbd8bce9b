"""Accuracy along an axis: against k as an expectation over subsets, against seconds, FLOPs and tokens as it happened.

At a point t of a spent axis a problem's candidates are those that had finished by t; the selector chooses among them
and the value is the mean over problems. At k it is the expected value over all subsets of k of the N samples: exact
where the selector knows it in closed form, the mean over `SUBSETS` seeded random subsets elsewhere.
"""

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.analysis.bank import Item
from harness.analysis.intervals import mean_with_interval
from harness.analysis.stopping import budgets_at, stops_of, waited_for
from harness.analysis.summary import Axis, Curve, Point
from harness.faults import Fault, boundary
from harness.nouns import Candidate, Choice, Graded, Selector

if TYPE_CHECKING:
    import numpy as np

SUBSETS = 100
"""Subsets behind a value at k without a closed form: all when there are no more, else so many random ones (as M1)."""
GRID = 25
"""Points of a curve along a spent axis."""


@dataclass(frozen=True, slots=True)
class View:
    """A selector with what it sees of a run: one per selector, or one per reward model for those that read scores.

    Along seconds and FLOPs a score-reading selector has two: `charged` with the reward model's cost in the positions
    of `items`, and free of it. `charged` is None where the reward model makes no difference or there is none.
    """

    selector: Selector
    items: Sequence[Item]
    reward_model: str | None = None
    charged: bool | None = None


def views_of(items: Sequence[Item], selectors: Iterable[Selector], axis: Axis) -> list[View]:
    """What is drawn along an axis: each selector, and each score-reading one per reward model that scored the items.

    A score-reading selector is named `best_of_n by R`.
    """
    views = []
    for selector in selectors:
        if not selector.reads_scores:
            views.append(View(selector, items))
            continue
        for reward_model in items[0].scores:
            named = replace(selector, name=f"{selector.name} by {reward_model}")
            for charged in (False, True) if axis in ("seconds", "flops") else (None,):
                seen = [item.seen_by(reward_model, charged is not False) for item in items]
                views.append(View(named, seen, reward_model, charged))
    return views


def value_of(selector: Selector, prompt: str, graded: Graded) -> float:
    """The selector's accuracy on all of these candidates: 1 correct, 0 wrong or no choice, the mean over a tie.

    Raises Fault when the selector raises or returns a candidate it was not given.
    """
    if not len(graded):
        return 0.0
    if selector.value is not None:
        with boundary(name_of(selector)):
            return float(selector.value(graded))
    if selector.expected is not None:
        with boundary(name_of(selector)):
            return float(selector.expected(graded, [len(graded)])[0])
    return value_of_choice(selector, prompt, graded)


def name_of(selector: Selector) -> str:
    """How a sentence names a selector."""
    return f"selector {selector.name}"


def value_of_choice(selector: Selector, prompt: str, graded: Graded) -> float:
    """The same by way of `select`, which the selector must have; a rule that stops early sees what it waits for."""
    assert selector.select is not None
    if selector.stop is not None:
        with boundary(name_of(selector)):
            waited = waited_for(selector.stop, graded)
        graded = graded.take(waited)
    candidates = tuple(graded.candidates)
    with boundary(name_of(selector)):
        chosen = selector.select(prompt, candidates)
        if chosen is None:
            return 0.0
        tied = tuple(chosen.candidates) if isinstance(chosen, Choice) else (chosen,)
        return sum(correct_of(selector, one, candidates, graded) for one in tied) / len(tied) if tied else 0.0


def correct_of(selector: Selector, chosen: Candidate, candidates: Sequence[Candidate], graded: Graded) -> bool:
    """Whether the chosen candidate is correct; a text without an answer never is."""
    for candidate, correct in zip(candidates, graded.correct, strict=True):
        if candidate is chosen or candidate == chosen:
            return bool(correct)
    raise Fault(f"the selector {selector.name} returned something it was not given: {chosen!r:.80}")


def values_at_k(selector: Selector, items: Sequence[Item], ks: Sequence[int]) -> "np.ndarray":
    """(problems, len(ks)): each problem's expected accuracy over all subsets of `k` of its candidates.

    Each k lies between 1 and the number of candidates. A selector with `draws`, or without `expected`, is averaged over
    seeded random subsets; `monte_carlo_se` says what that leaves open.
    """
    import numpy as np

    if selector.expected is None:
        return np.array([[mean_over_subsets(selector, item, k) for k in ks] for item in items], float)
    with boundary(name_of(selector)):
        rows = [selector.expected(item.graded, ks) for item in items]
        return np.array(rows, float).reshape(len(items), len(ks))


def mean_over_subsets(selector: Selector, item: Item, k: int) -> float:
    """The mean over all subsets of `k` when they are few, else over `SUBSETS` seeded random ones."""
    import numpy as np

    n = len(item.graded)
    drawn: Iterable[tuple[int, ...]]
    if math.comb(n, k) <= SUBSETS:
        drawn = itertools.combinations(range(n), k)
    else:
        rng = random.Random(f"{item.problem_id}/{k}")
        drawn = (tuple(sorted(rng.sample(range(n), k))) for _ in range(SUBSETS))
    values = [value_of_choice(selector, item.prompt, item.graded.take(np.array(places))) for places in drawn]
    return sum(values) / len(values)


def monte_carlo_se(selector: Selector, values: "np.ndarray") -> float | None:
    """The largest standard error that random subsets leave in the column means of `values` (problems, ks).

    One random subset's value lies in 0..1, so its variance is at most v (1 - v). None where `expected` is exact.
    """
    draws = selector.draws if selector.expected is not None else SUBSETS
    if draws is None:
        return None
    return float(max(((values * (1 - values)).sum(axis=0) / draws) ** 0.5) / len(values))


def values_along(selector: Selector, items: Sequence[Item], axis: Axis, grid: Sequence[float]) -> "np.ndarray":
    """(problems, len(grid)): each problem's accuracy on what had finished by each x of `grid`.

    For a rule that stops early (`Selector.stop`) x is what was spent in the mean over these problems, so each x is
    turned into the budget per problem that comes to it.
    """
    import numpy as np

    xs = np.asarray(grid, float)
    limits = np.broadcast_to(xs, (len(items), len(xs)))
    if selector.stop is not None:
        with boundary(name_of(selector)):
            stops = stops_of(selector.stop, items, axis)
        limits = np.minimum(budgets_at(stops, xs, items[0].shared_clock), stops[:, None])
    return np.array([values_by(selector, item, axis, own) for item, own in zip(items, limits, strict=True)])


def values_by(selector: Selector, item: Item, axis: Axis, limits: "np.ndarray") -> list[float]:
    """One problem's value at each limit, each distinct set of finished candidates evaluated once."""
    import numpy as np

    places = np.asarray(item.positions[axis], float)
    order = np.argsort(places, kind="stable")
    finished = np.searchsorted(places[order], limits, side="right")
    finished = np.minimum(finished, np.isfinite(places).sum())
    known = {
        int(count): value_of(selector, item.prompt, item.graded.take(np.sort(order[:count])))
        for count in np.unique(finished)
    }
    return [known[int(count)] for count in finished]


def k_grid(n: int) -> list[int]:
    """1, 2, 4, ... and n."""
    powers = [2**i for i in range(n.bit_length())]
    return sorted({*(k for k in powers if k <= n), n})


def spent_grid(items: Sequence[Item], axis: Axis, budgets: Sequence[float] = ()) -> list[float]:
    """Places from the first finish to the largest of `budgets`, evenly spaced on a log scale, and each budget itself.

    Without budgets the grid ends at the last finish. It is empty when the axis was not recorded or nothing had been
    spent on it.
    """
    import numpy as np

    places = np.concatenate([np.asarray(item.positions[axis], float) for item in items])
    spent = places[np.isfinite(places)]
    last = max(budgets, default=float(spent.max(initial=0.0)))
    if not len(spent) or last <= 0 or np.isnan(places).any():
        return []
    first = float(spent[spent > 0].min(initial=last))
    spread = [float(x) for x in np.geomspace(first, last, GRID)[:-1]] if first < last else []
    return sorted({*spread, last, *budgets})


def curve_of(view: View, axis: Axis, grid: Sequence[float], values: "np.ndarray") -> Curve:
    """Means over problems with their 95 % intervals; `values` is (problems, len(grid))."""
    means, lows, highs = mean_with_interval(values)
    points = tuple(
        Point(float(x), float(value), float(low), float(high), len(values))
        for x, value, low, high in zip(grid, means, lows, highs, strict=True)
    )
    se = monte_carlo_se(view.selector, values) if axis == "k" else None
    return Curve(
        view.selector.name, axis, points, reward_model=view.reward_model, charged=view.charged, monte_carlo_se=se
    )


def curves_of(
    items: Sequence[Item],
    selectors: Sequence[Selector],
    budgets: Mapping[Axis, Sequence[float]],
    faults: dict[str, str] | None = None,
) -> tuple[Curve, ...]:
    """Every selector along k and along each spent axis of `budgets` (see `spent_grid`).

    A selector that raises has no curve: `faults` takes the sentence under its name. Raises Fault where there is none.
    """
    fewest = min(len(item.graded) for item in items)
    grids: dict[Axis, Sequence[float]] = {"k": k_grid(fewest)} if fewest else {}
    grids |= {axis: grid for axis, amounts in budgets.items() if (grid := spent_grid(items, axis, amounts))}
    broken: dict[str, str] = {} if faults is None else faults
    curves = []
    for axis, places in grids.items():
        for view in views_of(items, selectors, axis):
            if view.selector.name not in broken:
                try:
                    values = values_of(view, axis, places)
                except Fault as fault:
                    if faults is None:
                        raise
                    broken[view.selector.name] = str(fault)
                else:
                    curves.append(curve_of(view, axis, places, values))
    return tuple(curve for curve in curves if curve.selector not in broken)


def values_of(view: View, axis: Axis, grid: Sequence[float]) -> "np.ndarray":
    """(problems, len(grid)) of what a view shows along an axis."""
    if axis == "k":
        return values_at_k(view.selector, view.items, [int(k) for k in grid])
    return values_along(view.selector, view.items, axis, grid)
