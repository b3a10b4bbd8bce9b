"""`mg_pass_k`: G-Pass@k averaged over the thresholds from one half to one (arXiv 2412.13147)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.nouns import Graded, Selector

from .subsets import checked
from .successes import at_least

if TYPE_CHECKING:
    import numpy as np


def mg_pass_k() -> Selector:
    """mG-Pass@k: 2/k times the sum of G-Pass@k at the thresholds i/k above one half; 0 at k = 1, which has none."""
    return Selector("mg_pass_k", expected=mg_pass)


def mg_pass(graded: Graded, ks: Sequence[int]) -> "np.ndarray":
    """(2 / k) sum over i = ceil(k / 2) + 1 .. k of P(at least i of k are correct).

    Raises ValueError for a k not between 1 and n.
    """
    import numpy as np

    n, correct = len(graded), int(graded.correct.sum())
    return np.array([2 / k * at_least(n, correct, k)[(k + 1) // 2 + 1 : k + 1].sum() for k in checked(n, ks).tolist()])
