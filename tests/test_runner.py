"""The measured loop under a fake clock: scopes, waves, deadlines in all three units, resuming."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeClock, StepEngine, toy_task

from harness.budgets import Budget, Deadline
from harness.errors import UserError
from harness.nouns import Completion, Problem, Request, Sampling, stream_seed
from harness.progress import chooser
from harness.running.bench import Arm, Plan, bench_arm
from harness.running.runner import Writer
from harness.running.scopes import plan
from harness.storage.runs import Run, open_run


def bench(
    path: Path, engine: StepEngine, budget: Budget | None = None, protocol: str = "latency", count: int = 2
) -> Run:
    asked = Plan("toy", (), None, None, protocol, budget, 3, Sampling(max_tokens=100))
    return bench_arm(Arm("steps", "plug-in", (), path), asked, toy_task(count), chooser(True), engine.clock)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> StepEngine:
    engine = StepEngine(FakeClock())
    monkeypatch.setattr("harness.plugins.load_model", lambda *_: engine)
    return engine


def rows_of(run: Run) -> list[tuple[str, int, str, int, float]]:
    names = ("problem_id", "sample_index", "finish_reason", "completion_tokens", "finished_s")
    return sorted(tuple(row[name] for name in names) for row in run.completions())


def test_without_a_budget_every_sample_ends_by_itself(tmp_path: Path, engine: StepEngine) -> None:
    run = bench(tmp_path / "run", engine)
    # Lengths 3, 5, 9 at half a second a step, each problem on a clock of its own.
    assert rows_of(run) == [
        (f"toy/{p}", i, "stop", n, n / 2) for p in range(2) for i, n in enumerate((3, 5, 9))
    ]  # fmt: skip
    assert [(row["verdict"], row["answer"]) for row in run.verdicts()] == [
        ("correct", "4"),
        ("wrong", "5"),
        ("correct", "4"),
    ] * 2
    assert run.manifest["validity"]["verdict"] == "VALID"
    assert run.manifest["segments"][0]["generate_s"] == pytest.approx(9.0)
    assert [row["seed"] for row in run.completions()] == [
        stream_seed(0, f"toy/{p}", i) for p in range(2) for i in range(3)
    ]


def test_a_deadline_in_seconds_keeps_the_partials_and_grades_them_no_answer(tmp_path: Path, engine: StepEngine) -> None:
    run = bench(tmp_path / "run", engine, Budget(2.5))
    assert rows_of(run) == [
        (f"toy/{p}", *row)
        for p in range(2)
        for row in ((0, "stop", 3, 1.5), (1, "stop", 5, 2.5), (2, "deadline", 5, 2.5))
    ]
    cut = [row for row in run.verdicts() if row["sample_index"] == 2]
    assert [(row["verdict"], row["reason"], row["answer"]) for row in cut] == [
        ("no_answer", "cut by the deadline", None)
    ] * 2
    assert run.manifest["compliance"]["overshoot_worst_s"] == 0
    assert run.manifest["validity"]["verdict"] == "VALID"


def test_a_budget_shorter_than_a_step_overshoots_by_less_than_a_step(tmp_path: Path, engine: StepEngine) -> None:
    run = bench(tmp_path / "run", engine, Budget(0.1))
    assert {row[2:] for row in rows_of(run)} == {("deadline", 1, 0.5)}
    assert run.manifest["compliance"]["overshoot_worst_s"] == pytest.approx(0.4)


def test_token_and_flop_budgets_stop_within_one_step(tmp_path: Path, engine: StepEngine) -> None:
    tokens = bench(tmp_path / "tokens", engine, Budget(7, "tokens"))
    # Three rows a step: 3, 6, 9 tokens, so the third step is the last; the first row ends in it.
    assert {row[2:] for row in rows_of(tokens)} == {("stop", 3, 1.5), ("deadline", 3, 1.5)}
    flops = bench(tmp_path / "flops", engine, Budget(70, "flops"))
    assert rows_of(flops) == rows_of(tokens)


def test_throughput_asks_in_waves_under_one_clock(tmp_path: Path, engine: StepEngine) -> None:
    run = bench(tmp_path / "run", engine, Budget(4.0, scope="run"), "throughput")
    waves = [(f"toy/{p}", i) for i in range(3) for p in range(2)]
    assert engine.asked[-1] == waves
    assert [row[1:] for row in rows_of(run)][:3] == [(0, "stop", 3, 1.5), (1, "stop", 5, 2.5), (2, "deadline", 8, 4.0)]
    assert len(run.timing()) == 1
    assert {row["verdict"] for row in run.verdicts()} == {"correct", "wrong", "no_answer"}


def test_a_late_engine_makes_the_run_invalid(
    tmp_path: Path, engine: StepEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = engine.generate

    def late(requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        for row in generate(requests, deadline):
            if row.finish_reason == "deadline":
                engine.clock.sleep(2.0)
                row = replace(row, finished_s=deadline.elapsed_s)
            yield row

    monkeypatch.setattr(engine, "generate", late)
    validity = bench(tmp_path / "run", engine, Budget(2.5)).manifest["validity"]
    assert validity["verdict"] == "INVALID"
    assert validity["reasons"] == ["2 of 2 deadlines were overshot by more than two decode steps (worst 2.000 s)"]


@pytest.mark.parametrize("protocol", ["latency", "throughput"])
@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5])
def test_interrupted_and_run_again_it_has_every_sample_once(
    tmp_path: Path, engine: StepEngine, monkeypatch: pytest.MonkeyPatch, protocol: str, stop_after: int
) -> None:
    whole = bench(tmp_path / "whole", engine, protocol=protocol)
    yielded = itertools.count(1)
    generate = engine.generate

    def interrupted(requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        for row in generate(requests, deadline):
            yield row
            if requests[0].sampling.max_tokens > 4 and next(yielded) == stop_after:
                raise KeyboardInterrupt

    monkeypatch.setattr(engine, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench(tmp_path / "run", engine, protocol=protocol)
    stored = open_run(tmp_path / "run")
    assert len(stored.completions()) == stop_after
    assert stored.manifest["segments"][0]["status"] == "interrupted"
    assert stored.manifest["segments"][0]["generate_s"] >= 1.5  # the first sample ends after three steps of 0.5 s
    assert stored.manifest["validity"]["verdict"] == "INVALID"
    kept = rows_of(stored)
    engine.clock.sleep(3600)
    again = bench(tmp_path / "run", engine, protocol=protocol)
    assert set(kept) <= set(rows_of(again))
    same = ("problem_id", "sample_index", "seed", "text")
    assert sorted(tuple(row[n] for n in same) for row in again.completions()) == sorted(
        tuple(row[n] for n in same) for row in whole.completions()
    )
    assert again.manifest["validity"]["verdict"] == "VALID"
    assert max(row["finished_s"] for row in again.completions()) < 60, "the outage must not be charged"
    assert len(again.verdicts()) == 6
    classes = {row["answer"]: row["answer_class"] for row in again.verdicts()}
    assert len(set(classes.values())) == 2


def test_a_finished_run_is_not_sampled_again(tmp_path: Path, engine: StepEngine) -> None:
    first = bench(tmp_path / "run", engine, Budget(2.5))
    engine.asked.clear()
    again = bench(tmp_path / "run", engine, Budget(2.5))
    assert engine.asked == []
    assert rows_of(first) == rows_of(again)


def test_a_budget_that_ends_before_anything_starts_is_over_all_the_same(tmp_path: Path, engine: StepEngine) -> None:
    problems = [Problem("a", "?", "1"), Problem("b", "?", "1")]
    assert [scope.problem_id for scope in plan(problems, 2, Sampling(), "latency", None, {"a"})] == ["b"]


def test_another_spec_in_the_same_folder_is_refused(tmp_path: Path, engine: StepEngine) -> None:
    bench(tmp_path / "run", engine, Budget(2.5))
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    with pytest.raises(UserError, match=r"holds a run with budget = '2\.5s', not '3s'; choose another --out"):
        bench(tmp_path / "run", engine, Budget(3.0))
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before


def test_changed_problems_are_refused(tmp_path: Path, engine: StepEngine) -> None:
    bench(tmp_path / "run", engine)
    with pytest.raises(UserError, match=r"the problems of .* are not those the task gives now"):
        bench(tmp_path / "run", engine, count=3)


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path, engine: StepEngine) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"is in use: it holds thesis\.tex and no run"):
        bench(tmp_path, engine)
    assert sorted(path.name for path in tmp_path.iterdir()) in (["thesis.tex"], [".lock", "thesis.tex"])


def test_an_engine_that_answers_twice_is_caught(
    tmp_path: Path, engine: StepEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = engine.generate
    monkeypatch.setattr(engine, "generate", lambda r, d: (row for row in generate(r, d) for _ in range(2)))
    run = bench(tmp_path / "run", engine)
    assert [row[1:3] for row in rows_of(run)] == [(0, "stop"), (1, "error"), (2, "error")] * 2
    told = {row["error"] for row in run.completions() if row["finish_reason"] == "error"}
    assert told == {
        f"model steps raised ValueError: it returned a completion that was not asked for, or twice: ('toy/{i}', 0)"
        for i in range(2)
    }
    assert run.manifest["validity"]["verdict"] == "INVALID"


def test_a_writer_elsewhere_is_named(tmp_path: Path, engine: StepEngine) -> None:
    import os
    import subprocess
    import sys

    code = f"""
