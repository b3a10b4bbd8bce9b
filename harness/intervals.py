"""95 % intervals over problems, by scipy."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

REPLICATES = 1000
LEVEL = 0.95


def mean_with_interval(values: "np.ndarray") -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Column means of `values` (problems, points) in 0..1 with percentile-bootstrap limits over the problems.

    The samples of a problem are one cluster, so problems are what is resampled; each problem's value already is the
    selector's result on its own candidates. Where all problems agree the bootstrap knows no spread; there the Wilson
    interval of that many successes or failures stands (Bowyer et al., arXiv 2503.01747, on small sets).
    """
    import numpy as np
    from scipy import stats

    n, points = values.shape
    means = values.mean(axis=0)
    if n < 2:
        return means, np.zeros(points), np.ones(points)
    draws = stats.bootstrap(
        (values,), np.mean, axis=0, n_resamples=REPLICATES, confidence_level=LEVEL, method="percentile",
        rng=np.random.default_rng(0), batch=64,
    )  # fmt: skip
    low, high = np.array(draws.confidence_interval.low), np.array(draws.confidence_interval.high)
    for column in np.flatnonzero(np.ptp(values, axis=0) == 0):
        wilson = stats.binomtest(round(float(means[column]) * n), n).proportion_ci(LEVEL, method="wilson")
        low[column], high[column] = min(wilson.low, means[column]), max(wilson.high, means[column])
    return means, low, high
