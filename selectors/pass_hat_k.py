"""`pass_hat_k`: are all samples correct? A lower bound for every selector that always chooses (pass^k)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.nouns import Graded, Selector

from .subsets import none_drawn

if TYPE_CHECKING:
    import numpy as np


def pass_hat_k() -> Selector:
    """pass^k: the share of k-subsets in which every candidate is correct."""
    return Selector("pass_hat_k", expected=all_correct)


def all_correct(graded: Graded, ks: Sequence[int]) -> "np.ndarray":
    """C(c, k) / C(n, k) for c correct of n. Raises ValueError when a k is not between 1 and n."""
    wrong = int((~graded.correct).sum())
    missed: np.ndarray = none_drawn(len(graded), ks, wrong)[:, -1]
    return missed
