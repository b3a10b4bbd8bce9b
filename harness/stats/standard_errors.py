"""Standard errors of means: plain, clustered and paired (Miller, arXiv 2411.00640)."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def standard_error(scores: np.ndarray) -> float:
    """The sample standard deviation over sqrt(n); NaN for fewer than two scores."""
    n = scores.shape[0]
    return float(np.std(scores, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def clustered_standard_error(scores: np.ndarray, clusters: Sequence[Any] | np.ndarray) -> float:
    """Standard error of the mean of `scores` (n,) whose entries with one label in `clusters` (n,) may depend.

    sqrt(G / (G - 1) * sum over clusters of (sum of residuals)^2) / n for G clusters. The factor G / (G - 1) makes it
    equal `standard_error` when every cluster has one member. NaN for fewer than two clusters.
    """
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(member, weights=scores - scores.mean())
    groups = sums.size
    if groups < 2:
        return float("nan")
    return float(np.sqrt(groups / (groups - 1) * np.sum(sums**2)) / scores.shape[0])


def paired_standard_error(a: np.ndarray, b: np.ndarray, clusters: Sequence[Any] | np.ndarray | None = None) -> float:
    """Standard error of mean(b - a) for two arms scored on the same problems, clustered when `clusters` is given."""
    return standard_error(b - a) if clusters is None else clustered_standard_error(b - a, clusters)
