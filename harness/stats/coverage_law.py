"""The law by which coverage grows with samples: c(k) = exp(a k^b) (Large Language Monkeys, arXiv 2407.21787)."""

from dataclasses import dataclass

import numpy as np
from scipy import optimize


@dataclass(frozen=True, slots=True)
class CoverageLaw:
    """`a` < 0 and `b` < 0, fitted on the first `fitted` values of k.

    `error` is the root mean square error of coverage on the fitted ones, `held_out_error` on the `held_out` larger
    ones (None when none was held out).
    """

    a: float
    b: float
    fitted: int
    held_out: int
    error: float
    held_out_error: float | None

    def at(self, ks: np.ndarray) -> np.ndarray:
        """Coverage at `ks`."""
        return np.exp(self.a * np.asarray(ks, float) ** self.b)


def fit_coverage_law(ks: np.ndarray, coverage: np.ndarray, window: float) -> CoverageLaw | None:
    """Fit log c = a k^b by least squares where k <= `window`, and measure the error beyond it.

    Returns None where the law is undefined: fewer than three values of k in the window with coverage strictly between
    0 and 1 (at 0 the logarithm is infinite; at 1 nothing is left to grow).
    """
    ks, coverage = np.asarray(ks, float), np.asarray(coverage, float)
    usable = (ks <= window) & (coverage > 0) & (coverage < 1)
    if usable.sum() < 3:
        return None
    log_k, logs = np.log(ks[usable]), np.log(coverage[usable])
    slope, intercept = np.polyfit(log_k, np.log(-logs), 1)
    (a, b), _ = optimize.curve_fit(
        lambda k, a, b: a * k**b, ks[usable], logs, p0=(-np.exp(intercept), slope), maxfev=10_000
    )
    beyond = ks > window
    misses = np.exp(a * ks**b) - coverage
    held_out = float(np.sqrt(np.mean(misses[beyond] ** 2))) if beyond.any() else None
    return CoverageLaw(
        float(a), float(b), int(usable.sum()), int(beyond.sum()), float(np.sqrt(np.mean(misses[usable] ** 2))), held_out
    )
