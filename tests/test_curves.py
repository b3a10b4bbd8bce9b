"""Curves against brute force over subsets and against counting by hand."""

import itertools
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from harness import plugins
from harness.analysis.bank import Item
from harness.analysis.curves import curves_of, k_grid, spent_grid, value_of, values_along, values_at_k
from harness.analysis.intervals import mean_with_interval
from harness.analysis.positions import spent_when_finished
from harness.faults import Fault
from harness.nouns import Candidate, Choice, Graded, Selector

COVERAGE, MAJORITY, FIRST = (plugins.load_selector(name) for name in ("coverage", "majority", "first"))


def item(answers: list[str | None], gold: str, finished: list[float] | None = None, name: str = "p") -> Item:
    classes = {answer: number for number, answer in enumerate(dict.fromkeys(a for a in answers if a is not None))}
    finished = finished or [float(i) for i in range(len(answers))]
    candidates = tuple(
        Candidate(i, f"text {i}", answer, None if answer is None else classes[answer], 5, t)
        for i, (answer, t) in enumerate(zip(answers, finished, strict=True))
    )
    positions = {axis: tuple(finished) for axis in ("seconds", "flops", "tokens")}
    return Item(name, "Q", Graded(candidates, tuple(answer == gold for answer in answers)), positions)


def expected_value(selector: Selector, one: Item, k: int) -> float:
    return float(values_at_k(selector, [one], [k])[0, 0])


def values_in_time(selector: Selector, one: Item, times: list[float]) -> list[float]:
    return [float(value) for value in values_along(selector, [one], "seconds", times)[0]]


def brute_coverage(one: Item, k: int) -> float:
    subsets = list(itertools.combinations(one.graded.correct, k))
    return sum(any(subset) for subset in subsets) / len(subsets)


def vote(answers: tuple[str | None, ...], gold: str) -> float:
    """The value of a vote, counted another way: the share of the gold among the modes."""
    voted = [answer for answer in answers if answer is not None]
    modes = {answer for answer in voted if voted.count(answer) == max(map(voted.count, voted))}
    return (gold in modes) / len(modes) if modes else 0.0


