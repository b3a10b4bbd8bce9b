"""Every rule of a budget, under a fake clock, with the native engine: both protocols, seconds, FLOPs and tokens.

A pass of the model takes one second of the fake clock, whether it reads prompts or gives every row a token. No row ends
by itself, so that a row of n tokens took part in n passes: the one that read its prompt and n - 1 others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from fakes import FakeClock, last_word, same

from harness.budgets import Budget, Deadline, Unit, parse_budget
from harness.errors import UserError
from harness.models import continuous
from harness.models.endings import Endings
from harness.models.native import native
from harness.models.serving import NativeModel
from harness.models.stepwise import StepwiseModel
from harness.nouns import Completion, Problem, Request, Sampling, Task
from harness.progress import chooser
from harness.running.bench import Arm, Plan, bench_arm
from harness.storage.runs import Run

SAMPLES, LIMIT = 3, 12
PROMPTS = ("Add 2 and 3.", "Add 4 and 7.", "Add 1 and 8.")
UNITS: tuple[Unit, ...] = ("seconds", "flops", "tokens")
PROTOCOLS = ("latency", "throughput")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tiny.llama(), tmp_path_factory.mktemp("llama"))


class Bench:
    """A tiny engine on a clock of its own, and runs of it."""

    def __init__(self, engine: NativeModel, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.folder, self.clock = engine, folder, FakeClock()
        self.passes = 0
        self.on_pass: Callable[[int], None] = lambda number: None
        monkeypatch.setattr(engine, "close", lambda: None)
        never = Endings(engine.tokenizer, frozenset(), engine.endings.vocab_size, engine.device)
        monkeypatch.setattr(engine, "endings", never)
        for name in ("prefill", "step"):
            monkeypatch.setattr(engine.model, name, self.timed(getattr(engine.model, name)))
        monkeypatch.setattr("harness.plugins.load_model", lambda *_: engine)
        # Warming up makes passes too, which no rule here is about.
        monkeypatch.setattr("harness.running.bench.warm_up", lambda *_: 0.0)
        monkeypatch.setattr("harness.storage.manifest.git_commit", lambda: None)  # it asks git, three times

    def timed(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def take_pass(*arguments: Any, **options: Any) -> Any:
            self.passes += 1
            self.clock.sleep(1.0)
            self.on_pass(self.passes)
            return inner(*arguments, **options)

        return take_pass

    def run(self, protocol: str, budget: Budget | None, problems: int = 1) -> Run:
        task = Task("sums", [Problem(f"sums/{i}", PROMPTS[i], "5") for i in range(problems)], last_word, same)
        asked = Plan("sums", (), None, None, protocol, budget, SAMPLES, Sampling(max_tokens=LIMIT))
        arm = Arm("tiny", "native", (), self.folder)
        return bench_arm(arm, asked, task, chooser(True), self.clock)

    def flops(self, passes: float) -> float:
        """What one problem's samples cost in a number of passes; half a pass costs half."""
        length = len(self.engine.tokenizer(PROMPTS[0])["input_ids"])
        costs = [self.engine.flops.prefill(length)]
        costs += [self.engine.flops.decode(SAMPLES, SAMPLES * (length + step)) for step in range(1, LIMIT)]
        whole = int(passes)
        return sum(costs[:whole]) + (passes - whole) * (costs[whole] if passes > whole else 0)

    def budget(self, unit: Unit, passes: float) -> Budget:
        """A budget that one problem uses up in so many passes of its three rows."""
        return Budget({"seconds": passes, "flops": self.flops(passes), "tokens": passes * SAMPLES}[unit], unit)


@pytest.fixture(scope="module")
def engine(folder: str) -> NativeModel:
    engine = native(folder, device="cpu")
    assert isinstance(engine, NativeModel)
    return engine


