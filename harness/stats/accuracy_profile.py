"""The accuracy profile S_{k,t}: how many problems have at least t right among k samples (arXiv 2608.04001)."""

import numpy as np
from scipy import stats


def accuracy_profile(rates: np.ndarray, k: int) -> np.ndarray:
    """S_{k,t} for t = 1..k: the mean over problems of P(Binomial(k, p) >= t), p from `rates` (problems,).

    S_{k,1} is pass@k, S_{k,k} pass^k, the mean over t is mean accuracy, and S_{k, k // 2 + 1} bounds majority voting
    from below.
    """
    needed = np.arange(1, k + 1)
    return np.asarray(stats.binom.sf(needed - 1, k, np.asarray(rates)[:, None]).mean(axis=0))