@pytest.mark.parametrize("seed", range(20))
def test_coverage_equals_the_mean_over_all_subsets(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randint(1, 9)
    one = item([rng.choice(["4", "5", None]) for _ in range(n)], "4")
    for k in range(1, n + 1):
        assert expected_value(COVERAGE, one, k) == pytest.approx(brute_coverage(one, k), abs=1e-12)


def test_coverage_equals_the_hypergeometric_survival_function() -> None:
    one = item(["4"] * 17 + ["5"] * 239, "4")
    for k in (1, 7, 64, 256):
        assert expected_value(COVERAGE, one, k) == pytest.approx(stats.hypergeom.sf(0, 256, 17, k), abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_a_vote_over_all_candidates_shares_ties_and_ignores_silence(seed: int) -> None:
    rng = random.Random(seed)
    answers = [rng.choice(["4", "5", "6", None]) for _ in range(rng.randint(1, 9))]
    assert value_of(MAJORITY, "Q", item(answers, "4").graded) == pytest.approx(vote(tuple(answers), "4"), abs=1e-12)


def test_a_vote_at_k_is_near_the_mean_over_all_subsets() -> None:
    answers = ["4"] * 5 + ["5"] * 4 + ["6"] * 2 + [None]
    one = item(answers, "4")
    subsets = list(itertools.combinations(answers, 4))
    exact = sum(vote(subset, "4") for subset in subsets) / len(subsets)
    # A hundred random subsets: four standard errors of a fraction.
    assert expected_value(MAJORITY, one, 4) == pytest.approx(exact, abs=4 * 0.5 / math.sqrt(100))
    assert expected_value(MAJORITY, one, 4) == expected_value(MAJORITY, one, 4)


@pytest.mark.parametrize("k", [1, 2, 6, 7])
def test_a_vote_at_k_is_exact_where_the_subsets_are_few(k: int) -> None:
    answers = ["4", "4", "5", "5", "6", None, "4"]
    exact = [vote(subset, "4") for subset in itertools.combinations(answers, k)]
    assert expected_value(MAJORITY, item(answers, "4"), k) == pytest.approx(sum(exact) / len(exact), abs=1e-12)


def test_equivalent_answers_vote_together() -> None:
    one = item(["1/2", "0.5", "3", "3", "0.5"], "0.5")
    classes = (0, 0, 1, 1, 0)
    merged = Graded(
        tuple(replace(c, answer_class=k) for c, k in zip(one.graded.candidates, classes, strict=True)),
        (True, True, False, False, True),
    )
    assert value_of(MAJORITY, "Q", merged) == 1.0


def test_first_is_the_lowest_index_and_plain_accuracy_in_expectation() -> None:
    one = item(["5", "4", "4"], "4")
    assert value_of(FIRST, "Q", one.graded) == 0.0
    assert expected_value(FIRST, one, 2) == pytest.approx(2 / 3)


def test_values_in_time_use_only_what_had_finished() -> None:
    one = item(["5", "4", "4", None], "4", [2.0, 1.0, 3.0, math.inf])
    assert values_in_time(COVERAGE, one, [0.5, 1.0, 2.0, 3.0]) == [0, 1, 1, 1]
    assert values_in_time(MAJORITY, one, [0.5, 1.0, 2.0, 3.0]) == [0, 1, 0.5, 1]
    assert values_in_time(FIRST, one, [0.5, 1.0, 2.0, 3.0]) == [0, 1, 0, 0]


def test_a_selector_that_returns_a_stranger_is_named() -> None:
    stranger = Selector("odd", select=lambda prompt, some: Candidate(99, "", None, None, 0, 0.0))
    with pytest.raises(Fault, match="selector odd returned something it was not given"):
        value_of(stranger, "Q", item(["4"], "4").graded)


def test_an_empty_choice_counts_nothing() -> None:
    assert value_of(Selector("none", select=lambda prompt, some: Choice(())), "Q", item(["4"], "4").graded) == 0


def test_grids() -> None:
    assert k_grid(1) == [1]
    assert k_grid(12) == [1, 2, 4, 8, 12]
    items = [item(["4"], "4", [2.0]), item(["5"], "4", [8.0])]
    grid = spent_grid(items, "seconds", [16.0])
    assert (grid[0], grid[-1]) == (2.0, 16.0)
    assert np.allclose(np.diff(np.log(grid)), np.log(8) / 24)
    assert {3.0, 5.0} <= set(spent_grid(items, "seconds", [5.0, 3.0]))
    assert spent_grid(items, "seconds", [5.0, 3.0])[-1] == 5.0
    assert spent_grid(items, "seconds")[-1] == 8.0
    assert spent_grid(items, "seconds", [1.0]) == [1.0]
    assert spent_grid([item(["4"], "4", [math.nan])], "seconds") == []
    assert spent_grid([item(["4"], "4", [math.inf])], "seconds") == []


def test_curves_cover_every_axis_that_was_recorded() -> None:
    items = [item(["4", "5"], "4", [1.0, 2.0], f"p{i}") for i in range(5)]
    curves = curves_of(items, [COVERAGE, FIRST], {"seconds": [4.0], "tokens": []})
    assert [(curve.selector, curve.axis) for curve in curves] == [
        (s, a) for a in ("k", "seconds", "tokens") for s in ("coverage", "first")
    ]
    assert [(point.x, point.value, point.n) for point in curves[0].points] == [(1, 0.5, 5), (2, 1.0, 5)]
    assert all(p.low <= p.value <= p.high for curve in curves for p in curve.points)


def test_the_interval_is_the_bootstraps() -> None:
    values = np.random.default_rng(3).random((40, 3))
    mean, low, high = mean_with_interval(values)
    # For 40 values the bootstrap of a mean is close to normal: an independent formula.
    half = 1.96 * values.std(axis=0) / math.sqrt(40)
    assert np.allclose(mean, values.mean(axis=0))
    assert np.allclose(low, mean - half, atol=0.25 * half.max())
    assert np.allclose(high, mean + half, atol=0.25 * half.max())


def test_agreement_of_all_problems_gives_the_wilson_interval() -> None:
    _, low, high = mean_with_interval(np.ones((30, 1)))
    # Wilson for 30 of 30: 1 / (1 + z^2 / 30).
    assert low[0] == pytest.approx(1 / (1 + 1.959964**2 / 30), abs=1e-6)
    assert high[0] == pytest.approx(1.0)


def test_one_problem_says_nothing_about_others() -> None:
    mean, low, high = mean_with_interval(np.array([[1.0, 0.0]]))
    assert (mean.tolist(), low.tolist(), high.tolist()) == ([1, 0], [0, 0], [1, 1])


def test_positions_count_the_work_beside_a_row() -> None:
    columns = {
        "started_s": [0.0, 0.0, 0.0],
        "first_token_s": [1.0, 1.0, 1.0],
        "finished_s": [3.0, 5.0, 9.0],
        "completion_tokens": [20, 40, 80],
        "decode_flops": [200.0, 400.0, 800.0],
        "prefill_flops": [100.0, 100.0, 100.0],
    }
    flops, tokens = spent_when_finished({name: np.array(column, float) for name, column in columns.items()})
    # At 3 s: all of row 0, half of row 1, a quarter of row 2; all three prefills.
    assert flops == pytest.approx([300 + 200 + 200 + 200, 300 + 200 + 400 + 400, 300 + 1400])
    assert tokens == pytest.approx([20 + 20 + 20, 20 + 40 + 40, 140])
