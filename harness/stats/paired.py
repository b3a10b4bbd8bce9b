"""Two arms on the same problems: the mean difference with its interval, p value and minimum detectable effect."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from harness.stats.power import minimum_detectable_effect
from harness.stats.resampling import AT_ONCE, LEVEL, RESAMPLES, percentile_interval, replicate_means

TOLERANCE = 1e-9
"""Differences of accuracy smaller than this are rounding."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """mean(b - a) at some points: arrays of one entry per point.

    `low` and `high` bound the 95 % interval, `p_value` is the two-sided sign-flip test's, `mde` the minimum detectable
    effect at 80 % power and alpha 0.05, NaN where the problems' differences do not vary (nothing tells their spread).
    """

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray
    standard_error: np.ndarray
    mde: np.ndarray


def paired_difference(
    a: np.ndarray, b: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> PairedDifference:
    """Compare two arms (seeds, problems, points) on the same problems; arms may have different numbers of seeds."""
    means_a, means_b = replicate_means((a, b), resamples, seed)
    return difference_from(a, b, means_b - means_a, seed, level)


def difference_from(
    a: np.ndarray, b: np.ndarray, replicates: np.ndarray, seed: int = 0, level: float = LEVEL
) -> PairedDifference:
    """The same from bootstrap replicates (resamples, points) of the difference that are there already."""
    differences = b.mean(axis=0) - a.mean(axis=0)
    mean = differences.mean(axis=0)
    low, high = difference_interval(differences, replicates, level)
    n = differences.shape[0]
    errors = differences.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(mean.shape, np.nan)
    effects = np.where(errors > TOLERANCE, minimum_detectable_effect(1.0) * errors, np.nan)
    return PairedDifference(mean, low, high, sign_flip_p(differences, replicates.shape[0], seed), errors, effects)


def difference_interval(
    differences: np.ndarray, replicates: np.ndarray, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Limits of each column's mean difference: expanded percentiles of the bootstrap.

    Where all problems have one difference (often none differs) the bootstrap knows no spread; there the limits are as
    far away as the Wilson limit of 0 in n says that a share of problems unlike those may lie. One problem says
    nothing: -1 to 1.
    """
    n = differences.shape[0]
    if n < 2:
        return np.full(differences.shape[1], -1.0), np.full(differences.shape[1], 1.0)
    low, high = percentile_interval(replicates, n, level)
    reach = stats.binomtest(0, n).proportion_ci(level, method="wilson").high
    for column in np.flatnonzero(np.ptp(differences, axis=0) <= TOLERANCE):
        low[column] = max(-1.0, differences[0, column] - reach)
        high[column] = min(1.0, differences[0, column] + reach)
    return low, high


def sign_flip_p(differences: np.ndarray, flips: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Two-sided p values of the paired permutation test on `differences` (problems, points), one per point.

    If the arms are exchangeable within each problem, each problem's difference is as likely with the other sign. The
    p value is the share of sign patterns whose mean is at least as far from zero as the observed one: over all 2^n
    patterns when there are no more than `flips`, else over so many random ones, the observed one counted among them.
    """
    n = differences.shape[0]
    observed = np.abs(differences.sum(axis=0)) - TOLERANCE
    if 2**n <= flips:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return np.asarray((np.abs(signs @ differences) >= observed).mean(axis=0))
    rng = np.random.default_rng(seed)
    extreme = np.zeros(differences.shape[1])
    size = max(1, AT_ONCE // n)
    for start in range(0, flips, size):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (min(size, flips - start), n))
        extreme += (np.abs(signs @ differences) >= observed).sum(axis=0)
    return np.asarray((extreme + 1) / (flips + 1))


def mcnemar_p(a: np.ndarray, b: np.ndarray) -> float:
    """Exact two-sided McNemar test of two arms' right-or-wrong results (problems,) on the same problems.

    Only problems on which the arms disagree count: under the null each goes either way with probability 1/2. It is 1
    when they never disagree.
    """
    gained, lost = int(np.sum(b & ~a)), int(np.sum(a & ~b))
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment: reject where it is below alpha, and the chance of any false rejection is alpha."""
    m = p_values.size
    order = np.argsort(p_values, kind="stable")
    adjusted = np.minimum(1.0, np.maximum.accumulate(p_values[order] * (m - np.arange(m))))
    result = np.empty(m)
    result[order] = adjusted
    return result
