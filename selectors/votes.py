"""The exact expectation of a vote over all subsets of size k, by the counts of the answer classes.

A class c with s of the n samples wins with m votes when every other class has fewer, or shares the win with t others
that have m too. The counts of a random k-subset are hypergeometric: independent binomials with p = k / n, given that
they add up to k. With A_j(z) the generating function of class j's counts below m and B_j(z) its term at m,

    P(c wins) = sum over m of  [z^k] B_c(z) * integral over y in 0..1 of prod over j != c of (A_j(z) + y B_j(z))

up to the factor 1 / P(the binomials add up to k): the integral of y^t is the share 1 / (t + 1), taken exactly by
Gauss-Legendre, and the coefficient of z^k comes from values on the unit circle. All terms are products of
probabilities, so nothing overflows and nothing cancels. Counts too improbable to matter are left out: at most `DROPPED`
of the whole probability for the upper and for the lower tails, and classes that cannot reach the winning counts are
merged with the samples that do not vote.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .subsets import checked, hypergeometric, log_factorials, none_drawn

if TYPE_CHECKING:
    import numpy as np

DROPPED = 1e-13
"""The probability that may be left out on either side."""
TABLED_SAMPLES, TABLED_K = 1024, 64
"""Up to so many samples, or so small a k, a class's terms are kept for the next problem with its like."""


class Circle(NamedTuple):
    """What taking the coefficient of z^k needs, for one n and k: points on the upper unit circle and their weights."""

    n: int
    k: int
    log_odds: "tuple[np.longdouble, np.longdouble]"
    roots: "np.ndarray"
    points: "np.ndarray"
    weights: "np.ndarray"


def expected_vote(counts: "np.ndarray", quality: "np.ndarray", n: int, ks: Sequence[int]) -> "np.ndarray":
    """The expected value of a vote over all k-subsets of n samples, for each k.

    `counts` (classes,) says how many samples gave each answer, `quality` (classes,) what its win is worth; samples
    beyond the sum of `counts` do not vote. Classes that tie share; a subset without a vote is worth nothing. The error
    is below 1e-12. Raises ValueError when a k is not between 1 and n.
    """
    import numpy as np

    sizes = checked(n, ks)
    if not quality.any():
        return np.zeros(len(sizes))
    if (quality == quality[0]).all():
        voted: np.ndarray = 1.0 - none_drawn(n, ks, int(counts.sum()))[:, -1]
        return voted * float(quality[0])
    distinct, place, repeats = np.unique(counts, return_inverse=True, return_counts=True)
    worth = np.bincount(place, weights=quality)
    return np.array([vote_at(distinct, repeats, worth, n, int(k)) for k in sizes])


def vote_at(sizes: "np.ndarray", repeats: "np.ndarray", worth: "np.ndarray", n: int, k: int) -> float:
    """The value at one k. `sizes` are distinct and rise; `repeats` classes have each, worth `worth` in sum."""
    import numpy as np

    if k == n:
        return float(worth[-1] / repeats[-1])
    if k == 1:
        return float(sizes @ worth / n)
    allowed = DROPPED / repeats.sum()
    low, _ = count_range(n, int(sizes[-1]), k, allowed)
    tops = np.array([count_range(n, int(size), k, allowed)[1] for size in sizes])
    reach = tops >= low
    if repeats[reach].sum() == 1:
        return float(worth[-1])
    circle = circle_of(n, k)
    silent = n - int(sizes[reach] @ repeats[reach])
    rivals = list(zip(sizes[reach].tolist(), repeats[reach].tolist(), strict=True))
    total = 0.0
    for i in np.flatnonzero(reach & (worth > 0)):
        for lows, highs, ties in blocks(low, int(tops[i]), rivals, k):
            total += worth[i] * win(int(sizes[i]), (lows, highs), ties, rivals, silent, circle)
    return total


def blocks(low: int, high: int, rivals: Sequence[tuple[int, int]], k: int) -> Iterator[tuple[int, int, int]]:
    """Ranges of winning counts with about equally many possible ties: (first, last, most other classes that tie)."""
    first = max(low, 1)
    while first <= high:
        most = ties_at(first, rivals, k)
        last = first if most else high
        while last < high and ties_at(last + 1, rivals, k) > most // 2:
            last += 1
        yield first, last, most
        first = last + 1


