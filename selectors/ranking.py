"""The best candidate by a number each has: order statistics of a random subset, ties shared."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.analysis.columns import Aggregation, StepScores, columns_of
from harness.nouns import Candidate, Choice

from .subsets import none_drawn

if TYPE_CHECKING:
    import numpy as np


def expected_best(ranks: "np.ndarray", correct: "np.ndarray", ks: Sequence[int]) -> "np.ndarray":
    """The expected correctness of the highest-ranked member of a random k-subset, for each k.

    Members that tie share; those with rank NaN are never chosen. The best of the subset is of a given rank when none
    better was drawn and not all of that rank were missed; by symmetry it is then worth what that rank is worth.
    Raises ValueError when a k is not between 1 and n.
    """
    import numpy as np

    ranked = np.flatnonzero(~np.isnan(ranks))
    missed = none_drawn(len(ranks), ks, len(ranked))
    if not len(ranked):
        return np.zeros(len(missed))
    order = ranked[np.argsort(-ranks[ranked], kind="stable")]
    begins = np.flatnonzero(np.concatenate(([True], np.diff(ranks[order]) != 0)))
    ends = np.append(begins[1:], len(order))
    worth = np.add.reduceat(correct[order].astype(float), begins) / (ends - begins)
    best: np.ndarray = (missed[:, begins] - missed[:, ends]) @ worth
    return best


def best_of(candidates: Sequence[Candidate], rank: Callable[[Candidate], float | None]) -> Choice | None:
    """The candidates of the highest rank; those without a rank are never chosen."""
    ranked = [(number, one) for one in candidates if (number := rank(one)) is not None]
    if not ranked:
        return None
    top = max(number for number, _ in ranked)
    return Choice(tuple(one for number, one in ranked if number == top))


def scores_of(candidates: Sequence[Candidate]) -> StepScores:
    """The step scores of candidates, empty for those without."""
    return columns_of(candidates).scores or StepScores.of([()] * len(candidates))


def rank_by_score(one: Candidate, aggregate: Aggregation) -> float | None:
    """The number to compare a candidate by, None without a score."""
    return float(scores_of([one]).ranks(aggregate)[0]) if one.scores else None
