"""Rules that stop before the last candidate: when they stop, what they answer, and where they stand on the axis."""

import functools
import math
from collections import Counter

import numpy as np
import pytest
from banks import graded_of, item_of, vote
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness import plugins
from harness.analysis.curves import values_along
from harness.analysis.stopping import budgets_at
from harness.nouns import Selector
from harness.selectors.early_stopping_vote import turns

ANSWERS = st.lists(st.sampled_from(["4", "5", "6", "7", None]), min_size=1, max_size=7)
FEW = settings(max_examples=40, deadline=None)


@functools.cache
def named(name: str, *options: str) -> Selector:
    return plugins.load_selector(name, options)


@FEW
@given(ANSWERS)
def test_a_vote_that_cannot_change_any_more_is_the_vote(answers: list[str | None]) -> None:
    graded = graded_of(answers)
    stop = named("early_stopping_vote").stop
    assert stop is not None
    waits = stop(graded.classes, len(answers))
    seen = Counter(answer for answer in answers[:waits] if answer is not None)
    if waits < len(answers):
        (leader, most), *others = seen.most_common()
        assert most - max((count for _, count in others), default=0) > len(answers) - waits
        assert vote(answers) == float(leader == "4")
    # It does not wait one candidate longer than it must.
    before = Counter(answer for answer in answers[: waits - 1] if answer is not None).most_common(2)
    margin = (before[0][1] - (before[1][1] if len(before) > 1 else 0)) if before else 0
    assert margin <= len(answers) - waits + 1


def test_adaptive_consistency_stops_at_the_papers_confidence() -> None:
    stop = named("adaptive_consistency").stop
    assert stop is not None
    # Of four equal answers P(p > 1/2) = 1 - 1/2^5 = 0.969, of three 0.9375.
    assert stop(np.array([0, 0, 0, 0, 1, 1]), 6) == 4
    assert stop(np.array([0, -1, 0, 0, 0]), 8) == 5
    assert stop(np.array([0, 1, 0, 1]), 9) == 9
    beta = stats.beta(7 + 1, 2 + 1).sf(0.5)
    assert beta < 0.95 < stats.beta(8 + 1, 2 + 1).sf(0.5)
    assert stop(np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 11) == 10


@pytest.mark.parametrize(("leader", "runner_up", "left"), [(5, 1, 6), (3, 0, 9), (20, 15, 30), (2, 1, 1)])
def test_the_chance_that_a_vote_turns_is_beta_binomial(leader: int, runner_up: int, left: int) -> None:
    """The next answer draws level when it gains as much on the leader as it lacks, all votes going to the two."""
    level = math.ceil((left + leader - runner_up) / 2)
    chance = stats.betabinom.sf(level - 1, left, runner_up + 1, leader + 1)
    assert turns(leader, runner_up, left) == pytest.approx(chance, abs=1e-12)


def test_early_stopping_with_a_risk_stops_sooner() -> None:
    classes = np.array([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    waits = [named("early_stopping_vote", f"risk={risk}").stop for risk in (0.0, 0.05)]
    found = [stop(classes, 12) for stop in waits if stop]
    assert found[0] == 8  # seven of twelve
    assert found[1] < found[0]


def test_a_rule_that_stops_is_placed_where_it_stopped() -> None:
    """Two problems: one stops at 4 s of 10, the other runs through to 10 s."""
    easy = item_of(graded_of(["4"] * 10, finished=[float(t) for t in range(1, 11)]), "easy")
    hard = item_of(graded_of(["4", "5"] * 5, finished=[float(t) for t in range(1, 11)]), "hard")
    selector = named("adaptive_consistency")
    # The mean spent is 3 s while both run, (4 + 6) / 2 = 5 s when the hard one is at 6 s, (4 + 10) / 2 at its end.
    values = values_along(selector, [easy, hard], "seconds", [3.0, 5.0, 7.0, 100.0])
    assert values.tolist() == [[1.0, 1.0, 1.0, 1.0], [1.0, 0.5, 0.5, 0.5]]
    free = values_along(named("majority"), [hard], "seconds", [3.0, 5.0, 6.0])
    assert free.tolist() == [[1.0, 1.0, 0.5]]


def test_budgets_that_come_to_a_mean() -> None:
    """By bisection on the mean of min(t, stop), which is how the budget is defined."""
    stops = np.array([1.0, 2.5, 4.0, np.inf])
    for x in (0.3, 1.0, 1.7, 2.9, 5.0):
        low, high = 0.0, 100.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.minimum(middle, stops).mean() < x else (low, middle)
        assert budgets_at(stops, np.array([x]), False)[0] == pytest.approx(low)
    # All stop: beyond their mean there is nothing to spend. On one clock only the last stop ends it.
    assert budgets_at(np.array([1.0, 3.0]), np.array([1.5, 2.0]), False).tolist() == [2.0, np.inf]
    assert budgets_at(np.array([1.0, 3.0]), np.array([2.5, 3.0]), True).tolist() == [2.5, np.inf]
