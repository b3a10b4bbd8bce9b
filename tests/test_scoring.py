"""Reward models at work: batches while sampling, what is charged, deadlines, storing, plug-ins, `ttc score`."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import FakeClock, StepEngine, toy_task
from typer.testing import CliRunner

from harness import plugins
from harness.budgets import Budget, Deadline
from harness.checks.check import check_reference
from harness.errors import UserError
from harness.nouns import Completion, Prompt, Request, Sampling
from harness.progress import chooser
from harness.running.bench import Arm, Plan, bench_arm
from harness.running.rescoring import score_runs
from harness.running.scoring import Asked, Judge, check_scores
from harness.storage.runs import Run, open_run


class StepCounter:
    """Scores a text by its number of words, a second for each call and a tenth for each completion."""

    name = "counter"
    facts = {"kind": "fake"}  # noqa: RUF012

    def __init__(
        self, clock: FakeClock, *, call_s: float = 1.0, each_s: float = 0.1, rows: int = 2, flops_each: float = 1000.0
    ) -> None:
        self.clock, self.call_s, self.each_s, self.flops_each = clock, call_s, each_s, flops_each
        self.max_batch_size, self.flops = rows, 0.0
        self.calls: list[tuple[Prompt, tuple[str, ...]]] = []
        self.fails: Callable[[Sequence[str]], bool] = lambda texts: False

    def score(self, prompt: Prompt, completions: Sequence[str]) -> list[list[float]]:
        self.clock.sleep(self.call_s + self.each_s * len(completions))
        self.flops += self.flops_each * len(completions)
        if self.fails(completions):
            raise RuntimeError("out of memory")
        self.calls.append((prompt, tuple(completions)))
        return [[float(len(text.split()))] for text in completions]


class Bench:
    """A fake engine and a fake reward model on one clock."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.clock = path, FakeClock()
        self.engine = StepEngine(self.clock)
        self.counter = StepCounter(self.clock)
        monkeypatch.setattr("harness.plugins.load_model", lambda *_: self.engine)
        monkeypatch.setattr("harness.plugins.load_reward_model", lambda *_: self.counter)

    def run(
        self, budget: Budget | None = None, protocol: str = "latency", samples: int = 3, count: int = 1,
        judges: tuple[str, ...] = ("zoo/orm",),
    ) -> Run:  # fmt: skip
        asked = Plan("toy", (), None, None, protocol, budget, samples, Sampling(max_tokens=100), judges)
        return bench_arm(Arm("steps", "plug-in", (), self.path), asked, toy_task(count), chooser(True), self.clock)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path / "run", monkeypatch)


def finished(run: Run) -> dict[int, Any]:
    return {row["sample_index"]: (row["finish_reason"], row["finished_s"]) for row in run.completions()}


def scored(run: Run) -> dict[int, Any]:
    return {row["sample_index"]: (row["scores"], row["scored_s"]) for row in run.scores()}


def test_completions_are_scored_while_the_others_are_written(bench: Bench) -> None:
    run = bench.run()
    # Steps of 0.5 s; texts of 3, 5 and 9 words and an answer. Sample 0 ends at 1.5: one waits and two are written.
    # Sample 1 ends at 2.5: two wait, one is written, so both are scored, 1.2 s. Sample 2 needs 4 steps more.
    assert finished(run) == {0: ("stop", 1.5), 1: ("stop", 2.5), 2: ("stop", pytest.approx(5.7))}
    assert scored(run) == {0: ([4.0], pytest.approx(3.7)), 1: ([6.0], pytest.approx(3.7)),
                           2: ([10.0], pytest.approx(6.8))}  # fmt: skip
    costs = {row["sample_index"]: (row["reward_s"], row["reward_flops"]) for row in run.scores()}
    # A batch's cost is shared out by tokens, 3 and 5 of 8.
    assert costs[0] == pytest.approx((1.2 * 3 / 8, 2000 * 3 / 8))
    assert costs[1] == pytest.approx((1.2 * 5 / 8, 2000 * 5 / 8))
    assert costs[2] == pytest.approx((1.1, 1000.0))
    assert run.timing()[0]["elapsed_s"] == pytest.approx(6.8)
    (entry,) = run.manifest["reward_models"]
    assert (entry["name"], entry["options"], entry["model"]) == ("zoo/orm", [], {"kind": "fake"})
    (use,) = entry["uses"]
    assert (use["scored"], use["late"], use["failed"], use["sitting"]) == (3, 0, 0, 0)
    assert (use["score_s"], use["flops"]) == (pytest.approx(2.3), 3000.0)
    # The warm-up, a full batch, is outside.
    assert use["warmup_s"] == pytest.approx(1.2)
    assert run.spec["reward_models"] == ["zoo/orm"]