def ties_at(m: int, rivals: Sequence[tuple[int, int]], k: int) -> int:
    """How many other classes can have `m` votes of `k` beside the winner."""
    return min(sum(repeats for size, repeats in rivals if size >= m), k // m) - 1


def win(
    size: int, counts: tuple[int, int], ties: int, rivals: Sequence[tuple[int, int]], silent: int, circle: Circle
) -> float:
    """The probability that one class of `size` wins with a count in the closed range `counts`, its ties shared."""
    import numpy as np

    nodes, node_weights = legendre(ties // 2 + 1)
    product: np.ndarray = np.ones((1, 1, 1), complex)
    for other, repeats in rivals:
        below, at = class_terms(other, counts, circle)
        if other == size:
            product = product * at
        among = repeats - (other == size)
        if among:
            factor = below + nodes[:, None, None] * at if ties else (below + 0.5 * at)[None]
            product = product * (factor if among == 1 else factor**among)
    log_p, log_q = circle.log_odds
    rest = np.exp(silent * np.log(float(np.exp(log_q)) + float(np.exp(log_p)) * circle.points))
    summed = product.sum(axis=1).T @ (node_weights if ties else np.ones(1))
    return float((summed * rest * circle.weights).real.sum())


def class_terms(size: int, counts: tuple[int, int], circle: Circle) -> "tuple[np.ndarray, np.ndarray]":
    """Of a class's binomial count at each point z: its generating function below m, and its term at m.

    Both are (m, points), for m in the closed range `counts`.
    """
    if circle.n > TABLED_SAMPLES and circle.k > TABLED_K:
        return terms_between(size, counts, circle)
    below, at = tabled_terms(size, circle.n, circle.k)
    return below[counts[0] : counts[1] + 1], at[counts[0] : counts[1] + 1]


@functools.lru_cache(maxsize=2048)
def tabled_terms(size: int, n: int, k: int) -> "tuple[np.ndarray, np.ndarray]":
    """The terms for every m: the problems of a run share n and the ks, and many a class has the same size."""
    return terms_between(size, (0, k), circle_of(n, k))


def terms_between(size: int, counts: tuple[int, int], circle: Circle) -> "tuple[np.ndarray, np.ndarray]":
    """The terms of `class_terms`, computed."""
    import numpy as np

    first, last = counts
    top = min(last, size)
    i = np.arange(top + 1)
    chances = binomial(size, i, circle.log_odds)
    start = min(int(np.searchsorted(np.cumsum(chances), 1e-19)), first)
    steps = np.arange(len(circle.points))
    terms = chances[start:, None] * circle.roots[(i[start:, None] * steps) % len(circle.roots)]
    sums = np.concatenate((np.zeros((1, terms.shape[1])), np.cumsum(terms, axis=0)))
    m = np.arange(first, last + 1)
    below = sums[np.minimum(m, top + 1) - start]
    at = np.where((m <= top)[:, None], terms[np.minimum(m, top) - start], 0.0)
    return below, at


@functools.lru_cache(maxsize=64)
def circle_of(n: int, k: int) -> Circle:
    """The points and weights for n samples and subsets of k.

    The binomial total has mean k and is all but certain to lie within `span` of it, so an odd number of points above
    `span` keeps other totals from being counted as k.
    """
    import numpy as np

    log_p, log_q = np.log(np.longdouble(k) / n), np.log(np.longdouble(n - k) / n)
    chances = binomial(n, np.arange(n + 1), (log_p, log_q))
    probable = np.flatnonzero(chances > 1e-19)
    span = max(k - int(probable[0]), int(probable[-1]) - k) + 1
    count = min(span, n + 1) | 1
    half = np.arange(count // 2 + 1)
    roots = np.exp(2j * np.pi * np.arange(count) / count)
    weights = np.where(half == 0, 1.0, 2.0) * roots[(-half * k) % count] / (count * chances[k])
    return Circle(n, k, (log_p, log_q), roots, roots[half], weights)


def binomial(n: int, i: "np.ndarray", log_odds: "tuple[np.longdouble, np.longdouble]") -> "np.ndarray":
    """P(Binomial(n, p) = i) for log p and log (1 - p), by logarithms of factorials in extended precision."""
    import numpy as np

    logs = log_factorials(n)
    logs_of_chances = logs[n] - logs[i] - logs[n - i] + i * log_odds[0] + (n - i) * log_odds[1]
    return np.asarray(np.exp(logs_of_chances), float)


@functools.lru_cache(maxsize=65536)
def count_range(n: int, size: int, k: int, dropped: float) -> tuple[int, int]:
    """The least and the greatest count of a class in a k-subset that are not improbable."""
    import numpy as np

    chances = hypergeometric(n, size, k)
    low = int(np.searchsorted(np.cumsum(chances), dropped))
    high = int(np.searchsorted(np.cumsum(chances[::-1]), dropped))
    return low, len(chances) - 1 - high


@functools.lru_cache(maxsize=256)
def legendre(count: int) -> "tuple[np.ndarray, np.ndarray]":
    """Gauss-Legendre nodes and weights on 0..1: exact for polynomials of degree below twice the count."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2
