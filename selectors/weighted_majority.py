"""`weighted_majority`: every answer counts by the reward of those who gave it (weighted self-consistency)."""

import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.analysis.columns import Aggregation
from harness.nouns import Candidate, Choice, Graded, Prompt, Selector

from .ranking import scores_of
from .subsets import checked

if TYPE_CHECKING:
    import numpy as np

DRAWS = 200
"""Random orders behind an expected value; the first k of an order are a random k-subset, so one order serves all ks."""
TIE = 1e-9
"""Sums that differ by less than this share of the larger one tie: the order of adding is no reason to win."""
LEAST = 1e-12
"""What a weight of zero counts: nothing against any other, but more votes of zero beat fewer."""


def weighted_majority(aggregate: Aggregation = "last", draws: int = DRAWS) -> Selector:
    """The answer with the largest sum of rewards; unscored or unanswered candidates do not vote; ties share.

    Rewards that can be negative are mapped through a sigmoid first, probabilities and other positive scores count as
    they are. Over subsets of k it is the mean over `draws` seeded random ones.
    """

    def select(prompt: Prompt, candidates: Sequence[Candidate]) -> Choice | None:
        return heaviest(candidates, scores_of(candidates).weights(aggregate))

    def expected(graded: Graded, ks: Sequence[int]) -> "np.ndarray":
        return expected_weighted(graded, aggregate, ks, draws)

    return Selector("weighted_majority", select, expected, reads_scores=True, draws=draws)


def heaviest(candidates: Sequence[Candidate], weights: "np.ndarray") -> Choice | None:
    """Everyone who gave the answer of the largest weight; of answers that tie, one who gave it each."""
    sums: dict[int, float] = defaultdict(float)
    voters: dict[int, list[Candidate]] = defaultdict(list)
    for one, weight in zip(candidates, weights.tolist(), strict=True):
        if one.scores and one.answer_class is not None:
            sums[one.answer_class] += max(weight, LEAST)
            voters[one.answer_class].append(one)
    if not sums:
        return None
    tied = [voters[key] for key, total in sums.items() if total >= max(sums.values()) * (1 - TIE)]
    return Choice(tuple(tied[0] if len(tied) == 1 else (some[0] for some in tied)))


def expected_weighted(graded: Graded, aggregate: Aggregation, ks: Sequence[int], draws: int) -> "np.ndarray":
    """The mean over the first k of each random order, for each k; exact at k = 1 and when k is all of them.

    A class is worth the share of its voters that are correct. Raises ValueError when a k is not between 1 and n.
    """
    import numpy as np

    n, sizes = len(graded), checked(len(graded), ks)
    if graded.scores is None:
        return np.zeros(len(sizes))
    weights = graded.scores.weights(aggregate)
    voted = (graded.classes >= 0) & ~np.isnan(weights)
    if not voted.any():
        return np.zeros(len(sizes))
    weights = np.where(voted, np.maximum(weights, LEAST), 0.0)
    names, place = np.unique(graded.classes[voted], return_inverse=True)
    classes = np.zeros(n, int)
    classes[voted] = place
    quality = np.bincount(place, weights=graded.correct[voted]) / np.bincount(place)
    orders = random_orders(n, draws if (sizes < n).any() else 1, zlib.crc32(classes.tobytes() + weights.tobytes()))
    sums = prefix_sums(orders, weights, classes, len(names), np.unique(sizes))
    values: np.ndarray = worth_of_heaviest(sums, quality).mean(axis=1)[np.searchsorted(np.unique(sizes), sizes)]
    return np.where(sizes == 1, graded.correct[voted].sum() / n, values)


def random_orders(n: int, draws: int, seed: int) -> "np.ndarray":
    """(draws, n) random orders of 0 .. n - 1."""
    import numpy as np

    orders = np.broadcast_to(np.arange(n, dtype=np.int32), (draws, n)).copy()
    return np.random.default_rng(seed).permuted(orders, axis=1, out=orders)


def prefix_sums(
    orders: "np.ndarray", weights: "np.ndarray", classes: "np.ndarray", count: int, sizes: "np.ndarray"
) -> "np.ndarray":
    """(sizes, draws, classes) the weight of each class among the first k of each order; `sizes` rise."""
    import numpy as np

    draws = len(orders)
    drawn = orders[:, : sizes[-1]]
    part = np.searchsorted(sizes, np.arange(sizes[-1]), side="right")
    cell = (part * draws + np.arange(draws)[:, None]) * count + classes[drawn]
    parts = np.bincount(cell.ravel(), weights=weights[drawn].ravel(), minlength=len(sizes) * draws * count)
    return np.cumsum(parts.reshape(len(sizes), draws, count), axis=0)


def worth_of_heaviest(sums: "np.ndarray", quality: "np.ndarray") -> "np.ndarray":
    """(...,) the mean quality of the classes that weigh most, 0 where nothing weighs; `sums` is (..., classes)."""
    import numpy as np

    top = sums.max(axis=-1, keepdims=True)
    tied = (sums >= top * (1 - TIE)) & (top > 0)
    shares = tied @ quality / np.maximum(tied.sum(axis=-1), 1)
    worth: np.ndarray = shares
    return worth
