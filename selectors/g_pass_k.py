"""`g_pass_k`: are at least a share tau of the samples correct? How reliable a model is (arXiv 2412.13147)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.nouns import Graded, Selector

from .subsets import checked
from .successes import at_least

if TYPE_CHECKING:
    import numpy as np


def g_pass_k(tau: float = 0.5) -> Selector:
    """G-Pass@k: the share of k-subsets in which at least the share `tau`, and at least one, is correct."""

    def expected(graded: Graded, ks: Sequence[int]) -> "np.ndarray":
        return g_pass(graded, ks, tau)

    return Selector("g_pass_k", expected=expected)


def g_pass(graded: Graded, ks: Sequence[int], tau: float) -> "np.ndarray":
    """P(at least ceil(tau k), and at least 1, of k are correct). Raises ValueError for a k not between 1 and n."""
    import numpy as np

    n, correct = len(graded), int(graded.correct.sum())
    return np.array([at_least(n, correct, k)[needed(k, tau)] for k in checked(n, ks).tolist()])


def needed(k: int, tau: float) -> int:
    """How many of k must be correct; 0.3 of 10 are 3, whatever the rounding of 0.3 says."""
    return max(math.ceil(tau * k - 1e-9), 1)
