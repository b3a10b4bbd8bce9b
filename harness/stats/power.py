"""What a set of problems can show: minimum detectable effect and sample size (Miller, arXiv 2411.00640, section 5)."""

import math

from scipy import stats

ALPHA = 0.05
POWER = 0.8


def effect_factor(alpha: float = ALPHA, power: float = POWER) -> float:
    """z_(alpha/2) + z_beta: how many standard errors a true difference must be away from zero to be found.

    Found means that a two-sided test at `alpha` rejects in the share `power` of experiments.
    """
    return float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))


def minimum_detectable_effect(standard_error: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true difference that is found in the share `power` of experiments with this standard error."""
    return effect_factor(alpha, power) * standard_error


def variance_per_problem(
    between: float, within_a: float = 0.0, samples_a: int = 1, within_b: float = 0.0, samples_b: int = 1
) -> float:
    """Variance of one problem's difference: omega^2 + sigma_A^2 / K_A + sigma_B^2 / K_B.

    `between` is the variance over problems of the true difference; `within_a` and `within_b` the mean variance of one
    sample's score within a problem; `samples_a` and `samples_b` how many samples each arm averages per problem.
    """
    return between + within_a / samples_a + within_b / samples_b


def problems_needed(effect: float, variance: float, alpha: float = ALPHA, power: float = POWER) -> int:
    """How many problems find a true difference of `effect`, given `variance_per_problem`."""
    needed = effect_factor(alpha, power) ** 2 * variance / effect**2
    return math.ceil(needed - 1e-9)


def planned_effect(problems: int, variance: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """The minimum detectable effect of an experiment with so many problems, given `variance_per_problem`."""
    return minimum_detectable_effect(math.sqrt(variance / problems), alpha, power)
