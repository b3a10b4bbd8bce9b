"""Bayes@N: the posterior of a weighted success rate under a Dirichlet prior (arXiv 2510.04265), in closed form."""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats


@dataclass(frozen=True, slots=True)
class Posterior:
    """Mean and standard deviation of the rate."""

    mean: float
    deviation: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The normal credible interval around the mean."""
        half = float(stats.norm.ppf((1 + level) / 2)) * self.deviation
        return self.mean - half, self.mean + half


def bayes_at_n(results: np.ndarray, weights: np.ndarray, prior: np.ndarray | None = None) -> Posterior:
    """The posterior over problems and samples.

    `results` (problems, samples) holds outcome numbers 0..C, `weights` (C + 1,) what each outcome is worth, and `prior`
    (problems, D) outcomes seen before, which count like results. Each problem starts from a uniform prior over its
    outcomes. Raises ValueError when an outcome has no weight.
    """
    seen = results if prior is None else np.hstack([results, prior])
    problems, outcomes = seen.shape[0], weights.size
    if seen.size and (seen.min() < 0 or seen.max() >= outcomes):
        raise ValueError(f"outcomes must be 0..{outcomes - 1}, got {seen.min()}..{seen.max()}")
    counts = np.stack([(seen == outcome).sum(axis=1) for outcome in range(outcomes)], axis=1) + 1.0
    total = outcomes + seen.shape[1]
    gains = weights - weights[0]
    shares = counts / total
    mean = weights[0] + float((shares @ gains).sum()) / problems
    variances = shares @ gains**2 - (shares @ gains) ** 2
    return Posterior(mean, float(np.sqrt(variances.sum() / (problems**2 * (total + 1)))))


@dataclass(frozen=True, slots=True)
class Decision:
    """How far apart two posteriors are, in standard deviations, and how probable it is that the order is right."""

    z: float
    probability: float


def decide(one: Posterior, other: Posterior) -> Decision:
    """Compare two posteriors: z = |mu - mu'| / sqrt(sigma^2 + sigma'^2), probability (1 + erf(z / sqrt 2)) / 2.

    Posteriors whose intervals overlap have no winner.
    """
    spread = float(np.hypot(one.deviation, other.deviation))
    apart = abs(one.mean - other.mean)
    z = apart / spread if spread else (float("inf") if apart else 0.0)
    return Decision(z, float(0.5 * (1 + special.erf(z / np.sqrt(2)))))
