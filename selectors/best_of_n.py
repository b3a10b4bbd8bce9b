"""`best_of_n`: the candidate that the reward model likes best."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.analysis.columns import Aggregation
from harness.nouns import Candidate, Choice, Graded, Prompt, Selector

from .ranking import best_of, expected_best, rank_by_score

if TYPE_CHECKING:
    import numpy as np


def best_of_n(aggregate: Aggregation = "last") -> Selector:
    """The highest reward; the steps' scores count by the last, the least, their product or their mean; ties share."""

    def select(prompt: Prompt, candidates: Sequence[Candidate]) -> Choice | None:
        return best_of(candidates, lambda one: rank_by_score(one, aggregate))

    def expected(graded: Graded, ks: Sequence[int]) -> "np.ndarray":
        return expected_best(ranks_of(graded, aggregate), graded.correct, ks)

    return Selector("best_of_n", select, expected, reads_scores=True)


def ranks_of(graded: Graded, aggregate: Aggregation) -> "np.ndarray":
    """One number per candidate, NaN without a score."""
    import numpy as np

    return np.full(len(graded), np.nan) if graded.scores is None else graded.scores.ranks(aggregate)
