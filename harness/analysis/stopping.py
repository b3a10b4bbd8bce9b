"""What a rule that stops early spends: it waits for some of the candidates, and what comes after costs nothing."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.analysis.bank import Item
from harness.analysis.summary import Axis
from harness.nouns import Graded

if TYPE_CHECKING:
    import numpy as np


def stops_of(stop: "Callable[[np.ndarray, int], int]", items: Sequence[Item], axis: Axis) -> "np.ndarray":
    """(problems,) what had been spent on each problem when the rule stopped, infinite where it never did."""
    import numpy as np

    spent = np.full(len(items), np.inf)
    for row, item in enumerate(items):
        places = np.asarray(item.positions[axis], float)
        order = np.argsort(places, kind="stable")[: np.isfinite(places).sum()]
        count = stop(item.graded.classes[order], len(places))
        if 1 <= count <= len(order):
            spent[row] = places[order[count - 1]]
    return spent


def budgets_at(stops: "np.ndarray", xs: "np.ndarray", shared_clock: bool) -> "np.ndarray":
    """The budget per problem at which the mean over problems of what is spent comes to each of `xs`.

    Under a budget t a problem spends t or what it had spent when the rule stopped, whichever is less. Problems that
    share one clock go on together until the last of them stops. An x that is never reached means no limit.
    """
    import numpy as np

    if shared_clock:
        return np.where(xs >= stops.max(), np.inf, xs)
    ends = np.sort(stops[np.isfinite(stops)])
    running = len(stops) - np.arange(len(ends) + 1)
    lengths = np.diff(ends, prepend=0.0)
    knots = np.concatenate(([0.0], ends))
    means = np.concatenate(([0.0], np.cumsum(lengths * running[:-1]) / len(stops)))
    endless = running[-1] / len(stops)
    beyond = knots[-1] + (xs - means[-1]) / endless if endless else np.full(len(xs), np.inf)
    # Nothing is left to spend once the mean has come to its end, so there the limit falls away.
    return np.where(xs >= means[-1], beyond, np.interp(xs, means, knots))


def waited_for(stop: "Callable[[np.ndarray, int], int]", graded: Graded) -> "np.ndarray":
    """The places of the candidates that the rule waits for, and of what finished with the last of them.

    Without recorded times the candidates are taken to finish in the order in which they were asked for.
    """
    import numpy as np

    times = graded.finished_s
    order = np.lexsort((graded.sample_index, times))
    order = order[: len(times) - np.isposinf(times).sum()] if not np.isnan(times).any() else order
    count = max(1, min(stop(graded.classes[order], len(times)), len(order)))
    together = times[order] == times[order[count - 1]] if len(order) else np.zeros(0, bool)
    places: np.ndarray = np.sort(order[(np.arange(len(order)) < count) | together])
    return places