import sys
from pathlib import Path
from harness.storage.locking import writing
with writing(Path({str(tmp_path / "run")!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"another process \(process {other.pid}\) is writing"):
        bench(tmp_path / "run", engine)
    os.kill(other.pid, 9)
    other.communicate()
    assert bench(tmp_path / "run", engine).manifest["validity"]["verdict"] == "VALID"


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many completions each part got; nothing comes to a disk."""
    found: list[int] = []
    monkeypatch.setattr(Run, "add_completions", lambda run, rows, segment: found.append(len(rows)))
    return found


def completions(count: int) -> list[Completion]:
    return [Completion("p", i, "x", "stop", 1, 1, 0, 0.0, 0.0, 0.0, float(i), 1.0) for i in range(count)]


def test_parts_are_written_more_seldom_as_a_run_grows_old(tmp_path: Path, sizes: list[int]) -> None:
    clock = FakeClock()
    writer = Writer(Run(tmp_path / "run"), clock, 0)
    for row in completions(20000):
        clock.sleep(1.0)
        writer.add(row, clock())
        if writer.storing is not None:
            writer.storing.result()  # as if the disk were as fast as the clock
    writer.close()
    assert sum(sizes) == 20000
    # Every 2 s until 400 s, then every 0.5 % of the age until a minute at 12000 s.
    assert sizes[:100] == [2] * 100
    assert sizes[-2] == 60
    assert len(sizes) < 200 + 1 / 0.005 * 4 + 8000 / 60 + 2


def test_many_completions_do_not_wait_for_the_clock(
    tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.running.runner.FLUSH_ROWS", 10)
    writer = Writer(Run(tmp_path / "run"), FakeClock(), 0)
    for row in completions(100):
        writer.add(row, 100.0)
        assert len(writer.waiting) <= 10
        if writer.storing is not None:
            writer.storing.result()
    writer.close()
    assert [size for size in sizes if size] == [10] * 10


def test_what_cannot_be_stored_stops_the_run(
    tmp_path: Path, engine: StepEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "add_completions", full)
    with pytest.raises(OSError, match="No space left"):
        bench(tmp_path / "run", engine)
    assert open_run(tmp_path / "run").manifest["segments"][0]["status"] == "failed"


def test_what_an_engine_suffers_while_it_samples_is_told(
    tmp_path: Path, engine: StepEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = engine.generate

    def suffering(requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        count = engine.facts["out_of_memory"]
        assert isinstance(count, int)
        engine.facts |= {"out_of_memory": count + 1}
        yield from generate(requests, deadline)

    engine.facts |= {"out_of_memory": 0, "max_batch_size": 8}
    monkeypatch.setattr(engine, "generate", suffering)
    run = bench(tmp_path / "run", engine)
    # Three calls, of which the first warmed up.
    assert run.manifest["segments"][0]["troubles"] == {"out_of_memory": 2}
    assert run.manifest["validity"]["reasons"] == [
        "the engine ran out of memory 2 times and repeated work with a smaller batch"
    ]
    assert run.manifest["validity"]["mend"] == ["run again with -M max_batch_size=8"]


def test_the_garbage_collector_is_itself_again_after_a_run(tmp_path: Path, engine: StepEngine) -> None:
    import gc

    before = gc.get_freeze_count()
    bench(tmp_path / "run", engine)
    assert gc.get_freeze_count() == before
