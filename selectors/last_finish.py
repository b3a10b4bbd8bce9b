"""`last_finish`: last-finish search, the vote of those that finish last (LFS-k@N, arXiv 2512.02008)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.nouns import Candidate, Choice, Graded, Prompt, Selector

from .finishing import finish_ranks
from .majority import commonest
from .ranking import best_of, expected_best

if TYPE_CHECKING:
    import numpy as np


def last_finish(voters: int = 1) -> Selector:
    """The vote of the `voters` candidates that finish last; of a single voter's moment all share."""

    def select(prompt: Prompt, candidates: Sequence[Candidate]) -> Choice | None:
        done = [one for one in candidates if one.finished_s != math.inf]
        if voters == 1:
            return best_of(done, finish_of)
        return commonest(prompt, sorted(done, key=lambda one: (finish_of(one), one.sample_index))[-voters:])

    return Selector("last_finish", select, latest if voters == 1 else None)


def finish_of(one: Candidate) -> float:
    """When it finished; a time that was not recorded is nobody's advantage."""
    return 0.0 if math.isnan(one.finished_s) else one.finished_s


def latest(graded: Graded, ks: Sequence[int]) -> "np.ndarray":
    """The expected correctness of the candidate of a random k-subset that finishes last."""
    return expected_best(finish_ranks(graded, latest=True), graded.correct, ks)
