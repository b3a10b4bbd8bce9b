"""95 % intervals of a mean over problems, by resampling the problems."""

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

REPLICATES = 1000
LEVEL = 0.95
TAIL = (1 - LEVEL) / 2


def mean_with_interval(values: "np.ndarray") -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Column means of `values` (problems, points) in 0..1 with their limits.

    The samples of a problem are one cluster, so problems are what is resampled; a problem's value already is the
    selector's result on its own candidates, so a resampled mean is the selection made again. With `values` of (seeds,
    problems, points), runs that differ in the seed alone, seeds are resampled too.

    Two kinds of limits are blended. Wilson's, for as many independent successes and failures as would have the
    bootstrap's standard error, are right where problems are solved or not; the studentised bootstrap's are right where
    values lie in between and are skewed. The weight of Wilson's is the share that the variance has of the largest that
    the mean allows: 1 for values of 0 and 1. Plain percentile limits are too narrow for few problems
    (`tests/benchmarks/interval_coverage.py` compares them). Where all problems agree there is no spread to resample;
    there it is Wilson's interval for that many successes or failures (Bowyer et al., arXiv 2503.01747).
    """
    import numpy as np
    from scipy.special import ndtri, stdtrit

    seeds = values[None] if values.ndim == 2 else values
    merged, n = seeds.mean(axis=0), seeds.shape[1]
    means = merged.mean(axis=0)
    if n < 2:
        return means, np.zeros(len(means)), np.ones(len(means))
    errors, agreed = bootstrap_errors(seeds), np.ptp(merged, axis=0) < 1e-12
    spread = np.maximum(means * (1 - means), 0.0)
    count = np.divide(spread, errors**2, out=np.full(len(means), float(n)), where=~agreed)
    quantile = np.where(agreed, ndtri(1 - TAIL), stdtrit(n - 1, 1 - TAIL))
    binary = np.divide(merged.var(axis=0), spread, out=np.ones(len(means)), where=(spread > 1e-12) & ~agreed)
    limits = [
        binary * one + (1 - binary) * other
        for one, other in zip(wilson(means, count, quantile), studentised(merged, errors), strict=True)
    ]
    return means, np.minimum(limits[0], means), np.maximum(limits[1], means)


def wilson(share: "np.ndarray", count: "np.ndarray", quantile: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    """Wilson's score interval for a share of `count` independent trials."""
    import numpy as np

    ratio = quantile**2 / count
    middle = (share + ratio / 2) / (1 + ratio)
    half = quantile * np.sqrt(share * (1 - share) / count + ratio / (4 * count)) / (1 + ratio)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def studentised(values: "np.ndarray", errors: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    """The bootstrap-t limits of the column means of `values` (problems, points), whose standard errors are `errors`.

    What is resampled is the mean's distance from the truth in its own standard errors, so that skewed values give
    lopsided limits.
    """
    import numpy as np

    n, means, drawn = len(values), values.mean(axis=0), resample_counts(len(values))
    resampled = drawn @ values
    variances = np.maximum(drawn @ values**2 - resampled**2, 1e-8)
    low, high = np.quantile((resampled - means) / np.sqrt(variances / (n - 1)), [TAIL, 1 - TAIL], axis=0)
    return np.clip(means - high * errors, 0.0, 1.0), np.clip(means - low * errors, 0.0, 1.0)


def bootstrap_errors(seeds: "np.ndarray") -> "np.ndarray":
    """The standard error of each column's mean over `REPLICATES` resamples of problems, and of seeds when several.

    The factor makes up for the resample's spread being that of n values about their own mean, not about the truth.
    """
    import numpy as np

    count, n, _ = seeds.shape
    drawn = resample_counts(n)
    if count == 1:
        means = drawn @ seeds[0]
    else:
        picked = np.random.default_rng(1).multinomial(count, np.full(count, 1 / count), REPLICATES) / count
        by_seed = np.einsum("rp,spg->rsg", drawn, seeds, optimize=True)
        means = np.einsum("rs,rsg->rg", picked, by_seed)
    errors: np.ndarray = means.std(axis=0) * (n / (n - 1)) ** 0.5
    return errors


@functools.lru_cache(maxsize=4)
def resample_counts(n: int) -> "np.ndarray":
    """(replicates, n) how often each problem is drawn, as a share of the draws; the same for every curve of a run."""
    import numpy as np

    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), REPLICATES) / n
