"""The intervals contain the truth as often as they say: simulated banks whose accuracy is known by a formula."""

import numpy as np
import pytest
from banks import graded_of, item_of

from harness import plugins
from harness.analysis.curves import values_at_k
from harness.analysis.intervals import mean_with_interval, wilson

N = 12
SIMULATIONS = 2000
# With p ~ Beta(2, 1), E p = 2/3, E p^2 = 1/2, E p^3 = 2/5 and E (1 - p)^4 = 1/15, E p^4 = 1/3.
TRUTHS = {
    ("first", 1): 2 / 3,
    ("coverage", 4): 14 / 15,
    ("majority", 3): 3 / 2 - 4 / 5,
    ("pass_hat_k", 4): 1 / 3,
    ("best_of_n", 4): 2 / 3,  # the scores say nothing
    ("weighted_majority", 3): 3 / 2 - 4 / 5,  # the scores are all equal
    ("early_stopping_vote", 3): 3 / 2 - 4 / 5,
    ("first_finish", 4): 2 / 3,
}


def values_by_correct(name: str, k: int) -> np.ndarray:
    """What the selector gives a problem by how many of its samples are correct; the order of the samples is random."""
    rng = np.random.default_rng(1)
    rows = []
    for correct in range(N + 1):
        answers = rng.permutation(["4"] * correct + ["5"] * (N - correct)).tolist()
        scores = [[float(x)] for x in (rng.permutation(N) if name == "best_of_n" else np.ones(N))]
        graded = graded_of(answers, scores=scores, finished=[float(x) for x in rng.permutation(N)])
        rows.append(item_of(graded))
    return values_at_k(plugins.load_selector(name), rows, [k])[:, 0]


@pytest.mark.parametrize("problems", [40, 500])
@pytest.mark.parametrize(("name", "k"), TRUTHS)
def test_the_truth_is_inside_in_93_to_97_percent(name: str, k: int, problems: int) -> None:
    rng = np.random.default_rng(7)
    correct = rng.binomial(N, rng.beta(2, 1, (problems, SIMULATIONS)))
    if name in ("best_of_n", "first_finish"):
        # One order of scores or times per count is no average over orders: draw what the ranks decide.
        values = (rng.random(correct.shape) < correct / N).astype(float)
    else:
        values = values_by_correct(name, k)[correct]
    _, low, high = mean_with_interval(values)
    truth = TRUTHS[name, k]
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.97


def test_seeds_are_resampled_too() -> None:
    """Runs that differ in the seed by a shift of their own are less certain than their problems alone say."""
    rng = np.random.default_rng(0)
    problems = rng.random((200, 1)) * 0.5
    shifted = np.stack([problems + shift for shift in (0.0, 0.2, 0.4)])
    _, low, high = mean_with_interval(shifted)
    _, one_low, one_high = mean_with_interval(shifted.mean(axis=0))
    # Three seeds' mean has a standard deviation of sd(0, .2, .4) / sqrt(3) = 0.094 between resamples.
    assert high[0] - low[0] == pytest.approx(2 * 1.972 * (0.163**2 / 3 + 0.25 / 12 / 200) ** 0.5, rel=0.1)
    assert one_high[0] - one_low[0] < 0.06
    same, same_low, same_high = mean_with_interval(np.stack([problems] * 3))
    assert same[0] == pytest.approx(problems.mean())
    assert same_high[0] - same_low[0] == pytest.approx(one_high[0] - one_low[0], rel=0.01)


def test_wilson_by_the_textbook() -> None:
    # 8 of 10 at z = 1.96: 0.4902 .. 0.9433 (Wilson 1927).
    low, high = wilson(np.array([0.8]), np.array([10.0]), np.array([1.96]))
    assert (low[0], high[0]) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
