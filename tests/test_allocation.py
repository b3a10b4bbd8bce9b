"""Samples by difficulty: banks whose best allocation is known, and no peeking at the evaluated half."""

import numpy as np
import pytest
from banks import graded_of

from harness.analysis.allocation import agreement, allocate

KS = [1, 2, 4, 8]


def test_samples_go_where_they_help() -> None:
    """Easy problems need one sample, hard ones never succeed, and the middle rises from 0 to 1 at eight samples."""
    easy, middle, hard = np.ones((20, 4)), np.tile([0.0, 0.0, 0.5, 1.0], (20, 1)), np.zeros((20, 4))
    values = np.concatenate([easy, middle, hard])
    ease = np.repeat([2.0, 1.0, 0.0], 20)
    found = allocate(values, KS, ease, bins=3)
    assert [one.fixed for one in found] == pytest.approx([1 / 3, 1 / 3, 0.5, 2 / 3])
    # Eight for the middle and one elsewhere are 10/3 in the mean, so four in the mean are enough.
    assert [one.binned for one in found] == pytest.approx([1 / 3, 0.5, 2 / 3, 2 / 3])
    assert found[2].chosen == ((1, 8, 1), (1, 8, 1))
    assert found[2].spent == pytest.approx(10 / 3)


def test_nothing_is_won_from_noise() -> None:
    """Values without a signal: what looked best on one half is, in the mean, no better on the other."""
    rng = np.random.default_rng(0)
    gains = []
    for seed in range(40):
        values = rng.random((60, 4))
        gains += [one.binned - one.fixed for one in allocate(values, KS, rng.random(60), seed=seed)]
    assert abs(np.mean(gains)) < 4 * np.std(gains) / len(gains) ** 0.5


def test_no_more_is_spent_than_allowed() -> None:
    rng = np.random.default_rng(1)
    values = np.sort(rng.random((100, 4)), axis=1)
    for one in allocate(values, KS, values[:, 0]):
        assert one.spent <= one.k + 1e-9
        assert all(k in KS for way in one.chosen for k in way)


def test_ease_without_the_gold() -> None:
    assert agreement(graded_of(["4", "4", "5", None])) == 0.5
    assert agreement(graded_of([None])) == 0.0


def test_too_few_problems_or_too_many_ways_are_refused() -> None:
    with pytest.raises(ValueError, match="5 bins want at least 10 problems, got 9"):
        allocate(np.zeros((9, 4)), KS, np.zeros(9))
    with pytest.raises(ValueError, match="15 sizes for 6 bins"):
        allocate(np.zeros((40, 15)), list(range(1, 16)), np.zeros(40), bins=6)