@pytest.fixture
def bench(engine: NativeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(engine, tmp_path / "run", monkeypatch)


def lengths(run: Run) -> list[tuple[str, str, int]]:
    """Problem, reason and length of every completion, in order of problem and sample."""
    rows = sorted(run.completions(), key=lambda row: (row["problem_id"], row["sample_index"]))
    return [(row["problem_id"], row["finish_reason"], row["completion_tokens"]) for row in rows]


def assert_kept(run: Run, scopes: int) -> None:
    """The run is VALID, and no scope went further past its budget than the pass in which it was used up."""
    compliance = run.manifest["compliance"]
    assert run.manifest["validity"] == {"verdict": "VALID", "reasons": [], "mend": [], "warnings": []}
    assert compliance["scopes"] == scopes
    assert compliance["late_share"] == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("passes", [3.5, 4.0])
def test_inside_decode_the_pass_ends_and_no_other_begins(
    bench: Bench, protocol: str, unit: Unit, passes: float
) -> None:
    run = bench.run(protocol, bench.budget(unit, passes))
    assert lengths(run) == [("sums/0", "deadline", 4)] * SAMPLES
    assert bench.passes == 4
    assert_kept(run, 1)
    assert run.manifest["compliance"]["within_budget"] == (passes == 4.0)
    assert run.manifest["compliance"]["within_one_step"] == 1
    (row,) = run.timing()
    spent = bench.budget(unit, 4.0).amount
    assert row["spent"] == pytest.approx(spent)
    assert row["overshoot"] == pytest.approx(spent - bench.budget(unit, passes).amount)
    assert row["overshoot_s"] == (row["overshoot"] if unit == "seconds" else None)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("unit", UNITS)
def test_inside_prefill_the_pass_ends_and_its_rows_are_kept(bench: Bench, protocol: str, unit: Unit) -> None:
    run = bench.run(protocol, bench.budget(unit, 0.5))
    assert lengths(run) == [("sums/0", "deadline", 1)] * SAMPLES
    assert bench.passes == 1
    assert_kept(run, 1)


@pytest.mark.parametrize("unit", UNITS)
def test_between_two_prompts_the_later_ones_are_never_started(
    bench: Bench, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous, "PREFILL_TOKENS", 1)
    monkeypatch.setattr(bench.engine, "max_batch_size", 2)
    amount = {"seconds": 0.5, "flops": bench.flops(0.5), "tokens": 0.5}[unit]
    run = bench.run("throughput", Budget(amount, unit, "run"), problems=3)
    assert lengths(run) == [("sums/0", "deadline", 1)]
    assert_kept(run, 1)


@pytest.mark.parametrize("unit", UNITS)
def test_each_problem_has_the_whole_budget_in_the_latency_protocol(bench: Bench, unit: Unit) -> None:
    run = bench.run("latency", bench.budget(unit, 2.5), problems=3)
    assert lengths(run) == [(f"sums/{i}", "deadline", 3) for i in range(3) for _ in range(SAMPLES)]
    assert_kept(run, 3)


@pytest.mark.parametrize("unit", UNITS)
def test_all_problems_share_the_budget_in_the_throughput_protocol(bench: Bench, unit: Unit) -> None:
    # Nine rows in one batch: the three prompts are read in one pass.
    amount = {"seconds": 2.5, "flops": 3 * bench.flops(2.5), "tokens": 2.5 * 9}[unit]
    run = bench.run("throughput", Budget(amount, unit, "run"), problems=3)
    assert lengths(run) == [(f"sums/{i}", "deadline", 3) for i in range(3) for _ in range(SAMPLES)]
    assert_kept(run, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("amount", [1e30, 1.7e308])
def test_a_huge_budget_cuts_nothing(bench: Bench, protocol: str, unit: Unit, amount: float) -> None:
    run = bench.run(protocol, Budget(amount, unit))
    assert [row[1:] for row in lengths(run)] == [("length", LIMIT)] * SAMPLES
    validity = run.manifest["validity"]
    assert validity["verdict"] == "VALID"
    assert validity["warnings"] == [
        "3 of 3 completions (100%) were cut by the token limit; accuracy may rise with a larger --max-tokens"
    ]
    assert run.manifest["compliance"]["within_budget"] == 1


@pytest.mark.parametrize("text", ["0s", "0flop", "0tok", "-1s", "infs", "1e400tok"])
def test_no_budget_at_all_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="budget"):
        parse_budget(text)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("unit", UNITS)
def test_a_budget_shorter_than_anything_is_still_one_pass(bench: Bench, protocol: str, unit: Unit) -> None:
    run = bench.run(protocol, Budget(5e-324, unit))
    assert lengths(run) == [("sums/0", "deadline", 1)] * SAMPLES
    assert_kept(run, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_clock_that_jumps_ahead_ends_the_scope_at_once(bench: Bench, protocol: str) -> None:
    bench.on_pass = lambda number: bench.clock.sleep(1000.0) if number == 3 else None
    run = bench.run(protocol, Budget(10.0))
    assert lengths(run) == [("sums/0", "deadline", 3)] * SAMPLES
    assert run.manifest["validity"]["verdict"] == "INVALID"
    assert "1 of 1 deadlines were overshot" in run.manifest["validity"]["reasons"][0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("back_s", [0.5, 3.0, 1e6])
def test_a_clock_that_steps_back_gives_no_time_back(bench: Bench, protocol: str, back_s: float) -> None:
    bench.on_pass = lambda number: bench.clock.sleep(-back_s) if number == 3 else None
    run = bench.run(protocol, Budget(6.0))
    # The pass in which the clock ran back counts for what is left of its second, or for nothing: one more is made.
    (row,) = run.timing()
    assert [one["completion_tokens"] for one in run.completions()] == [7] * SAMPLES
    assert row["spent"] == pytest.approx(6.0 if back_s > 0.5 else 6.5)
    assert all(one["finished_s"] >= one["first_token_s"] >= one["started_s"] for one in run.completions())


@pytest.mark.parametrize("unit", UNITS)
def test_other_units_do_not_read_the_clock(bench: Bench, unit: Unit) -> None:
    bench.on_pass = lambda number: bench.clock.sleep(1000.0 if number % 2 else -1000.0)
    run = bench.run("latency", bench.budget(unit, 4.0))
    assert [row[2] for row in lengths(run)] == [1 if unit == "seconds" else 4] * SAMPLES


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("unit", UNITS)
def test_a_resumed_scope_has_only_what_was_left(
    bench: Bench, protocol: str, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first row has three tokens and is stored; then the process dies. The other two go on with what is left."""
    generate = bench.engine.generate

    def short_first(requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        brief = [
            replace(one, sampling=replace(one.sampling, max_tokens=3)) if one.sample_index == 0 else one
            for one in requests
        ]
        for row in generate(brief, deadline):
            yield row
            if row.sample_index == 0:
                raise KeyboardInterrupt

    monkeypatch.setattr(bench.engine, "generate", short_first)
    amount = {"seconds": 7.5, "flops": 1e30, "tokens": 3 + 9}[unit]
    with pytest.raises(KeyboardInterrupt):
        bench.run(protocol, Budget(amount, unit))
    bench.clock.sleep(86400.0)
    monkeypatch.setattr(bench.engine, "generate", generate)
    bench.passes = 0
    run = bench.run(protocol, Budget(amount, unit))
    (first, *others) = lengths(run)
    assert first == ("sums/0", "length", 3)
    if unit == "seconds":
        # 3 s were used; a pass that begins before 7.5 s is finished: at 4, 5, 6, 7 and 8 s.
        assert others == [("sums/0", "deadline", 5)] * 2
        assert {row["finished_s"] for row in run.completions()} == {3.0, 8.0}
    elif unit == "tokens":
        # 3 tokens were used, 9 are left: two rows make 2, 4, 6, 8, 10.
        assert others == [("sums/0", "deadline", 5)] * 2
    else:
        assert others == [("sums/0", "length", LIMIT)] * 2
    assert [segment["status"] for segment in run.manifest["segments"]] == ["interrupted", "finished"]
    assert run.manifest["validity"]["verdict"] == "VALID"


@pytest.mark.parametrize("unit", UNITS)
def test_a_resumed_flop_budget_counts_what_the_stored_rows_cost(bench: Bench, unit: Unit) -> None:
    first = bench.run("throughput", bench.budget(unit, 3.5))
    again = bench.run("throughput", bench.budget(unit, 3.5))
    assert bench.passes == 4, "a scope whose budget is used up is not run again"
    assert lengths(again) == lengths(first)


def test_the_partials_are_stored_marked_and_not_graded(bench: Bench) -> None:
    run = bench.run("latency", Budget(4.0))
    rows = run.completions()
    assert {row["finish_reason"] for row in rows} == {"deadline"}
    assert {row["finished_s"] for row in rows} == {4.0}
    assert {row["verdict"] for row in run.verdicts()} == {"no_answer"}


def test_what_is_done_with_a_completion_makes_no_other_late(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows end with the same pass, or are cut by the same deadline; storing one takes ten seconds."""
    from harness.running.runner import Writer

    add = Writer.add

    def slow(self: Writer, completion: Completion, now: float) -> None:
        bench.clock.sleep(10.0)
        add(self, completion, now)

    monkeypatch.setattr(Writer, "add", slow)
    cut = bench.run("throughput", Budget(4.0))
    assert {row["finished_s"] for row in cut.completions()} == {4.0}
    assert cut.manifest["compliance"]["within_budget"] == 1
    assert cut.manifest["validity"]["warnings"] == ["the harness itself took 88% of the time in the budget"]
    (row,) = cut.timing()
    assert row["outside_s"] == 10.0 * SAMPLES
    assert cut.manifest["overhead"] == {"outside_s": 30.0, "share": pytest.approx(30 / 34)}
    bench.folder = bench.folder.with_name("whole")
    whole = bench.run("throughput", None)
    assert {row["finished_s"] for row in whole.completions()} == {12.0}


def test_a_deadline_that_strikes_among_the_tokenised_prompts_starts_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.models import text

    encode = text.encode
    monkeypatch.setattr(text, "encode", lambda *a: bench.clock.sleep(1.0) or encode(*a))  # type: ignore[func-returns-value]
    run = bench.run("throughput", Budget(1.5), problems=3)
    assert run.completions() == []
    assert bench.passes == 0
    (row,) = run.timing()
    assert row["overshoot"] == 0.5


@pytest.mark.parametrize("amount", [0.4, 0.7])
def test_models_of_different_sizes_get_the_same_flops_within_a_step(tmp_path: Path, amount: float) -> None:
    """Two engines, two sizes: each stops within the cost of its own pass."""
    small, large = tiny.llama(), tiny.llama(hidden_size=64, intermediate_size=160, num_hidden_layers=4)
    spent = []
    budget: Budget | None = None
    for number, model in enumerate((small, large)):
        path = tiny.save(model, tmp_path / str(number))
        for engine in (native(path, device="cpu"), StepwiseModel(path, model, tiny.make_tokenizer(), 8, {})):
            requests = [Request("p", i, PROMPTS[0], Sampling(max_tokens=60, temperature=1.0)) for i in range(4)]
            if budget is None:
                free = Deadline(None, lambda: 0.0)
                list(engine.generate(requests, free))
                budget = Budget(amount * free.flops, "flops")
            deadline = budget.start(lambda: 0.0)
            rows = list(engine.generate(requests, deadline))
            prompt = len(engine.tokenizer(PROMPTS[0])["input_ids"])  # type: ignore[attr-defined]
            pass_flops = max(
                engine.flops.prefill(prompt),  # type: ignore[attr-defined]
                engine.flops.decode(4, 4 * (prompt + 60)),  # type: ignore[attr-defined]
            )
            assert any(row.finish_reason == "deadline" for row in rows)
            assert budget.amount <= deadline.flops < budget.amount + pass_flops
            spent.append(sum(row.prefill_flops + row.decode_flops for row in rows))
            assert spent[-1] == pytest.approx(deadline.flops)
    assert len(spent) == 4
