"""How often the 95 % intervals contain the truth: `python tests/benchmarks/interval_coverage.py [--simulations N]`.

A made-up population of problems is sampled over and over, as a benchmark samples problems: each simulation draws n of
them with the values that a selector gave them at k, and asks whether the interval contains the population's mean, which
is known. Beside the intervals that are used stand the plain percentile bootstrap's and Student's.
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy import stats
from selector_speed import made_up

from harness import plugins
from harness.analysis.curves import values_at_k
from harness.analysis.intervals import mean_with_interval, resample_counts

POPULATION = 3000
SAMPLES = 32
SELECTORS = (
    "coverage", "majority", "best_of_n", "weighted_majority", "first", "g_pass_k", "first_finish", "last_finish",
    "early_stopping_vote",
)  # fmt: skip
KS = (1, 8, 32)
PROBLEMS = (40, 500)

Interval = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def used(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The intervals of the package; each column is a simulation."""
    _, low, high = mean_with_interval(values)
    return low, high


def percentile(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The plain percentile bootstrap."""
    low, high = np.percentile(resample_counts(len(values)) @ values, [2.5, 97.5], axis=0)
    return low, high


def student(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error with Student's quantile."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(axis=0, ddof=1) / len(values) ** 0.5
    return values.mean(axis=0) - half, values.mean(axis=0) + half


def population(selector: str, population: int = POPULATION) -> np.ndarray:
    """(problems, KS) the values of a population of problems, each from its own samples."""
    items = made_up(population, SAMPLES, seed=3)
    return values_at_k(plugins.load_selector(selector), items, KS)


def coverage(values: np.ndarray, n: int, simulations: int, interval: Interval, seed: int = 0) -> float:
    """The share of simulated banks of n problems whose interval contains the mean of `values` (problems,)."""
    drawn = np.random.default_rng(seed).integers(0, len(values), (n, simulations))
    low, high = interval(values[drawn])
    return float(((low <= values.mean()) & (values.mean() <= high)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    asked = parser.parse_args()
    methods: dict[str, Interval] = {"used": used, "percentile": percentile, "student": student}
    heads = [f"{name}, n = {n}" for n in PROBLEMS for name in methods]
    print(f"| selector | k | truth | {' | '.join(heads)} |")
    print(f"| --- | ---: | ---: | {' | '.join('---:' for _ in heads)} |")
    for selector in SELECTORS:
        for k, values in zip(KS, population(selector).T, strict=True):
            cells = [
                f"{100 * coverage(values, n, asked.simulations, interval):.1f}"
                for n in PROBLEMS
                for interval in methods.values()
            ]
            print(f"| {selector} | {k} | {100 * values.mean():.1f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
