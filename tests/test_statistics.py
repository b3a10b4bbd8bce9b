"""Statistics against published vectors, brute force and other libraries."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from harness.stats.accuracy_profile import accuracy_profile
from harness.stats.area import area_under_log, trapezoid_weights
from harness.stats.bayes import Posterior, bayes_at_n, decide
from harness.stats.budget_scaling import control, performance, scaling
from harness.stats.coverage_law import fit_coverage_law
from harness.stats.difficulty import difficulty_bins, means_by_bin
from harness.stats.paired import holm, mcnemar_p, paired_difference, sign_flip_p
from harness.stats.pareto import front_frequency, on_front
from harness.stats.power import (
    effect_factor,
    minimum_detectable_effect,
    planned_effect,
    problems_needed,
    variance_per_problem,
)
from harness.stats.solving_cost import cost_per_solved, total_cost_per_solved
from harness.stats.standard_errors import clustered_standard_error, paired_standard_error, standard_error

RESULTS = np.array([[0, 1, 2, 2, 1], [1, 1, 0, 2, 2]])
PRIOR = np.array([[0, 2], [1, 2]])


def test_bayes_at_n_gives_the_published_vectors() -> None:
    with_prior = bayes_at_n(RESULTS, np.array([0, 0.5, 1]), PRIOR)
    assert [with_prior.mean, with_prior.deviation] == pytest.approx([0.575, 0.084275], abs=5e-7)
    without = bayes_at_n(RESULTS, np.array([0, 0.5, 1]))
    assert [without.mean, without.deviation] == pytest.approx([0.5625, 0.091998], abs=5e-7)
    binary = bayes_at_n(np.array([[0, 1, 1, 0, 1], [1, 1, 0, 1, 1]]), np.array([0, 1]))
    assert [binary.mean, binary.deviation] == pytest.approx([0.642857, 0.118451], abs=5e-7)
    assert list(binary.interval()) == pytest.approx([0.4107, 0.8750], abs=5e-5)


def test_bayes_at_n_is_the_moments_of_dirichlet_draws() -> None:
    rng = np.random.default_rng(0)
    weights = np.array([0.2, 0.5, 1.0])
    counts = [[(row == j).sum() + 1 for j in range(3)] for row in RESULTS]
    draws = np.mean([rng.dirichlet(count, 200_000) @ weights for count in counts], axis=0)
    found = bayes_at_n(RESULTS, weights)
    assert found.mean == pytest.approx(draws.mean(), abs=4 * draws.std() / math.sqrt(200_000))
    assert found.deviation == pytest.approx(draws.std(), rel=0.01)


def test_a_binary_uniform_prior_is_a_line_of_the_average() -> None:
    for bank in np.random.default_rng(1).integers(0, 2, (20, 6, 8)):
        # Laplace's rule of succession in every problem: (8 c + 1) / (8 + 2), so the ranking is the average's.
        assert bayes_at_n(bank, np.array([0, 1])).mean == pytest.approx((8 * bank.mean() + 1) / 10)


def test_an_outcome_without_a_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"outcomes must be 0\.\.1, got 0\.\.2"):
        bayes_at_n(RESULTS, np.array([0, 1]))


def test_a_decision_is_the_normal_probability_of_the_order() -> None:
    found = decide(Posterior(0.6, 0.03), Posterior(0.5, 0.04))
    assert found.z == pytest.approx(2.0)
    assert found.probability == pytest.approx(stats.norm.cdf(2.0))
    same = decide(Posterior(0.5, 0.0), Posterior(0.5, 0.0))
    assert (same.z, same.probability) == (0.0, 0.5)
    assert decide(Posterior(0.4, 0.0), Posterior(0.5, 0.0)).probability == 1.0


def test_clustered_errors_are_the_sandwich_of_a_regression_on_a_constant() -> None:
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(12), 5)
    scores = rng.normal(size=60) + rng.normal(size=12)[clusters]
    # Least squares on a column of ones: (X'X)^-1 (sum of X_g' r_g r_g' X_g) (X'X)^-1 with the usual G / (G - 1).
    x = np.ones((60, 1))
    residual = scores - x @ np.linalg.lstsq(x, scores, rcond=None)[0]
    bread = np.linalg.inv(x.T @ x)
    meat = sum(
        np.outer(x[clusters == g].T @ residual[clusters == g], x[clusters == g].T @ residual[clusters == g])
        for g in range(12)
    )
    expected = math.sqrt((12 / 11 * bread @ meat @ bread).item())
    assert clustered_standard_error(scores, clusters) == pytest.approx(expected)
    assert clustered_standard_error(scores, [f"c{c}" for c in clusters]) == pytest.approx(expected)


def test_clusters_of_one_give_the_plain_error_and_copies_do_not_shrink_it() -> None:
    scores = np.random.default_rng(3).random(30)
    assert standard_error(scores) == pytest.approx(stats.sem(scores))
    assert clustered_standard_error(scores, np.arange(30)) == pytest.approx(stats.sem(scores))
    assert clustered_standard_error(np.repeat(scores, 7), np.repeat(np.arange(30), 7)) == pytest.approx(
        stats.sem(scores)
    )
    assert math.isnan(standard_error(scores[:1]))
    assert math.isnan(clustered_standard_error(scores, np.zeros(30)))


def test_the_paired_error_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random(40), rng.random(40)
    t = stats.ttest_rel(b, a)
    assert paired_standard_error(a, b) == pytest.approx((b - a).mean() / t.statistic)
    clusters = np.repeat(np.arange(8), 5)
    assert paired_standard_error(a, b, clusters) == pytest.approx(clustered_standard_error(b - a, clusters))


def test_sample_sizes_of_millers_examples() -> None:
    assert problems_needed(0.03, 1 / 9) == 969
    # Scores within a problem of variance 1/6 (uniform success rates); the paper prints 13.2 % and 7.5 %.
    effects = [planned_effect(198, variance_per_problem(1 / 9, 1 / 6, k, 1 / 6, k)) for k in (1, 10)]
    assert effects == [pytest.approx(0.132, abs=1e-3), pytest.approx(0.075, abs=1e-3)]


def test_the_detectable_effect_is_found_at_the_stated_power() -> None:
    assert effect_factor() == pytest.approx(1.959964 + 0.841621, abs=1e-6)
    error = 0.02
    effect = minimum_detectable_effect(error)
    power = stats.norm.sf(stats.norm.isf(0.025) - effect / error)
    assert power == pytest.approx(0.8, abs=1e-6)
    assert planned_effect(problems_needed(0.05, 0.3), 0.3) <= 0.05 < planned_effect(problems_needed(0.05, 0.3) - 1, 0.3)


def test_sign_flips_equal_the_enumeration_of_all_patterns() -> None:
    rng = np.random.default_rng(5)
    differences = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], (9, 3))
    patterns = np.array(list(itertools.product([-1, 1], repeat=9)))
    for column, p in zip(differences.T, sign_flip_p(differences), strict=True):
        means = np.abs((patterns * column).sum(axis=1))
        assert p == pytest.approx(np.mean(means >= abs(column.sum()) - 1e-12))


def test_sign_flips_agree_with_scipys_permutation_test() -> None:
    differences = np.random.default_rng(6).normal(0.12, 0.5, 60)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, vectorized=True, rng=7
    ).pvalue
    found = sign_flip_p(differences[:, None], 20_000)[0]
    assert found == pytest.approx(expected, abs=4 * math.sqrt(2 * expected * (1 - expected) / 20_000))


def test_no_difference_has_p_of_one() -> None:
    assert sign_flip_p(np.zeros((50, 1))).tolist() == [1.0]
    assert sign_flip_p(np.zeros((3, 1))).tolist() == [1.0]


def test_right_or_wrong_sign_flips_are_mcnemars_test() -> None:
    """For 0/1 scores the sum of flipped differences is a shifted binomial over the discordant problems."""
    a = np.array([1] * 14 + [0] * 6 + [1] * 5 + [0] * 25, bool)
    b = np.array([1] * 14 + [0] * 6 + [0] * 5 + [1] * 16 + [0] * 9, bool)
    expected = 2 * stats.binom.cdf(5, 21, 0.5)
    assert mcnemar_p(a, b) == pytest.approx(expected)
    found = sign_flip_p((b.astype(float) - a)[:, None], 40_000)[0]
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected / 40_000))
    assert mcnemar_p(a, a) == 1.0


def test_holm_adjusts_as_in_the_textbook() -> None:
    # p = .01, .04, .03, .005: steps 4 x .005, 3 x .01, 2 x .03, 1 x .04, made monotone.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []


def test_the_paired_interval_is_near_the_paired_t_interval() -> None:
    rng = np.random.default_rng(8)
    a = rng.random((1, 60, 2))
    b = a + rng.normal(0.1, 0.3, (1, 60, 2))
    found = paired_difference(a, b)
    for point in range(2):
        t = stats.ttest_rel(b[0, :, point], a[0, :, point]).confidence_interval()
        width = t.high - t.low
        assert found.difference[point] == pytest.approx((t.low + t.high) / 2)
        assert found.low[point] == pytest.approx(t.low, abs=0.06 * width)
        assert found.high[point] == pytest.approx(t.high, abs=0.06 * width)
        assert found.mde[point] == pytest.approx(2.801585 * stats.sem(b[0, :, point] - a[0, :, point]))


def test_pairing_removes_what_the_arms_share() -> None:
    hardness = np.random.default_rng(9).random((1, 200, 1))
    found = paired_difference(hardness, hardness + 0.01)
    assert found.difference[0] == pytest.approx(0.01)
    # All problems differ alike: the bootstrap has no spread, the Wilson limit of 0 in 200 is 3.84 / 203.84.
    assert found.high[0] - 0.01 == pytest.approx(1.959964**2 / (200 + 1.959964**2))


def test_one_problem_bounds_nothing() -> None:
    found = paired_difference(np.zeros((1, 1, 1)), np.ones((1, 1, 1)))
    assert (found.low[0], found.high[0], found.p_value[0]) == (-1.0, 1.0, 1.0)
    assert math.isnan(found.mde[0])


def test_areas_are_scorios_and_the_trapezoid_rules() -> None:
    # AUC@5: 1/8 at both ends, 1/4 between.
    assert trapezoid_weights(np.arange(1, 6)).tolist() == pytest.approx([1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8])
    x = np.array([0.5, 1.0, 3.0, 20.0])
    values = np.random.default_rng(10).random((7, 4))
    expected = integrate.trapezoid(values, np.log(x), axis=1) / math.log(40)
    assert area_under_log(x, values).tolist() == pytest.approx(expected.tolist())
    with pytest.raises(ValueError, match="at least two places, got 1"):
        trapezoid_weights(np.array([1.0]))


def test_the_coverage_law_is_found_again_and_extrapolates() -> None:
    ks = np.unique(np.geomspace(1, 1000, 40).astype(int))
    truth = np.exp(-1.7 * ks**-0.45)
    law = fit_coverage_law(ks, truth, 100)
    assert law is not None
    assert [law.a, law.b] == pytest.approx([-1.7, -0.45], rel=1e-4)
    assert law.held_out == (ks > 100).sum()
    assert law.held_out_error == pytest.approx(0, abs=1e-6)
    assert law.at(np.array([10])) == pytest.approx(math.exp(-1.7 * 10**-0.45))


def test_the_held_out_error_tells_of_another_law() -> None:
    ks = np.unique(np.geomspace(1, 1000, 40).astype(int))
    saturating = 0.6 - 0.4 * 0.9**ks
    law = fit_coverage_law(ks, saturating, 30)
    assert law is not None
    assert law.held_out_error is not None
    assert law.held_out_error > 5 * law.error


def test_the_coverage_law_is_undefined_without_three_inner_points() -> None:
    assert fit_coverage_law(np.array([1, 2, 4, 8]), np.array([0.0, 0.5, 0.7, 1.0]), 8) is None
    assert fit_coverage_law(np.array([1, 2, 4]), np.array([0.2, 0.5, 0.7]), 2) is None
    law = fit_coverage_law(np.array([1, 2, 4]), np.array([0.2, 0.5, 0.7]), 4)
    assert law is not None
    assert law.held_out_error is None


def test_difficulty_bins_are_quantiles_with_ties_together() -> None:
    assert difficulty_bins(np.linspace(1, 0, 10)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert difficulty_bins(np.array([1.0, 1, 1, 1, 0.5, 0, 0, 0, 0, 0])).tolist() == [
        1, 1, 1, 1, 2, 3, 3, 3, 3, 3,
    ]  # fmt: skip
    assert difficulty_bins(np.array([0.3])).tolist() == [2]
    means = means_by_bin(np.array([[0.0], [1.0], [1.0]]), np.array([0, 0, 2]), 3)
    assert means[[0, 2], 0].tolist() == [0.5, 1.0]
    assert math.isnan(means[1, 0])


@pytest.mark.parametrize("seed", range(10))
def test_the_front_is_what_nothing_dominates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs, accuracies = rng.integers(1, 5, 12).astype(float), rng.integers(0, 6, (4, 12)) / 5
    for row, front in zip(accuracies, on_front(costs, accuracies), strict=True):
        for i in range(12):
            beaten = row[i] == 0 or any(
                costs[j] <= costs[i] and row[j] >= row[i] and (costs[j] < costs[i] or row[j] > row[i])
                for j in range(12)
            )
            assert front[i] == (not beaten)


def test_the_frequency_on_the_front_counts_replicates() -> None:
    replicates = np.array([[0.5, 0.6, 0.4], [0.5, 0.4, 0.7], [0.5, 0.5, 0.6], [0.5, 0.7, 0.8]])
    assert front_frequency(np.array([1.0, 2.0, 3.0]), replicates).tolist() == [1.0, 0.5, 0.75]


def test_cost_of_pass() -> None:
    cost, success = np.array([10.0, 10.0, 4.0]), np.array([0.5, 0.0, 1.0])
    assert cost_per_solved(cost, success).tolist() == [20.0, math.inf, 4.0]
    assert total_cost_per_solved(cost, success) == pytest.approx(16.0)
    assert total_cost_per_solved(cost, np.zeros(3)) == math.inf


def test_s1s_three_numbers() -> None:
    budgets, accuracies = np.array([1.0, 2.0, 4.0]), np.array([0.2, 0.5, 0.5])
    # Slopes 0.3, 0.1 and 0.
    assert scaling(budgets, accuracies) == pytest.approx(0.4 / 3)
    assert performance(accuracies) == 0.5
    assert control(np.array([0.5, 1.0, 2.0, 3.0]), 1.0, 2.0) == 0.5
    assert math.isnan(scaling(budgets[:1], accuracies[:1]))
    assert math.isnan(control(np.array([]), 0, 1))


def test_the_accuracy_profile_counts_patterns() -> None:
    rates = np.array([0.2, 0.7, 1.0])
    for k in (1, 3, 4):
        expected = np.zeros(k)
        for p in rates:
            for pattern in itertools.product([0, 1], repeat=k):
                right = sum(pattern)
                expected[:right] += p**right * (1 - p) ** (k - right) / 3
        assert accuracy_profile(rates, k).tolist() == pytest.approx(expected.tolist())
        assert accuracy_profile(rates, k).mean() == pytest.approx(rates.mean())
