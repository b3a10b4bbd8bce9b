"""Strategies through the bench: what is stored of a search, what it is charged with, and a user's own from a file."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeClock, StepEngine, toy_task, write_plugins
from scripted import Scorer, Scripted, by_table
from test_strategies import BEAM, BEAM_SCORES, unended

from harness.analysis.bank import load_bank
from harness.analysis.summarise import summarise
from harness.budgets import Budget
from harness.checks.check import check_reference
from harness.comparisons.arms import group_runs
from harness.errors import UserError
from harness.nouns import Model, Sampling
from harness.plugins import load_selectors
from harness.progress import chooser
from harness.running.bench import Arm, Plan, bench_arm, spec_of, wishes_of
from harness.running.scoring import Asked
from harness.running.searching import Remembered, check_strategy
from harness.running.strategies import Search
from harness.storage.runs import Run, open_run

PLAN = Plan("toy", (), None, None, "latency", None, 3, Sampling(max_tokens=100))


def bench(
    path: Path, model: Model, asked: Plan, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, count: int = 2
) -> Run:
    monkeypatch.setattr("harness.plugins.load_model", lambda *_: model)
    return bench_arm(Arm("steps", "plug-in", (), path), asked, toy_task(count), chooser(True), clock)


def test_a_plan_without_a_strategy_is_what_it_was() -> None:
    arm, task = Arm("steps", "plug-in", (), Path("x")), toy_task()
    assert not [name for name in (*wishes_of(PLAN), *spec_of(arm, PLAN, task)) if name.startswith("strategy")]
    asked = replace(PLAN, strategy="beam_search", strategy_options=("width=2",))
    assert spec_of(arm, asked, task)["strategy_options"] == ["width=2"]


def test_independent_sampling_is_the_same_with_and_without_its_strategy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for name in ("", "independent"):
        engine = StepEngine(FakeClock())
        asked = replace(PLAN, strategy=name, budget=Budget(3.0))
        runs.append(bench(tmp_path / f"run{name}", engine, asked, engine.clock, monkeypatch))
    plain, through = ([row | {"spent_flops": 0, "spent_tokens": 0} for row in run.completions()] for run in runs)
    assert plain == through
    for one, other in zip(*(load_bank(run) for run in runs), strict=True):
        assert list(one.positions["seconds"]) == list(other.positions["seconds"])
        assert list(other.positions["flops"])[:2] == [90.0, 130.0]
        assert list(other.positions["tokens"])[:2] == [9, 13]
    assert [row["spent_tokens"] for row in runs[1].completions()][:3] == [9, 13, 14]
    assert all(row["spent_tokens"] is None for row in runs[0].completions())
    facts = runs[1].manifest["engine"]
    assert (facts["engine"], facts["strategy"], facts["strategy_replays"]) == ("steps", "independent", True)
    assert [run.manifest["validity"]["verdict"] for run in runs] == ["VALID", "VALID"]
    assert [arm.name for arm in group_runs(runs)[0][0].arms] == ["steps", "steps + independent"]
    assert summarise(runs[1], load_selectors(["coverage"])).model == "steps + independent"


def test_beams_that_were_given_up_are_paid_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    scorer = Scorer(clock, {**BEAM_SCORES, "First, 2 + 2 = 4.\n\nThen, 4 + 3 = 7.\n\nThe answer is 7.": 0.0})
    scorer.table |= dict.fromkeys(("a\nx", "a\nz\n1", "a\nz\n22", "a\nz\n333"), 0.5)  # type: ignore[operator]
    monkeypatch.setattr("harness.running.bench.load_judges", lambda *_: [scorer.judge()])
    monkeypatch.setattr("harness.running.bench.warm_up", lambda *_: 0.0)
    asked = replace(PLAN, samples=4, strategy="beam_search", strategy_options=("width=2",), reward_models=("table",))
    run = bench(tmp_path / "run", Scripted(clock, unended(BEAM)), asked, clock, monkeypatch, 1)
    rows = run.completions()
    assert [(row["text"], row["spent_tokens"]) for row in rows] == [
        ("a\nx", 12), ("a\nz\n1", 18), ("a\nz\n22", 20), ("a\nz\n333", 21),
    ]  # fmt: skip
    (item,) = load_bank(run)
    assert list(item.positions["tokens"]) == [12, 18, 20, 21]
    assert list(item.positions["flops"]) == [120.0, 180.0, 200.0, 210.0]
    # What is scored for the selectors is scored beside what the search asked for, and charged to them.
    assert {tuple(row["scores"]) for row in run.scores()} == {(0.5,)}
    assert run.manifest["validity"]["verdict"] == "VALID"


def test_a_vote_that_stops_early_leaves_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    asked = replace(PLAN, samples=5, strategy="self_consistency", strategy_options=("confidence=1",))
    engine = Scripted(clock, lambda text, stream: ["  4", " 4", "   4", "     5", "        5"][stream])
    run = bench(tmp_path / "run", engine, asked, clock, monkeypatch)
    reasons = [row["finish_reason"] for row in run.completions()]
    assert reasons == ["stop", "stop", "stop", "dropped", "dropped"] * 2
    assert [row["reason"] for row in run.verdicts()][3:5] == ["given up by the strategy"] * 2
    assert run.manifest["validity"] == run.manifest["validity"] | {"verdict": "VALID", "reasons": []}
    assert [row["elapsed_s"] for row in run.timing_table().to_pylist()] == [4.0, 4.0]
    begun = len(engine.asked)
    bench(tmp_path / "run", engine, asked, clock, monkeypatch)
    assert len(engine.asked) == begun


def test_a_strategy_that_goes_by_its_deadline_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    lines = {("", 0): "4", ("", 1): "x" * 50, ("x" * 8 + ">", 1): "7}…"}
    asked = replace(
        PLAN, samples=2, budget=Budget(10.0), strategy="probing", strategy_options=("close=>", "reserve=0.2")
    )
    run = bench(tmp_path / "run", Scripted(clock, by_table(lines)), asked, clock, monkeypatch, 1)
    (warning,) = [each for each in run.manifest["validity"]["warnings"] if "strategy" in each]
    assert warning.startswith("the strategy probing goes by its deadline")


def test_an_interrupted_search_begins_again_and_every_sample_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, asked = StepEngine(FakeClock()), replace(PLAN, strategy="independent")
    monkeypatch.setattr("harness.running.bench.warm_up", lambda *_: 0.0)
    engine.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        bench(tmp_path / "run", engine, asked, engine.clock, monkeypatch)
    engine.stop_after = None
    run = bench(tmp_path / "run", engine, asked, engine.clock, monkeypatch)
    rows = {(row["problem_id"], row["sample_index"]): row for row in run.completions()}
    assert len(rows) == len(run.completions()) == 6
    # The second search of the first problem begins on a clock that stands where the first one's last row ended.
    last = rows["toy/0", 2]
    stored = max(row["finished_s"] for key, row in rows.items() if key[0] == "toy/0" and key[1] < 2)
    assert last["finished_s"] in (stored + 4.5, 4.5)
    assert run.manifest["validity"]["verdict"] == "VALID"


def test_what_cannot_be_is_refused_beforehand() -> None:
    with pytest.raises(UserError, match="searches one problem at a time; use --protocol latency, not throughput"):
        check_strategy(replace(PLAN, strategy="dvts", protocol="throughput"))
    with pytest.raises(UserError, match="'width=2' is an option of no strategy; add --strategy NAME"):
        check_strategy(replace(PLAN, strategy_options=("width=2",)))
    check_strategy(PLAN)


def test_a_guided_strategy_needs_a_reward_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = StepEngine(FakeClock())
    with pytest.raises(UserError, match="the strategy rebase is guided by a reward model; add --reward-model R"):
        bench(tmp_path / "run", engine, replace(PLAN, strategy="rebase"), engine.clock, monkeypatch)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_what_a_search_has_scored_is_not_scored_again() -> None:
    clock = FakeClock()
    scorer = Scorer(clock, {"a": 0.1, "b": 0.2})
    judge = scorer.judge()
    judge.model = Remembered(judge.model)

    def score(*texts: str) -> list[list[float]]:
        asked = [Asked("p", place, "Q", text, 10) for place, text in enumerate(texts)]
        return [row["scores"] for row in judge.score(asked)]

    assert score("a") == [[0.1]]
    assert score("a", "b") == [[0.1], [0.2]]
    assert score("a") == [[0.1]]
    assert scorer.asked == [["a"], ["b"]]
    # What cost nothing tells nothing of what the next call may cost.
    assert judge.costs == [(10, 1.0, 0.0), (20, 1.0, 0.0)]
    assert judge.model.score("another question", ["a"]) == [[0.1]]
    assert scorer.asked[-1] == ["a"]


OWN = '''

def longer_of(search, *, tries: int = 2):
    """Writes a few replies for every candidate and keeps the longest."""
    for index in range(search.samples):
        streams = range(index * tries, (index + 1) * tries)
        drafts = list(search.extend([search.begin()] * tries, streams=streams))
        if drafts:
            yield max(drafts, key=lambda draft: len(draft.text))


def forgetful(search):
    """Gives nothing."""
    return iter(())
'''


def test_a_strategy_of_ten_lines_in_a_users_file(tmp_path: Path) -> None:
    path = write_plugins(tmp_path)
    path.write_text(path.read_text() + OWN)
    ttc = [str(Path(sys.executable).with_name("ttc"))]
    arguments = [
        "bench", "./mine.py:adder", "--task", "./mine.py:sums", "--samples", "3", "--strategy", "./mine.py:longer_of",
        "-X", "tries=3", "--out", "run", "-q", "--selector", "coverage",
    ]  # fmt: skip
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [*ttc, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "./mine.py:adder + longer_of" in " ".join(done.stdout.split())
    run = open_run(tmp_path / "run")
    assert [row["finish_reason"] for row in run.completions()] == ["stop"] * 12
    # Nine replies of two tokens for three candidates: the third has all of them on its bill.
    assert [row["spent_tokens"] for row in run.completions()][:3] == [6, 12, 18]
    assert run.manifest["spec"]["strategy"] == "./mine.py:longer_of"


def test_check_judges_a_users_strategy(tmp_path: Path) -> None:
    path = write_plugins(tmp_path)
    path.write_text(path.read_text() + OWN)
    assert all(finding.ok for finding in check_reference(f"{path}:longer_of", ["tries=2"], None, None))
    broken = [finding.what for finding in check_reference(f"{path}:forgetful", [], None, None) if not finding.ok]
    assert broken == ["it finds candidates"]
    for name in ("beam_search", "probing"):
        assert all(finding.ok for finding in check_reference(name, [], None, None))


def test_answers_are_classed_by_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int | None]] = []

    def watching(search: Search) -> object:
        drafts = list(search.extend([search.begin()] * search.samples))
        seen.append(search.classes(drafts))
        return iter(drafts)

    monkeypatch.setattr("harness.running.searching.load_function", lambda *_: watching)
    engine = StepEngine(FakeClock())
    bench(tmp_path / "run", engine, replace(PLAN, strategy="watching"), engine.clock, monkeypatch, 1)
    assert seen[-1] == [0, 1, 0]
