"""What others wrote goes wrong: models, selectors, tasks and reward models that raise, lie or hang."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeClock, StepEngine, last_word, same, toy_task

from harness import plugins
from harness.analysis.summarise import summarise
from harness.analysis.summary import as_document
from harness.budgets import Budget, Deadline
from harness.errors import UserError
from harness.faults import Fault, boundary, told
from harness.grading import verdict_rows
from harness.nouns import Candidate, Completion, Problem, Request, Sampling, Selector, Task, Verdict
from harness.progress import chooser
from harness.running.bench import Arm, Plan, bench_arm
from harness.running.watchdog import STATUS, Watchdog, grace_wished, watchdog_of
from harness.storage.records import COMPLETIONS, columns_of, table_of
from harness.storage.runs import Run, open_run

Answer = Callable[[Request, Deadline], Any]


class Scripted:
    """Gives what `answer` gives for each request, one after the other."""

    name = "scripted"

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.facts: dict[str, object] = {"engine": "scripted"}
        self.calls: list[list[tuple[str, int]]] = []

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Any]:
        if requests[0].sampling.max_tokens == 4:
            return  # warm-up
        self.calls.append([(one.problem_id, one.sample_index) for one in requests])
        for request in requests:
            yield self.answer(request, deadline)


def plain(request: Request, deadline: Deadline, text: str = "is 4", **other: Any) -> Completion:
    now = deadline.elapsed_s
    deadline.charge(tokens=2)
    row = Completion(
        request.problem_id, request.sample_index, text, "stop", 1, 2, request.seed, now, now, now, now, 1.0
    )
    return replace(row, **other)


def bench(
    path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch, protocol: str = "latency", count: int = 10,
    samples: int = 2, task: Task | None = None,
) -> tuple[Run, Scripted]:  # fmt: skip
    model = Scripted(answer)
    monkeypatch.setattr("harness.plugins.load_model", lambda *_: model)
    asked = Plan("toy", (), None, None, protocol, None, samples, Sampling(max_tokens=100))
    run = bench_arm(Arm("m", "plug-in", (), path), asked, task or toy_task(count), chooser(True), FakeClock())
    return run, model


def ends(run: Run) -> dict[tuple[str, int], str]:
    return {(row["problem_id"], row["sample_index"]): row["finish_reason"] for row in run.completions()}


def raise_at(*places: tuple[str, int]) -> Answer:
    def answer(request: Request, deadline: Deadline) -> Completion:
        if (request.problem_id, request.sample_index) in places:
            raise RuntimeError("the device\nis gone")
        return plain(request, deadline)

    return answer


def test_a_problem_that_brings_the_model_down_is_rows_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = bench(tmp_path / "run", raise_at(("toy/3", 1)), monkeypatch)
    found = ends(run)
    assert len(found) == 20
    assert [key for key, why in found.items() if why == "error"] == [("toy/3", 1)]
    (row,) = [row for row in run.completions() if row["finish_reason"] == "error"]
    assert row["error"].startswith("model scripted raised RuntimeError: the device is gone (test_faults.py, line ")
    (verdict,) = [v for v in run.verdicts() if (v["problem_id"], v["sample_index"]) == ("toy/3", 1)]
    assert (verdict["verdict"], verdict["reason"]) == ("no_answer", "the engine failed")
    assert run.manifest["validity"]["reasons"] == ["1 of 20 completions failed in the engine"]


def test_in_the_throughput_protocol_one_request_is_given_up_and_the_others_are_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model = bench(tmp_path / "run", raise_at(("toy/1", 1)), monkeypatch, "throughput", 3)
    waves = [(f"toy/{p}", i) for i in range(2) for p in range(3)]
    assert model.calls == [waves, waves[5:]]
    assert {key for key, why in ends(run).items() if why == "error"} == {("toy/1", 1)}
    assert len(run.completions()) == 6


def test_three_calls_in_a_row_end_the_run_and_it_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = raise_at(*((f"toy/{p}", 0) for p in range(4, 10)))
    with pytest.raises(Fault, match="3 calls in a row have failed so and the run stops: what was finished is stored"):
        bench(tmp_path / "run", dead, monkeypatch)
    stored = open_run(tmp_path / "run")
    assert sorted(ends(stored).values()) == ["error"] * 6 + ["stop"] * 8
    assert stored.manifest["segments"][0]["status"] == "failed"
    assert "RuntimeError: the device is gone" in stored.manifest["segments"][0]["error"]
    run, model = bench(tmp_path / "run", plain, monkeypatch)
    assert [call[0][0] for call in model.calls] == ["toy/7", "toy/8", "toy/9"]
    assert sorted(ends(run).values()) == ["error"] * 6 + ["stop"] * 14


@pytest.mark.parametrize(("count", "borne"), [(10, 3), (50, 5)])
def test_one_call_in_ten_may_raise_and_three_in_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, borne: int
) -> None:
    some = [(f"toy/{2 * p}", 0) for p in range(borne)]
    run, _ = bench(tmp_path / "some", raise_at(*some), monkeypatch, count=count)
    assert len(ends(run)) == 2 * count
    with pytest.raises(Fault, match=f"{borne + 1} calls have failed so"):
        bench(tmp_path / "more", raise_at(*some, (f"toy/{2 * borne}", 0)), monkeypatch, count=count)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda r, d: None, "TypeError: it yielded None, not a Completion"),
        (lambda r, d: plain(r, d, text=None), "ValueError: it yielded a completion with the text None"),
        (
            lambda r, d: plain(r, d, finish_reason="done"),
            "the finish_reason 'done'; deadline, ",
        ),
        (lambda r, d: plain(r, d, completion_tokens=-1), "a completion of 1 and -1 tokens"),
        (lambda r, d: plain(r, d, completion_tokens=2**40), f"a completion of 1 and {2**40} tokens"),
        (lambda r, d: plain(r, d, finished_s="soon"), "TypeError"),
        (lambda r, d: plain(r, d, sample_index=7), "not asked for, or twice: ('toy/0', 7)"),
        (lambda r, d: plain(r, d, problem_id="other"), "not asked for, or twice: ('other', 0)"),
    ],
)
def test_what_is_no_completion_is_the_models_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Answer, says: str
) -> None:
    def answer(request: Request, deadline: Deadline) -> Any:
        return (wrong if request.problem_id == "toy/0" else plain)(request, deadline)

    run, _ = bench(tmp_path / "run", answer, monkeypatch, samples=1)
    assert {key: why for key, why in ends(run).items() if why == "error"} == {("toy/0", 0): "error"}
    (row,) = [row for row in run.completions() if row["finish_reason"] == "error"]
    assert row["error"].startswith("model scripted raised ")
    assert says in row["error"]


def test_half_characters_are_stored_as_the_replacement_character_and_pairs_as_what_they_spell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = bench(tmp_path / "run", lambda r, d: plain(r, d, "a\ud83d\ude00b\ud800 4"), monkeypatch, samples=1)
    assert {row["text"] for row in run.completions()} == {"a\U0001f600b\ufffd 4"}
    assert {row["answer"] for row in run.verdicts()} == {"4"}
    assert table_of([{"problem_id": "\udc00", "sample_index": 0}], COMPLETIONS)["problem_id"].to_pylist() == ["\ufffd"]
    rows = [plain(Request("p", 0, "?", Sampling()), Deadline(None, FakeClock()), "\ud800")]
    assert columns_of(rows, COMPLETIONS)["text"].to_pylist() == ["\ufffd"]


def test_a_users_mistake_in_the_model_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: Request, deadline: Deadline) -> None:
        raise UserError("no such budget here")

    with pytest.raises(UserError, match=r"^no such budget here$"):
        bench(tmp_path / "run", refuse, monkeypatch)


def test_a_model_that_raises_while_it_is_warmed_up_or_built_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = StepEngine(FakeClock())
    monkeypatch.setattr(engine, "generate", lambda *_: 1 / 0)
    monkeypatch.setattr("harness.plugins.load_model", lambda *_: engine)
    asked = Plan("toy", (), None, None, "latency", None, 1, Sampling())
    says = (
        r"model steps, while it was warmed up, raised ZeroDivisionError: division by zero \(test_faults\.py, line \d+\)"
    )
    with pytest.raises(Fault, match=says):
        bench_arm(Arm("m", "plug-in", (), tmp_path / "run"), asked, toy_task(1), chooser(True), FakeClock())
    monkeypatch.undo()
    (tmp_path / "mine.py").write_text("def boom(*, n: int = 1):\n    return {}['x']\n")
    for load in (plugins.load_task, plugins.load_selector, plugins.load_reward_model):
        with pytest.raises(Fault, match=r"boom raised KeyError: 'x' \(mine\.py, line 2\)"):
            load(f"{tmp_path}/mine.py:boom")
    with pytest.raises(Fault, match=r"model .*boom raised KeyError"):
        plugins.load_model(f"{tmp_path}/mine.py:boom", "plug-in")


# Tasks


def task_with(**functions: Any) -> Task:
    return Task("odd", [Problem("p", "?", "4")], **({"extract": last_word, "grade": same} | functions))


def boom(*_: Any) -> Any:
    raise MemoryError


@pytest.mark.parametrize(
    ("functions", "says"),
    [
        ({"extract": boom}, "task odd raised MemoryError (test_faults.py"),
        ({"extract": lambda text: 4}, "task odd raised TypeError: extract gave int, not a text or None"),
        ({"grade": boom}, "task odd raised MemoryError (test_faults.py"),
        ({"grade": lambda gold, answer: True}, "task odd raised TypeError: grade gave True, not a Verdict"),
        ({"grade": lambda gold, answer: Verdict("right")}, "task odd raised TypeError: grade gave Verdict("),  # type: ignore[arg-type]
    ],
)
def test_what_a_task_raises_is_a_verdict(functions: dict[str, Any], says: str) -> None:
    rows = [{"problem_id": "p", "sample_index": i, "text": "so 4", "finish_reason": "stop"} for i in range(2)]
    found = verdict_rows(task_with(**functions), "4", rows, FakeClock())
    assert [row["verdict"] for row in found] == ["unparsed"] * 2
    assert all(row["reason"].startswith(says) for row in found)


@pytest.mark.parametrize("group", [boom, lambda answers: [0], lambda answers: ["a"] * len(answers)])
def test_where_grouping_raises_equal_texts_share_a_class(group: Callable[..., Any]) -> None:
    rows = [
        {"problem_id": "p", "sample_index": i, "text": text, "finish_reason": "stop"} for i, text in enumerate("4574")
    ]
    found = verdict_rows(task_with(group=group), "4", rows, FakeClock())
    assert [row["answer_class"] for row in found] == [0, 1, 2, 0]


def test_a_task_that_raises_often_makes_the_run_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = replace(toy_task(10), grade=boom)
    run, _ = bench(tmp_path / "run", plain, monkeypatch, task=task)
    assert run.manifest["validity"]["reasons"] == ["the task raised an exception on 20 of 20 completions"]


# Selectors


def test_a_selector_that_raises_has_no_curve_and_the_others_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = bench(tmp_path / "run", plain, monkeypatch)
    sound = Selector("one", select=lambda prompt, some: some[0])
    loud = Selector("loud", select=lambda prompt, some: some[99])
    summary = summarise(run, [loud, sound, Selector("deaf", expected=lambda graded, ks: [[1.0]] * 3)])
    assert {curve.selector for curve in summary.curves} == {"one"}
    assert summary.faults["loud"].startswith(
        "selector loud raised IndexError: tuple index out of range (test_faults.py"
    )
    assert summary.faults["deaf"].startswith("selector deaf raised ValueError")
    assert json.loads(json.dumps(as_document([summary])))["runs"][0]["faults"] == dict(summary.faults)
    from harness.reporting import tell

    tell([summary], [], [run], True)
    printed = capsys.readouterr()
    assert json.loads(printed.out)
    assert f"ttc: {run.name}: selector loud raised IndexError" in printed.err


def test_a_strangers_words_stay_in_one_line_and_keep_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "sk-123456789")

    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError

    with pytest.raises(Fault) as caught, boundary("selector s"):
        raise OSError("key sk-123456789\nttc: all is well " + "x" * 999)
    sentence = str(caught.value)
    assert "sk-123" not in sentence
    assert "$MY_API_KEY ttc:" in sentence
    assert "\n" not in sentence
    assert len(sentence) < 400
    assert told(Odd()) == "Odd"


def test_candidates_that_a_selector_must_not_change_cannot_be() -> None:
    with pytest.raises(AttributeError):
        Candidate(0, "", None, None, 0, 0.0).text = "x"  # type: ignore[misc]


# The watchdog


class Ended(BaseException):
    pass


def watchdog(**limits: float) -> tuple[Watchdog, list[str]]:
    noted: list[str] = []

    def end(status: int) -> None:
        assert status == STATUS
        raise Ended

    return Watchdog(noted.append, tick_s=5.0, end=end, **limits), noted


def ticks_until_the_end(dog: Watchdog, most: int) -> int | None:
    for tick in range(1, most + 1):
        try:
            dog.look()
        except Ended:
            return tick
    return None


def test_a_scope_may_take_twice_its_budget_and_the_grace(capsys: pytest.CaptureFixture[str]) -> None:
    dog, noted = watchdog(grace_s=100.0)
    with dog.watch("toy/1", Deadline(Budget(60.0), FakeClock())):
        assert ticks_until_the_end(dog, 99) == 44  # (2 x 60 + 100) / 5
    assert noted[0].startswith("problem toy/1 took 220 s of a budget of 60s, stuck in ")
    assert "what was finished is stored, type the same command to go on" in capsys.readouterr().err
    assert ticks_until_the_end(dog, 99) is None  # no scope, nothing to end


def test_without_a_budget_in_seconds_any_sign_of_life_starts_the_count_anew() -> None:
    for budget in (None, Budget(1e6, "tokens")):
        dog, noted = watchdog(silence_s=50.0)
        deadline = Deadline(budget, FakeClock())
        with dog.watch(None, deadline):
            assert ticks_until_the_end(dog, 9) is None
            deadline.charge(tokens=1)
            assert ticks_until_the_end(dog, 9) is None
            dog.alive()
            assert ticks_until_the_end(dog, 20) == 10
        assert noted[0].startswith("the run gave no sign of life for 50 s")


def test_a_clock_that_leaps_is_no_engine_that_hangs() -> None:
    dog, _ = watchdog(grace_s=100.0)
    clock = FakeClock()
    with dog.watch("p", Deadline(Budget(1.0), clock)):
        clock.sleep(1e6)
        assert ticks_until_the_end(dog, 5) is None


def test_the_environment_sets_the_limit_or_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTC_WATCHDOG_S", "30")
    made = watchdog_of(print, grace_wished())
    assert made is not None
    assert (made.grace_s, made.silence_s, made.tick_s) == (30.0, 30.0, 3.0)
    monkeypatch.setenv("TTC_WATCHDOG_S", "0")
    assert watchdog_of(print, grace_wished()) is None
    monkeypatch.setenv("TTC_WATCHDOG_S", "soon")
    with pytest.raises(UserError, match="TTC_WATCHDOG_S wants seconds, got 'soon'"):
        grace_wished()
    monkeypatch.delenv("TTC_WATCHDOG_S")
    usual = watchdog_of(print, grace_wished())
    assert usual is not None
    assert (usual.grace_s, usual.silence_s) == (600.0, 7200.0)


HANGS = """
import ctypes, os, time
from harness.nouns import Completion, Problem, Task, Verdict

