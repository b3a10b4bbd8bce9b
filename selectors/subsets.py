"""Subsets of size k drawn from n without replacement: the probabilities that the closed forms are made of."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def checked(n: int, ks: Sequence[int]) -> "np.ndarray":
    """The sizes as an array. Raises ValueError when one is not between 1 and n."""
    import numpy as np

    sizes = np.asarray(ks, int)
    if len(sizes) and not (sizes.min() >= 1 and sizes.max() <= n):
        raise ValueError(f"subsets want 1 <= k <= {n}, got {list(ks)}")
    return sizes


def none_drawn(n: int, ks: Sequence[int], most: int) -> "np.ndarray":
    """P(a k-subset of n misses a given set of m) = C(n - m, k) / C(n, k), for each k and m = 0 .. most: (ks, most + 1).

    A product of factors in 0..1, so that nothing overflows (Chen et al., arXiv 2107.03374).
    """
    import numpy as np

    sizes = checked(n, ks)[:, None]
    left = n - np.arange(most)
    factors = np.maximum(left - sizes, 0) / np.maximum(left, 1)
    return np.concatenate((np.ones((len(sizes), 1)), np.cumprod(factors, axis=1)), axis=1)


def hypergeometric(n: int, size: int, k: int) -> "np.ndarray":
    """P(i of a random k-subset of n are members of a set of `size`) for i = 0 .. min(size, k)."""
    import numpy as np

    first, last = max(0, k - (n - size)), min(size, k)
    i, logs = np.arange(first, last + 1), log_factorials(n)
    inside = logs[size] - logs[i] - logs[size - i]
    outside = logs[n - size] - logs[k - i] - logs[n - size - k + i]
    chances = np.zeros(last + 1)
    chances[first:] = np.exp(inside + outside - logs[n] + logs[k] + logs[n - k])
    return chances


def log_factorials(n: int) -> "np.ndarray":
    """Logarithms of 0!, ..., m! for some m >= n, in extended precision."""
    return all_log_factorials(max(2**12, 1 << (n + 1).bit_length()))


@functools.lru_cache(maxsize=4)
def all_log_factorials(count: int) -> "np.ndarray":
    """Logarithms of i! for i below `count`."""
    import numpy as np

    return np.concatenate(([0], np.cumsum(np.log(np.arange(1, count, dtype=np.longdouble)))))
