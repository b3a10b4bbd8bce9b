"""Every selector's exact expectation against enumeration of all subsets, published values and its own plain form."""

import functools
import math
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from banks import graded_of, item_of, over_subsets, vote
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import plugins
from harness.analysis.columns import StepScores
from harness.analysis.curves import monte_carlo_se, value_of_choice, values_at_k
from harness.nouns import Graded, Selector

ANSWERS = st.lists(st.sampled_from(["4", "5", "6", "7", None]), min_size=1, max_size=7)
STEPS = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), max_size=3)
TIMES = st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0, math.inf])
FEW = settings(max_examples=40, deadline=None)


@functools.cache
def named(name: str, *options: str) -> Selector:
    return plugins.load_selector(name, options)


def expected(selector: Selector, graded: Graded, ks: Sequence[int]) -> list[float]:
    assert selector.expected is not None
    return [float(value) for value in selector.expected(graded, ks)]


def all_ks(graded: Graded) -> list[int]:
    return list(range(1, len(graded) + 1))


def plain_form(selector: Selector, graded: Graded, k: int) -> float:
    """The mean over all k-subsets of what `select` chooses."""
    return over_subsets(len(graded), k, lambda places: value_of_choice(selector, "Q", graded.take(np.array(places))))


@FEW
@given(ANSWERS)
def test_majority_is_the_mean_over_all_subsets(answers: list[str | None]) -> None:
    graded = graded_of(answers)
    ks = all_ks(graded)
    brute = [over_subsets(len(answers), k, lambda places: vote([answers[i] for i in places])) for k in ks]
    assert expected(named("majority"), graded, ks) == pytest.approx(brute, abs=1e-12)
    assert [plain_form(named("majority"), graded, k) for k in ks] == pytest.approx(brute, abs=1e-12)


@FEW
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2), st.data())
def test_classes_of_mixed_worth(counts: list[int], silent: int, data: st.DataObject) -> None:
    """A class may hold both verdicts when they were recorded elsewhere: then it is worth its share."""
    names = [str(number) for number, count in enumerate(counts) for _ in range(count)][:9]
    answers = [*names, *[None] * silent]
    graded = graded_of(answers)
    correct = np.array(data.draw(st.lists(st.booleans(), min_size=len(answers), max_size=len(answers))))
    mixed = Graded(graded.candidates, correct & (graded.classes >= 0))
    ks = all_ks(mixed)
    brute = [plain_form(named("majority"), mixed, k) for k in ks]
    assert expected(named("majority"), mixed, ks) == pytest.approx(brute, abs=1e-12)


def test_majority_at_two_and_three_by_hand() -> None:
    graded = graded_of(["4", "4", "5", None])
    # Pairs: 44 wins, 45 twice and 4- twice: a half and a whole each, 5- loses. Triples: 445 and 44- win, 45- halves.
    assert expected(named("majority"), graded, [2, 3]) == pytest.approx([(1 + 2 * 0.5 + 2) / 6, (1 + 1 + 0.5 * 2) / 4])


