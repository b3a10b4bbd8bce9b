"""The bootstrap: problems are drawn with replacement, and so are seeds where an arm was run with several."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

RESAMPLES = 10_000
"""Bootstrap replicates and sign flips behind a comparison (as in s1, arXiv 2501.19393)."""
LEVEL = 0.95
AT_ONCE = 4_000_000
"""Numbers that one block of draws may hold."""


def replicate_means(arms: Sequence[np.ndarray], resamples: int = RESAMPLES, seed: int = 0) -> list[np.ndarray]:
    """Bootstrap replicates of each arm's mean over problems.

    Each arm is (seeds, problems, points); all have the same problems in the same order, and a replicate draws the same
    problems for every arm, so that differences between arms are paired. An arm with several seeds also has its seeds
    drawn (`seed_effects`), independently of the problems and of the other arms. Because a problem's value already is
    the outcome of selecting among that problem's own samples, a replicate's mean is what selecting anew on the drawn
    problems gives. Returns one (resamples, points) array per arm; the same `seed` draws the same problems each time.
    """
    rng = np.random.default_rng(seed)
    seed_rngs = [np.random.default_rng((seed, number)) for number in range(len(arms))]
    blocks: list[list[np.ndarray]] = [[] for _ in arms]
    for shares in problem_shares(arms[0].shape[1], resamples, rng):
        for block, values, seed_rng in zip(blocks, arms, seed_rngs, strict=True):
            block.append(drawn_means(values, shares, seed_rng))
    return [np.concatenate(block) for block in blocks]


def problem_shares(problems: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield blocks (replicates, problems) of how large a part of each replicate a problem makes up; rows sum to 1."""
    size = max(1, min(resamples, AT_ONCE // problems))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = rng.integers(0, problems, (rows, problems)) + problems * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * problems).reshape(rows, problems) / problems


def drawn_means(values: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One arm's means (replicates, points) under these shares of problems, with its seeds drawn when it has several."""
    seeds, rows = values.shape[0], shares.shape[0]
    means = shares @ values.mean(axis=0)
    if seeds == 1:
        return np.asarray(means)
    chosen = rng.integers(0, seeds, (rows, seeds))
    return np.asarray(means + (chosen[:, :, None] == np.arange(seeds)).mean(axis=1) @ seed_effects(values))


def seed_effects(values: np.ndarray) -> np.ndarray:
    """How far each seed's mean lies from the mean of all, (seeds, points), as far as it is not a matter of problems.

    Seeds differ by chance alone because their samples do, and drawing problems already shows that. What is beyond it
    (a slower machine that day) is estimated as in an analysis of variance over seeds x problems: the mean square of
    seeds less that of the residuals, none when negative. The deviations are shrunk to that variance, and stretched
    by sqrt(S / (S - 1)) because drawing S of S seeds shows too little of it.
    """
    seeds, problems = values.shape[:2]
    means = values.mean(axis=1)
    deviations = means - means.mean(axis=0)
    if problems < 2:
        return np.zeros_like(deviations)
    residuals = values - means[:, None] - values.mean(axis=0) + means.mean(axis=0)
    chance = (residuals**2).sum(axis=(0, 1)) / ((seeds - 1) * (problems - 1) * problems)
    observed = (deviations**2).sum(axis=0) / (seeds - 1)
    beyond = np.divide(observed - chance, observed, out=np.zeros_like(observed), where=observed > chance)
    return np.asarray(deviations * np.sqrt(beyond * seeds / (seeds - 1)))


def tail(problems: int, level: float = LEVEL) -> float:
    """The share of replicates to leave out at each end.

    A bootstrap mean spreads by sqrt((n - 1) / n) too little and has normal rather than Student tails; the expanded
    percentile interval (Hesterberg, arXiv 1411.5279, section 4.2) moves the cut outwards by just that.
    """
    if problems < 2:
        return 0.0
    half_width = np.sqrt(problems / (problems - 1)) * stats.t.ppf((1 + level) / 2, problems - 1)
    return float(stats.norm.cdf(-half_width))


def percentile_interval(replicates: np.ndarray, problems: int, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Expanded percentile limits of each column of `replicates` (resamples, points).

    Columns may hold infinities; NaN marks replicates in which the quantity is undefined and which are left out. A
    column without any defined replicate has NaN limits.
    """
    out = tail(problems, level)
    lows, highs = np.full(replicates.shape[1], np.nan), np.full(replicates.shape[1], np.nan)
    for number, column in enumerate(replicates.T):
        defined = np.sort(column[~np.isnan(column)])
        if defined.size:
            last = defined.size - 1
            lows[number], highs[number] = defined[int(np.floor(out * last))], defined[int(np.ceil((1 - out) * last))]
    return lows, highs
