"""`first_finish`: first-finish search, the vote of those that finish first (FFS-k@N, arXiv 2512.02008)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.nouns import Graded, Selector

from .finishing import everyone, finish_ranks
from .majority import commonest
from .ranking import expected_best

if TYPE_CHECKING:
    import numpy as np


def first_finish(voters: int = 1) -> Selector:
    """Stop when `voters` candidates have finished and let them vote; what the others would have cost is saved.

    Candidates that finish at the same moment as the last voter vote too; of a single voter's moment all share.
    """

    def stop(classes: "np.ndarray", asked: int) -> int:
        return min(voters, asked)

    if voters == 1:
        return Selector("first_finish", everyone, earliest, stop=stop)
    return Selector("first_finish", commonest, stop=stop)


def earliest(graded: Graded, ks: Sequence[int]) -> "np.ndarray":
    """The expected correctness of the candidate of a random k-subset that finishes first."""
    return expected_best(finish_ranks(graded, latest=False), graded.correct, ks)
