"""Bins of problems by difficulty (Snell et al., arXiv 2408.03314)."""

import numpy as np
from scipy import stats

BINS = 5


def difficulty_bins(scores: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin 0 (easiest: highest score) .. bins - 1 (hardest) of each problem, by quantiles of `scores` (problems,).

    With pass@1 over many samples as score these are the oracle bins, with the mean reward-model score the predicted
    ones. Problems of equal score share a bin (that of their mean rank), so bins may be of unequal size or empty.
    """
    ranks = stats.rankdata(-np.asarray(scores, float), method="average")
    return np.asarray(np.minimum(bins - 1, ((ranks - 0.5) * bins / scores.size).astype(int)))


def means_by_bin(values: np.ndarray, bin_of: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Mean of `values` (problems, points) in each bin: (bins, points), NaN where a bin is empty."""
    result = np.full((bins, values.shape[1]), np.nan)
    for number in np.unique(bin_of):
        result[number] = values[bin_of == number].mean(axis=0)
    return result