@pytest.mark.parametrize("n", [256, 10_000])
def test_majority_of_two_classes_is_a_hypergeometric_tail(n: int) -> None:
    correct = round(0.53 * n)
    graded = columns_only(np.repeat([0, 1], [correct, n - correct]), 0)
    ks = [3, 17, 101, 127 if n == 256 else 401]
    exact = []
    for k in ks:
        wins = sum(math.comb(correct, i) * math.comb(n - correct, k - i) for i in range(k // 2 + 1, k + 1))
        exact.append(float(Fraction(wins, math.comb(n, k))))
    assert expected(named("majority"), graded, ks) == pytest.approx(exact, abs=1e-12)


def test_majority_with_ten_thousand_samples_is_near_random_subsets() -> None:
    rng = np.random.default_rng(5)
    classes = np.where(rng.random(10_000) < 0.2, 0, rng.geometric(0.19, 10_000))
    classes[rng.random(10_000) < 0.1] = -1
    graded = columns_only(classes, 0)
    ks = [1, 2, 5, 16, 64, 400]
    exact = expected(named("majority"), graded, ks)
    for k, value in zip(ks, exact, strict=True):
        drawn = [rng.choice(classes, k, replace=False) for _ in range(1500)]
        counts = [np.bincount(some[some >= 0], minlength=2) if (some >= 0).any() else np.zeros(2) for some in drawn]
        wins = [(own[0] == own.max() > 0) / (own == own.max()).sum() for own in counts]
        assert value == pytest.approx(np.mean(wins), abs=4.5 * max(np.std(wins), 0.01) / math.sqrt(1500))


def columns_only(classes: np.ndarray, gold: int) -> Graded:
    """A bank without candidates, as large ones are read: only its columns are there."""
    from harness.analysis.columns import Columns

    n = len(classes)
    return Graded((), classes == gold, Columns(np.arange(n), classes, np.ones(n, int), np.arange(n, dtype=float)))


def test_all_answers_different() -> None:
    """Everything ties: the vote is one sample's accuracy, whatever k is."""
    graded = columns_only(np.arange(200), 7)
    assert expected(named("majority"), graded, [1, 2, 32, 100, 199, 200]) == pytest.approx([1 / 200] * 6, abs=1e-12)


@FEW
@given(ANSWERS)
def test_coverage_and_pass_hat(answers: list[str | None]) -> None:
    graded = graded_of(answers)
    right, ks = graded.correct, all_ks(graded)
    some = [over_subsets(len(answers), k, lambda places: any(right[i] for i in places)) for k in ks]
    every = [over_subsets(len(answers), k, lambda places: all(right[i] for i in places)) for k in ks]
    assert expected(named("coverage"), graded, ks) == pytest.approx(some, abs=1e-12)
    assert expected(named("pass_hat_k"), graded, ks) == pytest.approx(every, abs=1e-12)


@FEW
@given(ANSWERS, st.sampled_from([0.25, 0.3, 0.5, 0.75, 1.0]))
def test_g_pass_counts_subsets(answers: list[str | None], tau: float) -> None:
    graded = graded_of(answers)
    right, ks = graded.correct, all_ks(graded)

    def reliable(places: tuple[int, ...]) -> bool:
        return sum(right[i] for i in places) >= max(1, tau * len(places) - 1e-9)

    brute = [over_subsets(len(answers), k, reliable) for k in ks]
    assert expected(named("g_pass_k", f"tau={tau}"), graded, ks) == pytest.approx(brute, abs=1e-12)


def test_published_values() -> None:
    ten = graded_of(["4"] * 3 + ["5"] * 7)
    assert expected(named("coverage"), ten, [5]) == pytest.approx([0.916667], abs=1e-6)
    assert expected(named("coverage"), graded_of(["4"] + ["5"] * 7), [4]) == pytest.approx([0.5])
    eight = graded_of(["4"] * 5 + ["5"] * 3)
    found = [expected(named("g_pass_k", f"tau={tau}"), eight, [4])[0] for tau in (0.5, 0.75, 1)]
    assert found == pytest.approx([0.928571, 0.5, 0.071429], abs=1e-6)
    assert expected(named("mg_pass_k"), eight, [4]) == pytest.approx([0.285714], abs=1e-6)
    assert expected(named("pass_hat_k"), eight, [4]) == pytest.approx([0.071429], abs=1e-6)
    assert expected(named("mg_pass_k"), eight, [1]) == [0.0]


REDUCED = {
    "last": lambda steps: steps[-1],
    "min": min,
    "prod": math.prod,
    "mean": lambda steps: math.fsum(steps) / len(steps),
}


def by_hand_best(answers: Sequence[str | None], ranks: Sequence[float | None], places: Sequence[int]) -> float:
    """The share of the gold among the highest ranked."""
    ranked = [i for i in places if ranks[i] is not None]
    top = [i for i in ranked if ranks[i] == max(ranks[j] for j in ranked)]  # type: ignore[type-var]
    return sum(answers[i] == "4" for i in top) / len(top) if top else 0.0


@FEW
@given(ANSWERS, st.lists(STEPS, min_size=8, max_size=8), st.sampled_from(sorted(REDUCED)))
def test_best_of_n_is_the_mean_over_all_subsets(answers: list[str | None], steps: list[list[float]], how: str) -> None:
    graded = graded_of(answers, scores=steps[: len(answers)])
    ranks = [REDUCED[how](own) if own else None for own in steps]
    ks = all_ks(graded)
    brute = [over_subsets(len(answers), k, lambda places: by_hand_best(answers, ranks, places)) for k in ks]
    selector = named("best_of_n", f"aggregate={how}")
    assert expected(selector, graded, ks) == pytest.approx(brute, abs=1e-12)
    assert [plain_form(selector, graded, k) for k in ks] == pytest.approx(brute, abs=1e-12)


def test_best_of_n_takes_raw_scores_of_any_size() -> None:
    """A sigmoid would make 50 and 60 equal; ranks stay raw."""
    graded = graded_of(["5", "4", "5"], scores=[[50.0], [60.0], [-3.0]], logits=True)
    assert expected(named("best_of_n"), graded, [3]) == [1.0]


def weighted_vote(answers: Sequence[str | None], weights: Sequence[float | None], places: Sequence[int]) -> float:
    sums: dict[str, float] = defaultdict(float)
    for i in places:
        answer, weight = answers[i], weights[i]
        if answer is not None and weight is not None:
            sums[answer] += weight
    heaviest = [answer for answer, total in sums.items() if math.isclose(total, max(sums.values()), rel_tol=1e-9)]
    return ("4" in heaviest) / len(heaviest) if heaviest else 0.0


POSITIVE = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.9, 1.0]), max_size=3)


