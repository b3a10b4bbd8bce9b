"""The area under accuracy against log budget: one number for a whole curve."""

import numpy as np


def trapezoid_weights(places: np.ndarray) -> np.ndarray:
    """Weights (points,), summing to 1, whose product with a curve at `places` is its mean height by the trapezoid rule.

    With places 1..K they are scorio's AUC@K (1 / (2 (K - 1)) at both ends, 1 / (K - 1) between); with the logarithms of
    budgets they give the area under accuracy against log budget, divided by the width of the range. Raises ValueError
    for fewer than two places.
    """
    if places.size < 2:
        raise ValueError(f"an area wants at least two places, got {places.size}")
    steps = np.diff(places)
    return np.asarray((np.append(steps, 0.0) + np.insert(steps, 0, 0.0)) / (2 * (places[-1] - places[0])))


def area_under_log(x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean height of `values` (..., points) over log x for increasing positive `x`: 1 is perfect at every budget.

    It is linear in the values, so the areas of single problems average to the area of their mean.
    """
    return np.asarray(values @ trapezoid_weights(np.log(x)))
