"""The Pareto set over configurations (model, selector, k or budget), and how sure each one's place on it is."""

import numpy as np

TOLERANCE = 1e-9


def on_front(costs: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """Which configurations nothing beats, for each row of `accuracies` (rows, configurations).

    One is beaten when another costs no more and is more accurate, or costs less and is as accurate; one that solves
    nothing is beaten by doing nothing. `costs` (configurations,) are the same in every row. Equal configurations stand
    or fall together.
    """
    front = np.zeros(accuracies.shape, bool)
    best = np.zeros(accuracies.shape[0])
    for cost in np.unique(costs):
        here = np.flatnonzero(costs == cost)
        top = accuracies[:, here].max(axis=1)
        leads = (top > best + TOLERANCE)[:, None]
        front[:, here] = leads & (accuracies[:, here] >= top[:, None] - TOLERANCE)
        best = np.maximum(best, top)
    return front


def front_frequency(costs: np.ndarray, replicates: np.ndarray) -> np.ndarray:
    """The share of bootstrap replicates (rows) in which each configuration is on the front."""
    return np.asarray(on_front(costs, replicates).mean(axis=0))