def test_a_deadline_inside_scoring_keeps_every_completion_and_leaves_the_rest_unscored(bench: Bench) -> None:
    # The warm-up takes no time, so that nothing tells how long a batch takes; then the deadline strikes in the first.
    bench.counter.call_s = bench.counter.each_s = 0.0
    bench.engine.lengths = (3, 5, 9)
    slow = replace_after_warm_up(bench)
    run = bench.run(Budget(3.0))
    assert slow == [True]
    assert finished(run) == {0: ("stop", 1.5), 1: ("stop", 2.5), 2: ("deadline", pytest.approx(3.7))}
    assert scored(run) == {}
    (use,) = run.manifest["reward_models"][0]["uses"]
    assert (use["scored"], use["late"]) == (0, 2)


def replace_after_warm_up(bench: Bench) -> list[bool]:
    """Make scoring slow from the first real completion on."""
    told: list[bool] = []

    def look(texts: Sequence[str]) -> bool:
        if not told and not texts[0].startswith("First"):
            told.append(True)
            bench.clock.sleep(1.2)
        return False

    bench.counter.fails = look
    return told


def test_nothing_is_begun_that_would_end_after_the_deadline(bench: Bench) -> None:
    # Two wait at 2.5 s and take 1.2 s by the warm-up's word: with the margin that is past 3.6 s, and one alone too.
    run = bench.run(Budget(3.6))
    assert scored(run) == {}
    assert finished(run) == {0: ("stop", 1.5), 1: ("stop", 2.5), 2: ("deadline", 4.0)}
    assert bench.counter.calls[1:] == []
    assert run.manifest["validity"]["verdict"] == "VALID"


def test_what_was_in_time_stays_scored(bench: Bench) -> None:
    run = bench.run(Budget(4.0))
    assert scored(run) == {0: ([4.0], pytest.approx(3.7)), 1: ([6.0], pytest.approx(3.7))}
    assert finished(run)[2] == ("deadline", pytest.approx(4.2))


def test_flops_of_scoring_are_charged_and_counted_ahead(bench: Bench) -> None:
    bench.counter.call_s = bench.counter.each_s = 0.0
    # 3 rows of 10 FLOPs a step: 120 after 4 steps for sample 0's end ... 5 steps: 30 + 30 + 30 + 20 + 20 = 130.
    within = bench.run(Budget(2600.0, "flops"))
    assert set(scored(within)) == {0, 1}
    assert within.timing()[0]["spent"] == 130 + 2000 + 4 * 10
    assert finished(within)[2][0] == "stop"


def test_a_flop_budget_that_scoring_would_break_is_kept_for_writing(bench: Bench) -> None:
    bench.counter.call_s = bench.counter.each_s = 0.0
    run = bench.run(Budget(900.0, "flops"))
    assert scored(run) == {}
    assert {reason for reason, _ in finished(run).values()} == {"stop"}
    assert run.timing()[0]["spent"] == 170


def test_a_token_budget_does_not_feel_scoring(bench: Bench) -> None:
    run = bench.run(Budget(1000, "tokens"))
    assert set(scored(run)) == {0, 1, 2}
    assert run.timing()[0]["spent"] == 17


def test_throughput_scores_several_problems_in_a_batch_and_calls_them_one_by_one(bench: Bench) -> None:
    run = bench.run(protocol="throughput", samples=1, count=4)
    assert {(row["problem_id"], row["scores"][0]) for row in run.scores()} == {(f"toy/{i}", 4.0) for i in range(4)}
    asked = [(prompt, len(texts)) for prompt, texts in bench.counter.calls[1:]]
    assert asked == [(f"What is 2 + 2, for the {i}th time?", 1) for i in range(4)]


