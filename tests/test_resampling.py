"""The bootstrap and what is read off whole curves, against scipy, brute force and simulations with a known truth."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats.crossing import crossover, takeover
from harness.stats.iso_accuracy import first_reach, speed_up
from harness.stats.paired import paired_difference
from harness.stats.resampling import percentile_interval, problem_shares, replicate_means, seed_effects, tail


def test_replicates_spread_like_scipys_bootstrap() -> None:
    values = np.random.default_rng(0).random((1, 30, 1))
    (means,) = replicate_means([values], 20_000)
    draws = stats.bootstrap((values[0, :, 0],), np.mean, n_resamples=20_000, method="percentile", rng=1)
    assert means.shape == (20_000, 1)
    assert means.std() == pytest.approx(draws.standard_error, rel=0.03)
    low, high = np.quantile(means, [0.025, 0.975])
    width = draws.confidence_interval.high - draws.confidence_interval.low
    assert low == pytest.approx(draws.confidence_interval.low, abs=0.03 * width)
    assert high == pytest.approx(draws.confidence_interval.high, abs=0.03 * width)


def test_a_replicate_counts_each_problem_a_whole_number_of_times() -> None:
    (shares,) = problem_shares(7, 50, np.random.default_rng(1))
    assert np.allclose(shares * 7, np.round(shares * 7))
    assert np.allclose(shares.sum(axis=1), 1)


def test_all_arms_are_drawn_together_and_again_in_the_next_call() -> None:
    values = np.random.default_rng(2).random((1, 40, 3))
    one, other = replicate_means([values, values + 0.25], 100)
    assert np.allclose(other - one, 0.25)
    (again,) = replicate_means([values], 100)
    assert np.array_equal(one, again)


def test_blocks_do_not_change_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).random((1, 20, 2))
    (whole,) = replicate_means([values], 60)
    monkeypatch.setattr("harness.stats.resampling.AT_ONCE", 200)
    (parts,) = replicate_means([values], 60)
    assert parts.shape == whole.shape
    assert np.allclose(parts, whole)


def test_seeds_that_differ_by_chance_add_nothing_and_others_add_their_variance() -> None:
    rng = np.random.default_rng(4)
    chance = rng.random((8, 400, 50))
    # Half of all estimates of a variance that is not there are negative; what is left is small beside the problems'.
    assert (seed_effects(chance) ** 2).mean() < 0.5 * chance.var() / 400
    shifts = rng.normal(0, 0.3, (8, 1, 50))
    found = (seed_effects(chance + shifts) ** 2).mean(axis=0)
    # The mean of S squares stretched by S / (S - 1) estimates the variance between seeds.
    assert found.mean() == pytest.approx(0.09, rel=0.15)
    assert seed_effects(rng.random((3, 1, 2))).tolist() == np.zeros((3, 2)).tolist()


def test_the_tail_is_the_normal_quantile_of_a_wider_student_interval() -> None:
    assert tail(40) == pytest.approx(stats.norm.cdf(-math.sqrt(40 / 39) * 2.022691), abs=1e-6)
    assert tail(100_000) == pytest.approx(0.025, abs=1e-4)
    assert tail(1) == 0.0


def test_limits_leave_out_what_is_undefined_and_keep_infinities() -> None:
    column = np.array([np.nan, np.inf, *np.arange(1000.0)])
    low, high = percentile_interval(column[:, None], 10**6)
    assert low[0] == pytest.approx(25, abs=1)
    assert high[0] == pytest.approx(975, abs=2)
    assert np.isinf(percentile_interval(np.array([[1.0], [np.inf], [np.inf]]), 50)[1][0])
    assert np.isnan(percentile_interval(np.array([[np.nan]]), 50)[0][0])


@pytest.mark.parametrize(("problems", "simulations"), [(40, 600), (500, 200)])
def test_paired_intervals_hold_the_truth_and_p_values_keep_their_level(problems: int, simulations: int) -> None:
    """Both arms solve a problem of hardness z with probability logistic(-z); the true difference is 0."""
    rng = np.random.default_rng(5)
    held, p_values = 0, []
    for number in range(simulations):
        chances = 1 / (1 + np.exp(rng.normal(0, 1.5, problems)))
        a, b = (rng.binomial(4, chances)[None, :, None] / 4 for _ in range(2))
        found = paired_difference(a, b, 1000, seed=number)
        held += bool(found.low[0] <= 0 <= found.high[0])
        p_values.append(found.p_value[0])
    spread = 3 * math.sqrt(0.05 * 0.95 / simulations)
    assert held / simulations == pytest.approx(0.95, abs=0.01 + spread)
    for level in (0.05, 0.2, 0.5):
        # Sums of quarters often tie with the observed one, which makes p values larger, never smaller.
        rejected, chance = np.mean(np.array(p_values) <= level), 3 * math.sqrt(level * (1 - level) / simulations)
        assert 0.7 * level - chance < rejected < level + chance


def test_p_values_are_uniform_when_the_arms_are_alike() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(2, 1, 30, 400))
    p_values = paired_difference(a, b, 2000).p_value
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_a_lead_begins_after_the_last_place_where_it_was_behind() -> None:
    places = np.array([0.0, 1.0, 2.0, 3.0])
    lead = np.array(
        [
            [-1.0, 1.0, 1.0, 1.0],  # crosses half-way to 1
            [-1.0, 1.0, -1.0, 3.0],  # the last crossing counts: a quarter of the way from 2 to 3
            [1.0, 1.0, 1.0, 1.0],  # never behind
            [-1.0, -1.0, -1.0, -1.0],  # never ahead
            [-1.0, 0.0, 0.0, 1.0],  # level from 1 on
            [0.0, 0.0, 0.0, 0.0],  # never ahead
        ]
    )
    assert takeover(places, lead).tolist() == [0.5, 2.25, -np.inf, np.inf, 1.0, np.inf]


def logistic_curves(x: np.ndarray, shift: float, height: float) -> np.ndarray:
    return np.asarray(height / (1 + np.exp(-(np.log(x) - shift))))


X = np.geomspace(0.1, 100, 200)
"""Budgets, finely enough spaced that curves are nearly linear between them."""


def test_the_crossover_is_the_root_of_the_difference() -> None:
    # 0.6 x / (x + e^0) = 0.9 x / (x + e^1.5) at x = (0.6 e^1.5 - 0.9) / 0.3.
    a, b = logistic_curves(X, 0.0, 0.6), logistic_curves(X, 1.5, 0.9)
    root = (0.6 * math.exp(1.5) - 0.9) / 0.3
    noise = np.random.default_rng(7).normal(0, 0.02, (500, 1))
    found = crossover(X, b - a, (b - a) + noise, 100)
    assert found.winner == "b"
    assert found.x == pytest.approx(root, rel=1e-3)
    assert found.low is not None
    assert found.high is not None
    assert found.low < root < found.high
    assert found.share == 1.0
    mirrored = crossover(X, a - b, (a - b) + noise, 100)
    assert mirrored.winner == "a"
    assert mirrored.x == pytest.approx(root, rel=1e-3)


def test_a_crossover_without_a_change_of_lead_is_undefined() -> None:
    a, b = logistic_curves(X, 0.0, 0.6), logistic_curves(X, 0.0, 0.8)
    ahead = crossover(X, b - a, np.tile(b - a, (10, 1)), 50)
    assert (ahead.x, ahead.winner, ahead.reason) == (None, "b", "b is never behind in the range")
    level = crossover(X, a - a, np.tile(a - a, (10, 1)), 50)
    assert (level.x, level.winner) == (None, None)
    assert level.reason == "the arms are equal at the end of the range"


def test_a_crossover_that_many_replicates_lack_has_an_open_interval() -> None:
    a, b = logistic_curves(X, 0.0, 0.6), logistic_curves(X, 1.5, 0.9)
    drawn = np.vstack([np.tile(b - a, (80, 1)), np.tile(a - b, (20, 1)) - 1.0])
    found = crossover(X, b - a, drawn, 100)
    assert found.share == pytest.approx(0.8)
    assert found.high is None
    assert found.low is not None


def test_an_accuracy_is_reached_where_the_curve_first_is_there() -> None:
    places = np.array([0.0, 1.0, 2.0, 3.0])
    curves = np.array([[0.0, 0.4, 0.2, 0.8], [0.5, 0.5, 0.5, 0.5], [0.0, 0.1, 0.1, 0.1]])
    assert first_reach(places, curves, 0.3).tolist() == pytest.approx([0.75, 0.0, np.inf])
    assert first_reach(places, curves, 0.8).tolist() == pytest.approx([3.0, np.inf, np.inf])


def test_the_speed_up_of_a_shifted_curve_is_the_shift() -> None:
    a, b = logistic_curves(X, 1.5, 0.8), logistic_curves(X, 0.5, 0.8)
    noise = np.random.default_rng(8).normal(0, 0.01, (300, 1))
    for level in (0.1, 0.3, 0.5):
        found = speed_up(X, (a, b), (a + noise, b + noise), level, 100)
        assert found.factor == pytest.approx(math.e, rel=5e-3)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= math.e * 1.01
        assert found.high >= math.e * 0.99
        assert found.share == 1.0


def test_a_speed_up_that_one_arm_never_earns_is_undefined() -> None:
    a, b = logistic_curves(X, 0.0, 0.6), logistic_curves(X, 0.0, 0.8)
    found = speed_up(X, (a, b), (a[None, :], b[None, :]), 0.7, 50)
    assert (found.a, found.factor, found.low) == (None, None, None)
    assert found.b is not None
    assert found.reason == "a never reaches 0.700"
    assert speed_up(X, (a, b), (a[None, :], b[None, :]), 0.9, 50).reason == "a and b never reach 0.900"


def test_replicates_that_never_get_there_open_the_interval() -> None:
    a, b = logistic_curves(X, 1.5, 0.8), logistic_curves(X, 0.5, 0.8)
    drawn_b = np.vstack([np.tile(b, (80, 1)), np.tile(0.4 * b, (20, 1))])
    found = speed_up(X, (a, b), (np.tile(a, (100, 1)), drawn_b), 0.5, 100)
    assert found.factor == pytest.approx(math.e, rel=5e-3)
    assert found.low is None
    assert found.share == pytest.approx(0.8)
