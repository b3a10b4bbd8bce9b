"""`coverage`: is there a correct answer among the candidates? An upper bound for every selector (pass@k)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.nouns import Graded, Selector

from .subsets import none_drawn

if TYPE_CHECKING:
    import numpy as np


def coverage() -> Selector:
    """The unbiased pass@k: the share of k-subsets that hold at least one correct candidate."""
    return Selector("coverage", expected=pass_at_k)


def pass_at_k(graded: Graded, ks: Sequence[int]) -> "np.ndarray":
    """1 - C(n - c, k) / C(n, k) for c correct of n. Raises ValueError when a k is not between 1 and n."""
    correct = int(graded.correct.sum())
    missed: np.ndarray = none_drawn(len(graded), ks, correct)[:, -1]
    return 1.0 - missed
