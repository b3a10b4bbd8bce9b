"""How much sooner one arm reaches an accuracy than the other: the iso-accuracy speed-up T_A(a) / T_B(a)."""

from dataclasses import dataclass

import numpy as np

from harness.stats.crossing import TOLERANCE, finite_exp
from harness.stats.resampling import LEVEL, percentile_interval


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """At accuracy `level`: what each arm needs, and `factor` = A's need / B's, above 1 when B is the faster.

    None stands for undefined: an arm's need when its curve never reaches the level, the factor when either is None.
    A limit is None where the replicates leave the range on that side: B (for `high`) or A (for `low`) may never get
    there. `share` is the part of the replicates in which both arms reach the level.
    """

    level: float
    a: float | None
    b: float | None
    factor: float | None
    low: float | None
    high: float | None
    share: float
    reason: str = ""


def first_reach(places: np.ndarray, curves: np.ndarray, level: float) -> np.ndarray:
    """Where each row of `curves` (rows, points) first is at `level`, linear between `places`; infinite when never."""
    reached = curves >= level - TOLERANCE
    at = np.argmax(reached, axis=1)
    before = np.maximum(at - 1, 0)
    rows = np.arange(curves.shape[0])
    low, high = curves[rows, before], curves[rows, at]
    rise = high - low
    part = np.divide(level - low, rise, out=np.ones_like(rise), where=rise > TOLERANCE)
    found = places[before] + np.clip(part, 0.0, 1.0) * (places[at] - places[before])
    return np.where(reached.any(axis=1), found, np.inf)


def log_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Differences of logarithms: infinite where one is infinite, NaN where both are."""
    both = np.isinf(numerator) & np.isinf(denominator)
    return np.asarray(np.where(both, np.nan, np.where(both, 0.0, numerator) - np.where(both, 0.0, denominator)))


def speed_up(
    x: np.ndarray, curves: tuple[np.ndarray, np.ndarray], replicates: tuple[np.ndarray, np.ndarray],
    level: float, problems: int, confidence: float = LEVEL,
) -> SpeedUp:  # fmt: skip
    """The speed-up of b over a at accuracy `level`.

    `curves` are the arms' accuracies (points,) at the increasing positive budgets `x`; `replicates` their bootstrap
    replicates (resamples, points), drawn together. Replicates in which neither arm gets there are left out of the
    interval; those in which one does count as infinitely much sooner.
    """
    places = np.log(x)
    a, b = (float(first_reach(places, curve[None, :], level)[0]) for curve in curves)
    drawn_a, drawn_b = (first_reach(places, drawn, level) for drawn in replicates)
    share = float((np.isfinite(drawn_a) & np.isfinite(drawn_b)).mean())
    missing = [name for name, need in (("a", a), ("b", b)) if not np.isfinite(need)]
    if missing:
        never = f"{' and '.join(missing)} never {'reach' if len(missing) > 1 else 'reaches'} {level:.3f}"
        return SpeedUp(level, finite_exp(a), finite_exp(b), None, None, None, share, never)
    low, high = percentile_interval(log_ratio(drawn_a, drawn_b)[:, None], problems, confidence)
    return SpeedUp(
        level, finite_exp(a), finite_exp(b), float(np.exp(a - b)), finite_exp(low[0]), finite_exp(high[0]), share
    )
