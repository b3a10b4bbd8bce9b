"""Runs against runs: pairing, pooling, refusing, and every number of a comparison counted another way."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import typer
from recorded_runs import write_run
from scipy import stats
from typer.testing import CliRunner

from harness import plugins
from harness.budgets import Budget
from harness.cli import compare as compare_command
from harness.comparisons.comparing import compare_runs
from harness.comparisons.comparison import Comparison, as_document, spelled
from harness.errors import UserError
from harness.nouns import Candidate, Prompt, Selector
from harness.storage.runs import Run

COVERAGE, MAJORITY, FIRST = (plugins.load_selector(name) for name in ("coverage", "majority", "first"))
SEEDED = {"temperature": 0.8, "top_p": 1.0, "top_k": 0, "max_tokens": 64, "stop": []}


def bank(seed: int, problems: int = 30, samples: int = 4, rate: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).random((problems, samples)) < rate


def times(problems: int, samples: int, step_s: float) -> np.ndarray:
    """Sample i of every problem ends at (i + 1) steps."""
    return np.tile(step_s * np.arange(1, samples + 1), (problems, 1))


def compare(*runs: Run, selectors: tuple[Selector, ...] = (COVERAGE,), budgets: tuple[float, ...] = ()) -> Comparison:
    return compare_runs(runs, selectors, [Budget(x) for x in budgets], resamples=500)


def test_values_at_a_budget_are_those_of_what_had_finished(tmp_path: Path) -> None:
    one, other = bank(0), bank(1)
    a = write_run(tmp_path, "a", one, times(30, 4, 2.0))
    b = write_run(tmp_path, "b", other, times(30, 4, 1.0))
    (task,) = compare(a, b, budgets=(1.0, 2.0, 4.0)).tasks
    (result,) = task.pairs[0].selectors
    # By 1, 2 and 4 s the slow arm has 0, 1 and 2 samples, the fast one 1, 2 and 4.
    for cell, slow, fast in zip(result.budgets, (0, 1, 2), (1, 2, 4), strict=True):
        assert cell.a == pytest.approx(one[:, :slow].any(axis=1).mean())
        assert cell.b == pytest.approx(other[:, :fast].any(axis=1).mean())
        assert cell.difference == pytest.approx(cell.b - cell.a)
        assert cell.low <= cell.difference <= cell.high
        gains = other[:, :fast].any(axis=1).astype(float) - one[:, :slow].any(axis=1)
        assert cell.mde == pytest.approx(2.801585 * stats.sem(gains), rel=1e-6)
        gained, lost = (gains > 0).sum(), (gains < 0).sum()
        assert cell.mcnemar_p == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)
        assert (cell.finished_a, cell.finished_b) == (slow, fast)
    last = result.budgets[-1]
    assert (last.idle_a, last.idle_b) == (0.0, 1.0)
    assert last.per_solved_b == pytest.approx(4.0 / last.b)
    assert result.budgets[0].per_solved_a == math.inf


def test_budgets_are_halves_of_the_common_end_unless_asked_for(tmp_path: Path) -> None:
    a = write_run(tmp_path, "a", bank(0, samples=16), times(30, 16, 1.0))
    b = write_run(tmp_path, "b", bank(1, samples=16), times(30, 16, 0.5))
    found = compare(a, b)
    (result,) = found.tasks[0].pairs[0].selectors
    # The fast arm's last sample ends at 8 s, the first of all at 0.5 s.
    assert [cell.x for cell in result.budgets] == [1.0, 2.0, 4.0, 8.0]
    assert (result.start, result.end) == (0.5, 8.0)
    assert found.rule.startswith("the end of the range that all arms have in common")
    swapped = compare(b, a).tasks[0].pairs[0].selectors[0]
    assert [cell.x for cell in swapped.budgets] == [1.0, 2.0, 4.0, 8.0]
    assert [cell.difference for cell in swapped.budgets] == pytest.approx([-cell.difference for cell in result.budgets])


def test_a_run_without_times_is_compared_at_equal_numbers_of_samples(tmp_path: Path) -> None:
    one, other = bank(0, samples=8), bank(1, samples=8, rate=0.7)
    a, b = write_run(tmp_path, "a", one), write_run(tmp_path, "b", other, times(30, 8, 1.0))
    (result,) = compare(a, b, selectors=(COVERAGE,)).tasks[0].pairs[0].selectors
    assert result.axis == "k"
    assert [cell.x for cell in result.budgets] == [1, 2, 4, 8]
    for cell in result.budgets:
        missed = stats.hypergeom.pmf(0, 8, one.sum(axis=1), int(cell.x))
        assert cell.a == pytest.approx(1 - missed.mean())
    with pytest.raises(
        UserError, match=r"'a' did not record seconds, so it has no accuracy at the budget 3s; leave out"
    ):
        compare(a, b, budgets=(3.0,))


def test_one_sample_and_the_coverage_law_are_the_formulas_results(tmp_path: Path) -> None:
    one, other = bank(0, 40, 32, 0.3), bank(1, 40, 32, 0.4)
    found = compare(write_run(tmp_path, "a", one), write_run(tmp_path, "b", other))
    sample = found.tasks[0].pairs[0].one_sample
    # Laplace's rule in each problem; the variance of its beta distribution, averaged over problems.
    for mean, deviation, right in ((sample.a, sample.deviation_a, one), (sample.b, sample.deviation_b, other)):
        beta = stats.beta(1 + right.sum(axis=1), 1 + 32 - right.sum(axis=1))
        assert mean == pytest.approx(beta.mean().mean())
        assert deviation == pytest.approx(math.sqrt(beta.var().sum()) / 40)
    law = found.tasks[0].arms[0].coverage_law
    assert law is not None
    assert law.held_out_error is not None
    assert law.at(np.array([1]))[0] == pytest.approx(one.mean(), abs=0.05)


def test_every_p_value_is_adjusted_for_all_rows_of_the_task(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, f"r{i}", bank(i, rate=0.3 + 0.2 * i), times(30, 4, 1.0)) for i in range(3)]
    (task,) = compare(*runs, selectors=(COVERAGE, MAJORITY), budgets=(1.0, 4.0)).tasks
    cells = [cell for pair in task.pairs for result in pair.selectors for cell in result.budgets]
    assert len(cells) == 2 * 2 * 2
    ordered = sorted(cells, key=lambda cell: cell.p_value)
    expected = np.maximum.accumulate([min(1.0, (8 - i) * cell.p_value) for i, cell in enumerate(ordered)])
    assert sorted(cell.p_holm for cell in cells) == pytest.approx(expected.tolist())
    assert [(pair.a, pair.b) for pair in task.pairs] == [("r0", "r1"), ("r0", "r2")]


def test_runs_that_differ_only_in_the_seed_are_one_arm(tmp_path: Path) -> None:
    banks = [bank(i) for i in range(3)]
    seeds = [
        write_run(
            tmp_path, f"s{i}", one, times(30, 4, 1.0), model="m", sampling={**SEEDED, "seed": i}, imported_from=""
        )
        for i, one in enumerate(banks)
    ]
    other = write_run(tmp_path, "other", bank(9), times(30, 4, 1.0))
    (task,) = compare(*seeds, other, budgets=(2.0,)).tasks
    assert [(arm.name, arm.runs, arm.seeds) for arm in task.arms] == [
        ("m", ("s0", "s1", "s2"), (0, 1, 2)),
        ("other", ("other",), (None,)),
    ]
    (cell,) = task.pairs[0].selectors[0].budgets
    assert cell.a == pytest.approx(np.mean([one[:, :2].any(axis=1).mean() for one in banks]))
    assert cell.mcnemar_p is None
    with pytest.raises(UserError, match="nothing to compare: s0, s1 are one arm, m: they differ only in the seed"):
        compare(*seeds[:2])


def test_only_shared_problems_are_paired(tmp_path: Path) -> None:
    one, other = bank(0, 5), bank(1, 4)
    a = write_run(tmp_path, "a", one, times(5, 4, 1.0), problems=["v", "w", "x", "y", "z"])
    b = write_run(tmp_path, "b", other, times(4, 4, 1.0), problems=["z", "x", "q", "v"])
    (task,) = compare(a, b, budgets=(1.0,)).tasks
    assert task.problems == 3
    assert task.notes[0] == "3 problems are in every run and are compared; up to 2 are not"
    (cell,) = task.pairs[0].selectors[0].budgets
    assert cell.a == pytest.approx(one[[0, 2, 4], 0].mean())
    assert cell.b == pytest.approx(other[[3, 1, 0], 0].mean())


def test_wrong_combinations_are_refused_with_the_reason(tmp_path: Path) -> None:
    a = write_run(tmp_path, "a", bank(0), times(30, 4, 1.0))
    b = write_run(tmp_path, "b", bank(1), times(30, 4, 1.0), gold="9")
    with pytest.raises(UserError, match=r"'b' cannot be compared with 'a': the gold answer of problem 'p000' differs"):
        compare(a, b)
    c = write_run(tmp_path, "c", bank(1), times(30, 4, 1.0), task="other")
    with pytest.raises(UserError, match="'c' cannot be compared with 'a': task other against plain"):
        compare(a, c)
    d = write_run(tmp_path, "d", bank(1), times(30, 4, 1.0), protocol="throughput")
    with pytest.raises(UserError, match="'d' cannot be compared with 'a': protocol throughput against latency"):
        compare(a, d)
    e = write_run(tmp_path, "e", bank(1), times(30, 4, 1.0), problems=[f"q{i}" for i in range(30)])
    with pytest.raises(UserError, match="'e' cannot be compared with 'a': they have no problem in common"):
        compare(a, e)
    with pytest.raises(UserError, match=r"the run '.*a' is given twice; name each run once"):
        compare(a, a)


def test_runs_of_several_tasks_are_kept_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, f"r{i}", bank(i), times(30, 4, 1.0)) for i in range(2)]
    others = [write_run(tmp_path, f"o{i}", bank(i), times(30, 4, 1.0), task="other") for i in range(2)]
    lonely = write_run(tmp_path, "z", bank(7), times(30, 4, 1.0), task="third")
    found = compare(runs[0], others[0], lonely, runs[1], others[1], budgets=(2.0,))
    assert [(task.task, [arm.name for arm in task.arms]) for task in found.tasks] == [
        ("plain", ["r0", "r1"]),
        ("other", ["o0", "o1"]),
    ]
    assert found.left_out == ("'z' cannot be compared with 'r0': task third against plain",)


def test_a_budget_past_a_runs_own_is_refused(tmp_path: Path) -> None:
    a = write_run(tmp_path, "a", bank(0), times(30, 4, 1.0), budget="5s")
    b = write_run(tmp_path, "b", bank(1), times(30, 4, 1.0), budget="8s")
    with pytest.raises(UserError, match="the budget 6s goes past the 5s that 'a' was given"):
        compare(a, b, budgets=(6.0,))
    (result,) = compare(a, b).tasks[0].pairs[0].selectors
    assert result.end == 5.0
    assert "a had finished all its 4 samples on half of the problems by 4 s" in "".join(compare(a, b).tasks[0].notes)


def test_invalid_runs_and_unequal_arms_are_told(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path, name, bank(0), times(30, 4, 1.0)) for name in "ab")
    b.manifest["validity"] = {"verdict": "INVALID", "reasons": ["3 samples are missing"], "mend": ["run again"]}
    b.manifest["engine"] = {"engine": "another"}
    b.save()
    (task,) = compare(a, b).tasks
    assert task.unfair[0] == "'b' is INVALID: 3 samples are missing"
    assert "differ in engine" in task.unfair[1]
    assert task.arms[1].validity == "INVALID"


def test_a_bound_that_needs_the_truth_is_not_on_the_front(tmp_path: Path) -> None:
    a = write_run(tmp_path, "a", bank(0, 60, rate=0.9), times(60, 4, 1.0))
    b = write_run(tmp_path, "b", bank(1, 60, rate=0.2), times(60, 4, 2.0))
    (task,) = compare(a, b, selectors=(COVERAGE, FIRST), budgets=(2.0, 4.0)).tasks
    assert {place.selector for place in task.front} == {"first"}
    cheap = next(place for place in task.front if (place.arm, place.x) == ("a", 2.0))
    assert (cheap.on_front, cheap.frequency) == (True, 1.0)
    assert not any(place.on_front for place in task.front if place.arm == "b")


def test_the_crossover_of_a_fast_weak_arm_and_a_slow_strong_one(tmp_path: Path) -> None:
    # The strong arm is always right but its first sample ends at 4 s; the weak one solves half the problems by 1 s.
    strong, weak = np.ones((40, 2), bool), np.tile(np.arange(40)[:, None] % 2 == 0, (1, 8))
    a = write_run(tmp_path, "strong", strong, times(40, 2, 4.0))
    b = write_run(tmp_path, "weak", weak, times(40, 8, 1.0))
    (result,) = compare(a, b, selectors=(FIRST,)).tasks[0].pairs[0].selectors
    assert result.crossover.winner == "a"
    assert result.crossover.x == pytest.approx(4.0, rel=0.04)
    assert result.area is not None
    # From 1 to 8 s: the weak arm is at 1/2 throughout, the strong one at 1 for the upper third of the log range.
    assert result.area.b == pytest.approx(0.5)
    assert result.area.a == pytest.approx(1 / 3, abs=0.02)
    half = next(level for level in result.speed_ups if level.level == pytest.approx(0.5))
    assert half.factor == pytest.approx(4.0, rel=0.04)
    top = result.speed_ups[-1]
    assert top.level == pytest.approx(1.0)
    assert (top.b, top.factor, top.reason) == (None, None, "b never reaches 1.000")
    assert "strong overtakes weak at" in result.sentence


def test_bins_of_difficulty_hold_all_problems(tmp_path: Path) -> None:
    right = np.arange(8)[None, :] < np.repeat(np.arange(5) * 2, 8)[:, None]
    a, b = (write_run(tmp_path, name, right, times(40, 8, 1.0)) for name in "ab")
    (result,) = compare(a, b, selectors=(FIRST,)).tasks[0].pairs[0].selectors
    assert [(one.difficulty, one.problems, one.a, one.b) for one in result.bins] == [
        (1, 8, 1, 1),
        (2, 8, 1, 1),
        (3, 8, 1, 1),
        (4, 8, 1, 1),
        (5, 8, 0, 0),
    ]


def test_sentences_say_who_leads_and_how_surely(tmp_path: Path) -> None:
    a = write_run(tmp_path, "slow", bank(0, 80, 4, 0.4), times(80, 4, 2.0))
    b = write_run(tmp_path, "quick", bank(1, 80, 8, 0.4), times(80, 8, 0.5))
    (result,) = compare(a, b).tasks[0].pairs[0].selectors
    assert result.sentence.startswith("coverage: quick is ahead at every budget shown (at 4 s by ")
    assert "adjusted p < 0.05" not in result.sentence
    same = compare(a, write_run(tmp_path, "like", bank(2, 80, 4, 0.4), times(80, 4, 2.0)), budgets=(8.0,))
    (other,) = same.tasks[0].pairs[0].selectors
    assert other.sentence.startswith("coverage: no difference is sure at 8 s, where 80 problems would show one of ")


def test_budgets_are_spelled_for_people() -> None:
    assert spelled("seconds", 0.05) == "50 ms"
    assert spelled("seconds", 12.345) == "12.3 s"
    assert spelled("seconds", 4000.0) == "4000 s"
    assert spelled("tokens", 999.6) == "1000 tokens"
    assert spelled("flops", 2e15) == "2 PFLOP"
    assert spelled("tokens", 4096) == "4096 tokens"
    assert spelled("k", 8) == "8 samples"


def test_the_document_is_json_without_infinities(tmp_path: Path) -> None:
    a = write_run(tmp_path, "a", np.zeros((10, 2), bool), times(10, 2, 2.0))
    b = write_run(tmp_path, "b", bank(1, 10, 2), times(10, 2, 1.0))
    document = json.loads(json.dumps(as_document(compare(a, b)), allow_nan=False))
    cell = document["tasks"][0]["pairs"][0]["selectors"][0]["budgets"][0]
    assert cell["per_solved_a"] is None
    assert set(document) == {"tasks", "left_out", "resamples", "level", "rule"}


def run_command(*arguments: str) -> str:
    app = typer.Typer()
    compare_command.add_to(app)
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_prints_tables_and_json(tmp_path: Path) -> None:
    a = write_run(tmp_path / "runs", "teacher", bank(0, samples=8), times(30, 8, 1.0))
    b = write_run(tmp_path / "runs", "student", bank(1, samples=8), times(30, 8, 0.5))
    printed = run_command(str(a.path), str(b.path), "--budget", "2s", "--selector", "majority")
    assert "plain: 30 problems, latency protocol" in printed
    assert "A  teacher: VALID, 8 samples" in printed
    assert "majority     2 s" in printed
    assert "Pareto set" in printed
    document = json.loads(run_command(str(a.path), str(b.path), "--json"))
    (task,) = document["tasks"]
    assert [arm["name"] for arm in task["arms"]] == ["teacher", "student"]
    assert {result["selector"] for result in task["pairs"][0]["selectors"]} >= {"coverage", "majority", "first"}
    # A folder of runs stands for the runs in it, in order of name.
    folder = json.loads(run_command(str(tmp_path / "runs"), "--json", "--budget", "2s"))
    assert [arm["name"] for arm in folder["tasks"][0]["arms"]] == ["student", "teacher"]


def test_score_reading_selectors_are_compared_where_every_run_has_scores(tmp_path: Path) -> None:
    def highest(prompt: Prompt, candidates: Sequence[Candidate]) -> Candidate | None:
        return max(candidates, key=lambda one: one.scores, default=None)

    best = Selector("best", select=highest, reads_scores=True)
    right, rewards = bank(0), np.random.default_rng(3).random((30, 4))
    a = write_run(tmp_path, "a", right, times(30, 4, 1.0), rewards=rewards)
    b = write_run(tmp_path, "b", right, times(30, 4, 1.0), rewards=-rewards)
    (task,) = compare(a, b, selectors=(best,), budgets=(4.0,)).tasks
    (result,) = task.pairs[0].selectors
    assert result.selector == "best by recorded"
    (cell,) = result.budgets
    assert cell.a == pytest.approx(right[np.arange(30), rewards.argmax(axis=1)].mean())
    assert cell.b == pytest.approx(right[np.arange(30), rewards.argmin(axis=1)].mean())
    c = write_run(tmp_path, "c", right, times(30, 4, 1.0))
    with pytest.raises(UserError, match="add scores with `ttc score RUN --reward-model R`"):
        compare(a, c, selectors=(best,))
    with pytest.raises(UserError, match=r"not every run has scores by 'r'; all have those of recorded; add them"):
        compare_runs([a, b], [best], reward_models=["r"])
    (mixed,) = compare(a, c, selectors=(best, FIRST), budgets=(4.0,)).tasks
    assert mixed.notes == ("best by recorded is not compared: not every run has its scores",)
    assert [result.selector for result in mixed.pairs[0].selectors] == ["first"]


def test_seconds_of_all_problems_together_are_spent_once(tmp_path: Path) -> None:
    ends = np.arange(1.0, 41.0).reshape(10, 4)
    a, b = (
        write_run(tmp_path, name, bank(seed, 10, rate=0.6), ends, protocol="throughput")
        for seed, name in enumerate("ab")
    )
    (task,) = compare(a, b, budgets=(20.0,)).tasks
    (cell,) = task.pairs[0].selectors[0].budgets
    # By 20 s the first five problems have all their samples, the others none.
    assert (cell.finished_a, cell.idle_a) == (2.0, 0.5)
    assert cell.a == pytest.approx(bank(0, 10, rate=0.6)[:5].any(axis=1).sum() / 10)
    assert cell.per_solved_a == pytest.approx(20.0 / (10 * cell.a))