@FEW
@given(ANSWERS, st.lists(POSITIVE, min_size=8, max_size=8), st.sampled_from(sorted(REDUCED)))
def test_weighted_majority_is_near_the_mean_over_all_subsets(
    answers: list[str | None], steps: list[list[float]], how: str
) -> None:
    graded = graded_of(answers, scores=steps[: len(answers)])
    weights = [REDUCED[how](own) if own else None for own in steps]
    selector, ks = named("weighted_majority", f"aggregate={how}"), all_ks(graded)
    brute = np.array(
        [over_subsets(len(answers), k, lambda places: weighted_vote(answers, weights, places)) for k in ks]
    )
    assert selector.draws is not None
    # Five standard errors of a fraction; exact where there is only one subset.
    error = 5 * np.sqrt(brute * (1 - brute) / selector.draws) + 1e-9
    found = np.array(expected(selector, graded, ks))
    assert (np.abs(found - brute) <= np.maximum(error, 5 / selector.draws * (brute > 0) * (brute < 1))).all()
    assert found[[0, -1]] == pytest.approx(brute[[0, -1]], abs=1e-12)
    assert [plain_form(selector, graded, k) for k in ks] == pytest.approx(brute.tolist(), abs=1e-12)


def test_negative_scores_weigh_by_their_sigmoid() -> None:
    # sigmoid(2) = 0.881 beats 2 sigmoid(-1) = 0.538; the raw sum -2 would say so too, but 0.6 + 0.6 beats 0.881.
    lone, pair = graded_of(["4", "5", "5"], scores=[[2.0], [-1.0], [-1.0]], logits=True), ["5", "4", "4"]
    assert value_of_choice(named("weighted_majority"), "Q", lone) == 1.0
    # 2 sigmoid(0.4) = 1.197: raw scores would give 0.8 against 2.
    both = graded_of(pair, scores=[[2.0], [0.4], [0.4]], logits=True)
    assert value_of_choice(named("weighted_majority"), "Q", both) == 1.0
    assert expected(named("weighted_majority"), both, [3]) == [1.0]
    as_they_are = graded_of(pair, scores=[[2.0], [0.4], [0.4]])
    assert expected(named("weighted_majority"), as_they_are, [3]) == [0.0]


@FEW
@given(ANSWERS, st.data())
def test_first_and_last_finish_are_means_over_all_subsets(answers: list[str | None], data: st.DataObject) -> None:
    times = data.draw(st.lists(TIMES, min_size=len(answers), max_size=len(answers)))
    graded, ks = graded_of(answers, finished=times), list(range(1, len(answers) + 1))
    for name, sign in (("first_finish", -1), ("last_finish", 1)):
        ranks = [None if time == math.inf else sign * time for time in times]
        brute = [over_subsets(len(answers), k, functools.partial(by_hand_best, answers, ranks)) for k in ks]
        assert expected(named(name), graded, ks) == pytest.approx(brute, abs=1e-12)
        assert [plain_form(named(name), graded, k) for k in ks] == pytest.approx(brute, abs=1e-12)


def test_several_voters_who_finish_first_or_last() -> None:
    graded = graded_of(["5", "4", "4", "5", "5"], finished=[9.0, 1.0, 2.0, 3.0, 4.0])
    item = item_of(graded)
    assert values_at_k(named("first_finish", "voters=3"), [item], [5])[0, 0] == 1.0
    assert values_at_k(named("last_finish", "voters=3"), [item], [5])[0, 0] == 0.0
    assert values_at_k(named("first_finish", "voters=2"), [item], [3])[0, 0] == pytest.approx(
        over_subsets(
            5,
            3,
            lambda places: vote(
                [graded.candidates[i].answer for i in sorted(places, key=lambda i: graded.finished_s[i])[:2]]
            ),
        )
    )


def test_the_error_of_random_subsets_is_stated_where_there_is_one() -> None:
    values = np.array([[0.5, 1.0], [0.5, 0.0]])
    assert monte_carlo_se(named("majority"), values) is None
    # Two problems of variance 1/4, 200 draws each: sqrt(2 / 4 / 200) / 2.
    assert monte_carlo_se(named("weighted_majority"), values) == pytest.approx(0.025)


def test_ragged_scores_are_taken_and_reduced() -> None:
    rows = [(0.5, 0.2), (), (0.9,), (0.1, 0.4, 0.4)]
    scores = StepScores.of(rows)
    taken = scores.take(np.array([3, 1, 0]))
    assert [taken.row(i) for i in range(3)] == [rows[3], (), rows[0]]
    for how, reduce in REDUCED.items():
        want = [reduce(row) if row else math.nan for row in rows]
        assert scores.ranks(how) == pytest.approx(want, nan_ok=True)  # type: ignore[arg-type]
    raw = StepScores.of([(-1.0, 2.0), (3.0,)], logits=True)
    sigmoid = [1 / (1 + math.exp(-x)) for x in (-1.0, 2.0, 3.0)]
    assert raw.ranks("last").tolist() == [2.0, 3.0]
    assert raw.ranks("prod") == pytest.approx([sigmoid[0] * sigmoid[1], sigmoid[2]])
    assert raw.weights("min") == pytest.approx([sigmoid[0], sigmoid[2]])


@pytest.mark.parametrize("name", ["coverage", "majority", "best_of_n", "pass_hat_k", "g_pass_k", "mg_pass_k"])
def test_a_subset_larger_than_the_bank_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"1 <= k <= 2"):
        expected(named(name), graded_of(["4", "5"], scores=[[1.0], [0.5]]), [3])
