"""When one arm overtakes the other: the crossover budget T*."""

from dataclasses import dataclass

import numpy as np

from harness.stats.resampling import LEVEL, percentile_interval

TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Crossover:
    """From `x` on, the arm `winner` ("a" or "b") is ahead to the end of the range.

    `x` is None when there is no such place, and `reason` says why. `low` and `high` bound the 95 % interval; None there
    means below the start and past the end of the range. `share` is the part of the bootstrap replicates in which the
    winner overtakes inside the range.
    """

    x: float | None
    winner: str | None
    low: float | None = None
    high: float | None = None
    share: float = 0.0
    reason: str = ""


def takeover(places: np.ndarray, lead: np.ndarray) -> np.ndarray:
    """Where a lead becomes positive for good, for each row of `lead` (rows, points) over `places` (points,).

    The last crossing of zero from below, linear between the two places beside it; minus infinity where the lead is
    never negative, plus infinity where it is not positive at the end.
    """
    behind = lead < -TOLERANCE
    last = lead.shape[1] - 1 - np.argmax(behind[:, ::-1], axis=1)
    after = np.minimum(last + 1, lead.shape[1] - 1)
    rows = np.arange(lead.shape[0])
    before_value, after_value = lead[rows, last], np.maximum(lead[rows, after], 0.0)
    gap = after_value - before_value
    part = np.divide(-before_value, gap, out=np.zeros_like(gap), where=gap > 0)
    found = places[last] + part * (places[after] - places[last])
    found = np.where(behind.any(axis=1), found, -np.inf)
    return np.where(lead[:, -1] > TOLERANCE, found, np.inf)


def crossover(
    x: np.ndarray, difference: np.ndarray, replicates: np.ndarray, problems: int, level: float = LEVEL
) -> Crossover:
    """The crossover of b over a, or of a over b, whichever is ahead at the end of the range.

    `difference` (points,) is accuracy b - a at the increasing positive budgets `x`; `replicates` (resamples, points)
    are its bootstrap replicates. Between budgets the difference is taken to be linear in log x.
    """
    end = float(difference[-1])
    if abs(end) <= TOLERANCE:
        return Crossover(None, None, reason="the arms are equal at the end of the range")
    sign, winner = (1.0, "b") if end > 0 else (-1.0, "a")
    place = takeover(np.log(x), sign * difference[None, :])[0]
    drawn = takeover(np.log(x), sign * replicates)
    share = float(np.isfinite(drawn).mean())
    if not np.isfinite(place):
        return Crossover(None, winner, share=share, reason=f"{winner} is never behind in the range")
    low, high = percentile_interval(drawn[:, None], problems, level)
    return Crossover(float(np.exp(place)), winner, finite_exp(low[0]), finite_exp(high[0]), share)


def finite_exp(log_value: float) -> float | None:
    """The exponential of a finite number; None for an infinite one or NaN."""
    return float(np.exp(log_value)) if np.isfinite(log_value) else None