class Hangs:
    name, facts = "hangs", {"engine": "hangs"}

    def generate(self, requests, deadline):
        for request in requests:
            if request.problem_id == "p1" and os.environ.get("HANG"):
                {"sleep": lambda: time.sleep(99), "hold": lambda: ctypes.PyDLL(None).sleep(99)}[os.environ["HANG"]]()
            now = deadline.elapsed_s
            yield Completion(request.problem_id, request.sample_index, "4", "stop", 1, 1, request.seed, now, now, now,
                             now, 1.0)

def hangs():
    return Hangs()

def sums():
    return Task("sums", [Problem(f"p{i}", "2+2", "4") for i in range(3)], str, lambda g, a: Verdict("correct"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sleep", pytest.param("hold", marks=pytest.mark.skipif(
    not hasattr(ctypes.PyDLL(None), "sleep"), reason="the C library has no sleep"))])  # fmt: skip
def test_an_engine_that_hangs_is_ended_and_the_same_command_goes_on(tmp_path: Path, how: str) -> None:
    (tmp_path / "mine.py").write_text(HANGS)
    options = ["--task", "./mine.py:sums", "--samples", "1", "--budget", "0.25s", "--selector", "first", "--out", "run"]
    command = [sys.executable, "-m", "harness", "bench", "./mine.py:hangs", *options, "-q"]
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "TTC_WATCHDOG_S": "1", "HANG": how}
    ask = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run(command, env=environment, **ask)  # type: ignore[call-overload]
    assert done.returncode == (STATUS if how == "sleep" else 1)
    if how == "sleep":
        assert "ttc: problem p1 took 1.5 s of a budget of 0.25s, stuck in <lambda> (mine.py, line 11)" in done.stderr
        stored = open_run(tmp_path / "run")
        assert stored.manifest["segments"][0]["status"] == "hung"
        assert [row["problem_id"] for row in stored.completions()] == ["p0"]
    else:
        assert "mine.py" in done.stderr, "the interpreter's own timer tells where every thread was"
    del environment["HANG"]
    again = subprocess.run(command, env=environment, **ask)  # type: ignore[call-overload]
    assert again.returncode == 0, again.stderr
    assert len(open_run(tmp_path / "run").completions()) == 3


def test_expected_shapes_are_checked_where_they_are_used() -> None:
    from harness.analysis.bank import Item
    from harness.analysis.curves import values_at_k
    from harness.nouns import Graded

    graded = Graded((Candidate(0, "", "4", 0, 1, 1.0),), np.array([True]))
    item = Item("p", "?", graded, {"seconds": np.array([1.0])})
    with pytest.raises(Fault, match="selector odd raised ValueError"):
        values_at_k(Selector("odd", expected=lambda graded, ks: [1.0, 2.0]), [item], [1])