def test_full_batches_in_the_thick_and_half_of_the_rest_near_the_end(bench: Bench) -> None:
    bench.counter.max_batch_size = 4
    bench.counter.call_s = bench.counter.each_s = 0.0
    bench.engine.lengths = tuple(range(1, 13))
    bench.run(samples=12)
    # 4 of 12, 4 of the 8 left; then 2 wait when 2 are written, 1 when 1 is, and the last.
    assert [len(texts) for _, texts in bench.counter.calls[1:]] == [4, 4, 2, 1, 1]


def test_an_exception_is_noted_and_the_run_goes_on(bench: Bench) -> None:
    bench.counter.fails = lambda texts: any(len(text.split()) == 10 for text in texts)
    run = bench.run()
    assert set(scored(run)) == {0, 1}
    assert len(run.completions()) == 3
    (use,) = run.manifest["reward_models"][0]["uses"]
    assert (use["scored"], use["failed"], use["errors"]) == (2, 1, {"RuntimeError: out of memory": 1})
    # It did take its time.
    assert run.timing()[0]["elapsed_s"] == pytest.approx(6.8)


@pytest.mark.parametrize(
    ("found", "told"),
    [([[1.0]], "it gave 1 scores for 2 completions"), ([[1.0], [float("nan")]], "no finite number")],
)
def test_scores_that_are_none_are_refused(found: list[list[float]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_scores(found, 2)


def test_numbers_and_arrays_of_any_kind_are_scores() -> None:
    import numpy as np

    assert check_scores([1, np.float32(0.5), (0.25, 1), np.array([2.0])], 4) == [[1.0], [0.5], [0.25, 1.0], [2.0]]


def interrupt_after(bench: Bench, sample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the first real call of the engine end by Ctrl-C once it has given this sample."""
    generate = bench.engine.generate

    def stop(requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        for row in generate(requests, deadline):
            yield row
            if row.sample_index == sample and requests[0].sampling.max_tokens == 100:
                monkeypatch.setattr(bench.engine, "generate", generate)
                raise KeyboardInterrupt

    monkeypatch.setattr(bench.engine, "generate", stop)


def test_an_interrupted_scope_scores_what_it_still_owes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(bench, 0, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    first = open_run(bench.path)
    assert (len(first.completions()), first.scores()) == (1, [])
    run = bench.run()
    assert set(scored(run)) == {0, 1, 2}
    assert len(run.scores()) == 3
    assert [use["sitting"] for use in run.manifest["reward_models"][0]["uses"]] == [0, 1]


def test_a_sitting_goes_on_after_the_time_of_the_last_scores(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(bench, 1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    assert scored(open_run(bench.path)) == {0: ([4.0], pytest.approx(3.7)), 1: ([6.0], pytest.approx(3.7))}
    # Sample 2 begins again where the scores were there, and takes 9 steps.
    assert finished(bench.run())[2] == ("stop", pytest.approx(3.7 + 4.5))


def test_another_reward_model_is_another_run_and_none_is_what_it_was(bench: Bench) -> None:
    bench.run()
    with pytest.raises(UserError, match=r"holds a run with reward_models = \['zoo/orm'\]"):
        bench.run(judges=())
    plain = replace(Plan("toy", (), None, None, "latency", None, 3, Sampling()), reward_models=())
    from harness.running.bench import wishes_of

    assert "reward_models" not in wishes_of(plain)


def test_what_the_deadline_cut_and_what_failed_is_not_scored(bench: Bench) -> None:
    run = bench.run(Budget(4.0))
    told = score_runs([run], ["mine"], [], chooser(True), bench.clock)
    assert (told[0]["scored"], told[0]["already"]) == (2, 0)
    assert {row["sample_index"] for row in run.scores() if row["reward_model"] == "mine"} == {0, 1}


def test_scoring_afterwards_is_done_once_and_gone_on_with(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench.run(judges=(), count=3)
    monkeypatch.setattr("harness.running.rescoring.STORED_AT_ONCE", 2)
    stop = {"after": 3}

    def kill(texts: Sequence[str]) -> bool:
        if len(bench.counter.calls) > stop["after"]:
            raise KeyboardInterrupt
        return False

    bench.counter.fails = kill
    with pytest.raises(KeyboardInterrupt):
        score_runs([run], ["zoo/orm"], [], chooser(True), bench.clock)
    kept = open_run(bench.path).scores()
    assert 0 < len(kept) < 9
    stop["after"] = 1000
    (told,) = score_runs([open_run(bench.path)], ["zoo/orm"], [], chooser(True), bench.clock)
    assert (told["already"], told["scored"]) == (len(kept), 9 - len(kept))
    calls = len(bench.counter.calls)
    (told,) = score_runs([open_run(bench.path)], ["zoo/orm"], [], chooser(True), bench.clock)
    assert (told["already"], told["scored"]) == (9, 0)
    # Not even warmed up again.
    assert len(bench.counter.calls) == calls
    rows = open_run(bench.path).scores()
    assert len(rows) == 9
    assert all(row["scored_s"] is None and row["reward_s"] > 0 and row["reward_flops"] > 0 for row in rows)
    uses = open_run(bench.path).manifest["reward_models"][0]["uses"]
    assert [use["sitting"] for use in uses] == ["afterwards", "afterwards"]


def test_other_options_under_the_same_name_are_refused(bench: Bench) -> None:
    run = bench.run()
    with pytest.raises(UserError, match=r"has scores of zoo/orm made with the options \[\], not \['separator=x'\]"):
        score_runs([run], ["zoo/orm"], ["separator=x"], chooser(True), bench.clock)


def test_the_task_gives_the_prompts_and_else_the_run(bench: Bench, tmp_path: Path) -> None:
    run = bench.run(judges=())
    (told,) = score_runs([run], ["zoo/orm"], [], chooser(True), bench.clock)
    assert told["scored"] == 3
    # `toy` is no task that can be loaded again, so what the model read is what the reward model reads.
    assert open_run(bench.path).manifest["reward_models"][0]["uses"][0]["prompts"] == "stored"


def test_scores_from_before_their_costs_were_kept_are_read(bench: Bench) -> None:
    run = bench.run(judges=())
    old = pa.schema(
        [
            pa.field("problem_id", pa.string(), nullable=False),
            pa.field("sample_index", pa.int32(), nullable=False),
            pa.field("reward_model", pa.string(), nullable=False),
            pa.field("scores", pa.list_(pa.float64()), nullable=False),
        ],
        metadata={"ttc_schema": "1"},
    )
    rows = [{"problem_id": "toy/0", "sample_index": 1, "reward_model": "recorded", "scores": [0.5, 0.25]}]
    (run.path / "scores").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=old), run.path / "scores" / "000000.parquet")
    assert run.scores() == [rows[0] | {"scored_s": None, "reward_s": 0.0, "reward_flops": 0.0}]
    run.add_scores([rows[0] | {"reward_model": "new", "scored_s": 1.5, "reward_s": 0.1, "reward_flops": 7.0}])
    assert [row["scored_s"] for row in run.scores()] == [None, 1.5]


def test_estimates_are_bounds_from_earlier_calls() -> None:
    judge = Judge("mine", [], StepCounter(FakeClock()), FakeClock())
    assert judge.estimate(100, "seconds") == 0.0
    judge.costs = [(100, 2.0, 50.0), (10, 1.0, 5.0)]
    # 50 tokens: at most what 100 took, and at most five times what 10 took.
    assert judge.estimate(50, "seconds") == pytest.approx(1.2 * 2.0)
    assert judge.estimate(10, "seconds") == pytest.approx(1.2 * 1.0)
    assert judge.estimate(200, "flops") == pytest.approx(1.2 * 100.0)
    assert judge.estimate(200, "tokens") == 0.0


def test_several_prompts_go_to_a_model_that_takes_them_in_one_call() -> None:
    class Wide:
        name, max_batch_size = "wide", 8
        calls = 0

        def score(self, prompt: Prompt, completions: Sequence[str]) -> list[list[float]]:
            raise AssertionError

        def score_all(self, asked: Sequence[tuple[Prompt, str]]) -> list[list[float]]:
            self.calls += 1
            return [[float(len(text))] for _, text in asked]

    model = Wide()
    rows = Judge("wide", [], model, FakeClock()).score(
        [Asked("p", 0, "P?", "one", 1), Asked("q", 0, "Q?", "three", 3), Asked("p", 1, "P?", "", 0)]
    )
    assert [row["scores"] for row in rows] == [[3.0], [5.0], [0.0]]
    assert model.calls == 1


PLUGINS = '''
def brevity(prompt, completions, *, longest: int = 100):
    """Prefers short solutions."""
    return [max(0.0, 1 - len(text) / longest) for text in completions]


class Steps:
    name = "steps"
    flops = 0.0

    def __init__(self, base):
        self.base = base

    def score(self, prompt, completions):
        self.flops += 10.0 * len(completions)
        return [[self.base ** -len(line) for line in text.split("\\n") if line] for text in completions]


def steps(base: float = 1.1):
    """Step scores."""
    return Steps(base)


def fickle(prompt, completions):
    return [[len(completions) / 10] for _ in completions]


def nothing():
    return 7
'''


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(PLUGINS)
    return str(tmp_path / "mine.py")


def test_a_reward_model_is_a_function_or_what_one_returns(mine: str) -> None:
    short = plugins.load_reward_model(f"{mine}:brevity", ["longest=10"])
    assert check_scores(short.score("?", ["12345", "1" * 20]), 2) == [[0.5], [0.0]]
    assert short.name == f"{mine}:brevity"
    assert list(plugins.load_reward_model(f"{mine}:steps", ["base=2"]).score("?", ["a\nbb"])[0]) == [0.5, 0.25]
    with pytest.raises(UserError, match="returned int"):
        plugins.load_reward_model(f"{mine}:nothing")
    with pytest.raises(UserError, match="'reward' loads checkpoints of reward models; write the checkpoint itself"):
        plugins.load_reward_model("reward")
    with pytest.raises(UserError, match=r"there is no checkpoint folder '\./nowhere'"):
        plugins.load_reward_model("./nowhere")
    with pytest.raises(UserError, match="takes no option 'colour'; it takes longest"):
        plugins.load_reward_model(f"{mine}:brevity", ["colour=red"])


def test_options_go_to_the_reward_models_that_take_them(mine: str) -> None:
    both = [f"{mine}:brevity", f"{mine}:steps", "zoo/orm"]
    shared = plugins.reward_options(both, ["longest=5", "dtype=float32"])
    assert shared == {both[0]: ["longest=5"], both[1]: [], both[2]: ["dtype=float32"]}
    with pytest.raises(UserError, match=r"no reward model among .* takes the option 'colour=red'"):
        plugins.reward_options(both, ["colour=red"])


def test_reward_models_are_checked(mine: str) -> None:
    assert all(finding.ok for finding in check_reference(f"{mine}:brevity", [], None, None))
    findings = check_reference(f"{mine}:steps", [], None, None)
    assert all(finding.ok for finding in findings)
    assert "its count of FLOPs grows with every call" in [finding.what for finding in findings]
    with pytest.raises(UserError, match="'reward' loads checkpoints; name one to check it with: --checkpoint zoo/orm"):
        check_reference("reward", [], None, None)
    broken = {finding.what for finding in check_reference(f"{mine}:fickle", [], None, None) if not finding.ok}
    assert broken == {"a score does not depend on its batch"}


def test_the_command_scores_and_says_so(mine: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from harness.cli import score

    run = bench.run(judges=())
    monkeypatch.undo()
    app = typer.Typer()
    score.add_to(app)
    app.callback()(lambda: None)
    arguments = ["score", str(run.path), "--reward-model", f"{mine}:steps", "-R", "base=2", "--quiet"]
    said = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    (told,) = json.loads(said.stdout)["runs"]
    assert (told["run"], told["reward_model"]) == (str(run.path), f"{mine}:steps")
    assert (told["scored"], told["already"], told["flops"]) == (3, 0, 30.0)
    said = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert said.stdout.endswith(":steps: 0 scored; 3 before\n")
    with pytest.raises(UserError, match="no reward model to score with"):
        CliRunner().invoke(app, ["score", str(run.path)], catch_exceptions=False)


def test_reward_models_are_listed() -> None:
    from harness.listing import known

    names = {entry["name"] for entry in known("reward-models")}
    assert "reward" in names
    models: set[Any] = {entry["name"] for entry in known("models")}
    assert "zoo/teacher" in models
    assert not names & models
