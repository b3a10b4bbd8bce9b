"""What a solved problem costs (cost of pass, arXiv 2504.13359, with seconds, FLOPs or tokens for money)."""

import numpy as np


def cost_per_solved(cost: np.ndarray, success: np.ndarray) -> np.ndarray:
    """Expected cost until a problem is solved, E[cost] / E[success] per problem; infinite where it never is.

    `cost` (problems,) is what one attempt costs on average and `success` (problems,) its success rate.
    """
    return np.asarray(np.divide(cost, success, out=np.full(cost.shape, np.inf), where=success > 0))


def total_cost_per_solved(cost: np.ndarray, success: np.ndarray) -> float:
    """What was spent on all problems for each one expected to be solved; infinite when none is."""
    solved = float(np.sum(success))
    return float(np.sum(cost)) / solved if solved > 0 else float("inf")
