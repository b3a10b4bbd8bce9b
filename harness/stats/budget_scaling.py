"""How well a method keeps to budgets and turns them into accuracy: s1's three numbers (arXiv 2501.19393, section 3)."""

import numpy as np


def control(spent: np.ndarray, least: float, most: float) -> float:
    """The share of evaluations whose spending lies between `least` and `most`, both included; NaN for none."""
    return float(np.mean((spent >= least) & (spent <= most))) if spent.size else float("nan")


def scaling(budgets: np.ndarray, accuracies: np.ndarray) -> float:
    """The mean slope of accuracy over all pairs of evaluations at different budgets, per unit of budget.

    NaN for fewer than two evaluations; `budgets` (evaluations,) must differ.
    """
    if budgets.size < 2:
        return float("nan")
    first, second = np.triu_indices(budgets.size, 1)
    return float(np.mean((accuracies[second] - accuracies[first]) / (budgets[second] - budgets[first])))


def performance(accuracies: np.ndarray) -> float:
    """The best accuracy of any evaluation."""
    return float(np.max(accuracies))
