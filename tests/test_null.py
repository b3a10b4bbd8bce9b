"""The null model keeps its schedule, its lengths and its budget, and the harness it measures stays small."""

import statistics
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeClock, toy_task, write_plugins

from harness import plugins
from harness.budgets import Budget, Deadline
from harness.errors import UserError
from harness.models.null import null
from harness.nouns import Completion, Model, Problem, Request, Sampling
from harness.progress import chooser
from harness.running.bench import Arm, Plan, bench_arm
from harness.running.scopes import plan

NULL = "harness.models.null:null"


def requests(count: int, max_tokens: int = 4096) -> list[Request]:
    return [Request(f"p{i % 10}", i // 10, "?", Sampling(max_tokens=max_tokens)) for i in range(count)]


def run(model: Model, asked: list[Request], deadline: Deadline | None = None) -> list[Completion]:
    return list(model.generate(asked, deadline or Deadline(None, FakeClock())))


class StepClock(FakeClock):
    """Moves on by a tenth of a millisecond whenever somebody looks."""

    def __call__(self) -> float:
        self.now_s += 1e-4
        return self.now_s


@pytest.mark.parametrize(
    ("lengths", "variance"), [("geometric", 50 * 49), ("uniform", (99**2 - 1) / 12), ("fixed", 0.0)]
)
def test_lengths_have_their_distribution(lengths: str, variance: float) -> None:
    found = np.array([row.completion_tokens for row in run(null(tokens=50, lengths=lengths), requests(20000))])  # type: ignore[arg-type]
    # Five standard errors of the mean, and of the variance of the widest of the three.
    assert found.mean() == pytest.approx(50, abs=5 * (variance / 20000) ** 0.5)
    assert found.var() == pytest.approx(variance, rel=0.1)
    assert found.min() >= 1


def test_a_completion_depends_on_its_seed_and_the_models_alone() -> None:
    def texts(model: Model, asked: list[Request]) -> dict[tuple[str, int], str]:
        return {(row.problem_id, row.sample_index): row.text for row in run(model, asked)}

    asked = requests(300)
    whole = texts(null(), asked)
    assert texts(null(batch_size=7), asked[::-1]) == whole
    assert texts(null(), asked[:100]).items() <= whole.items()
    assert texts(null(seed=1), asked) != whole


def test_every_request_is_answered_once_and_cut_at_its_limit() -> None:
    found = run(null(tokens=50), requests(500, max_tokens=20))
    assert len({(row.problem_id, row.sample_index) for row in found}) == len(found) == 500
    assert {row.finish_reason for row in found} == {"stop", "length"}
    assert all(row.completion_tokens == 20 for row in found if row.finish_reason == "length")
    assert all(row.completion_tokens <= 20 for row in found)
    assert all(row.text.endswith(".") == (row.finish_reason == "stop") for row in found)


def test_rows_end_with_their_step() -> None:
    clock = StepClock()
    deadline = Deadline(None, clock)
    found = run(null(tokens=8, seconds_per_step=0.01, batch_size=4), requests(40), deadline)
    for row in found:
        steps = row.finished_s / 0.01
        assert steps - int(steps + 1e-6) < 0.05
        assert row.finished_s - row.started_s == pytest.approx(0.01 * row.completion_tokens, abs=1e-3)
    assert found == sorted(found, key=lambda row: row.finished_s)


@pytest.mark.parametrize(("unit", "amount"), [("seconds", 0.1), ("tokens", 37.0), ("flops", 370.0)])
def test_a_budget_ends_with_the_step_that_uses_it_up(unit: str, amount: float) -> None:
    deadline = Deadline(Budget(amount, unit), StepClock())  # type: ignore[arg-type]
    model = null(tokens=30, lengths="fixed", seconds_per_step=0.01, batch_size=4, flops_per_token=10.0)
    found = run(model, requests(20), deadline)
    assert [(row.finish_reason, row.completion_tokens) for row in found] == [("deadline", 10)] * 4
    assert deadline.tokens == 40


def test_a_budget_that_is_used_up_starts_nothing() -> None:
    assert run(null(), requests(5), Deadline(Budget(1.0), FakeClock(), offset_s=2.0)) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lengths": "normal"}, "no spread of lengths 'normal'"),
        ({"tokens": 0}, "tokens must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"seconds_per_step": -1.0}, "must not be negative, got -1.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        null(**options)  # type: ignore[arg-type]


def test_it_is_found_as_a_model_plug_in() -> None:
    assert not plugins.names_checkpoint(NULL)
    assert plugins.load_model(NULL, "plug-in", ["tokens=3", "lengths=fixed"]).name == "null"


@pytest.mark.parametrize("protocol", ["latency", "throughput"])
def test_a_run_of_it_has_every_row_and_its_overhead(tmp_path: Path, protocol: str) -> None:
    asked = Plan("toy", (), None, None, protocol, None, 300, Sampling(max_tokens=4096))
    found = bench_arm(Arm(NULL, "plug-in", ("tokens=4",), tmp_path / "run"), asked, toy_task(7), chooser(True))
    assert found.manifest["validity"]["verdict"] == "VALID"
    assert found.tally([f"toy/{i}" for i in range(7)], 300).done.all()
    assert found.graded([f"toy/{i}" for i in range(7)], 300).all()
    assert 0 < found.manifest["overhead"]["share"] < 1
    assert found.manifest["segments"][0]["probes"].keys() >= {"compute_s", "memory_s", "lost_share"}


def test_memory_does_not_grow_with_the_completions_of_a_scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is alive while a run samples is what waits to be stored, however much has been stored already."""
    import gc

    from harness.running import runner

    monkeypatch.setattr(runner, "FLUSH_ROWS", 500)
    alive: list[int] = []
    store = runner.Writer.store

    def count() -> int:
        return sum(type(one) in (Completion, Request, Problem) for one in gc.get_objects())

    def counted(self: runner.Writer, *stored: object) -> None:
        store(self, *stored)  # type: ignore[arg-type]
        alive.append(count())

    monkeypatch.setattr(runner.Writer, "store", counted)
    asked = Plan("toy", (), None, None, "throughput", None, 2000, Sampling(max_tokens=4096))
    before = count()
    bench_arm(Arm(NULL, "plug-in", ("tokens=2",), tmp_path / "run"), asked, toy_task(5), chooser(True))
    assert len(alive) >= 5
    assert statistics.median(alive) - before < 6000, "of 10000 completions"
    (scope,) = plan([Problem("p", "?", "1")], 10**6, Sampling(), "throughput")
    assert len(scope.requests) == 10**6


def test_bench_prints_how_the_budget_was_kept_and_what_the_harness_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from harness.cli import app

    monkeypatch.chdir(tmp_path)
    asked = [
        "bench",
        NULL,
        "--task",
        f"{write_plugins(tmp_path)}:sums",
        "--budget",
        "0.2s",
        "--samples",
        "4",
        "--quiet",
    ]
    asked += ["-M", "seconds_per_step=0.002", "--out", "run"]
    printed = CliRunner().invoke(app, asked).stdout
    assert "run: budget 0.2" in printed
    assert "run: overshoot in seconds: median" in printed
    assert "run: overshoot in decode steps: median" in printed
    assert "run: harness overhead" in printed
    assert "overhead" not in CliRunner().invoke(app, [*asked, "--json"]).stdout
