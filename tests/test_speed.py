"""`ttc speed` on an engine of known times, and its way into the real ones."""

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import typer
from clockwork import Clockwork, finish_s, pass_s, prefill_s
from engine_checks import ask, by_key, texts
from engine_checks import run as run_engine
from fakes import FakeClock
from tiny_students import STUDENTS, save
from typer.testing import CliRunner

from harness.budgets import Deadline
from harness.cli import speed as command
from harness.errors import UserError
from harness.importing import import_file
from harness.models.costs import ceilings
from harness.models.costs.ceilings import measure_ceilings
from harness.models.costs.endless import endless
from harness.models.costs.native_passes import NativePasses, passes_of
from harness.models.costs.random_checkpoint import write_random
from harness.models.costs.shapes import read_shape
from harness.models.native import load_model, native
from harness.models.transformers_ import transformers
from harness.nouns import Completion, Request, Sampling
from harness.progress import Quiet
from harness.timing.modelled import batch_s
from harness.timing.speed import BY_CALLS, DIRECT, Grid, default_contexts, measure
from harness.timing.speed_arms import Asked, covering, engine_options
from harness.timing.speed_calls import Calls
from harness.timing.speed_report import document, speed_ups
from harness.timing.timing_tables import Cell, TimingTable, read_timings

GRID = Grid(batches=(1, 4, 8), prompts=(12, 40), contexts=(20, 60), generated=30, passes=10, repeats=2)


class Ticks:
    """A clock on which a second passes from each look to the next."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_the_grid_of_an_engine_of_known_times_is_its_formulas() -> None:
    clock = FakeClock()
    engine = Clockwork(clock)
    table = measure(engine, GRID, Sampling(), Quiet(), clock)
    found = {(cell.phase, cell.batch, cell.context): cell for cell in table.cells}
    expected = {("prefill", b, p): prefill_s(b, p) for b, p in itertools.product((1, 4, 8), (12, 40))}
    # Ten passes around a context: their mean is that of the context half a pass before it.
    expected |= {("decode", b, c): pass_s(b, c - 0.5) for b, c in itertools.product((1, 4, 8), (20, 60))}
    rows_that_leave = {4: (3, 2, 1), 8: (7, 6, 5, 4, 3, 2, 1)}
    expected |= {("finish", b, 0): sum(map(finish_s, left)) / len(left) for b, left in rows_that_leave.items()}
    assert found.keys() == expected.keys()
    for key, seconds in expected.items():
        # The end of the first row comes before its time is taken; what the later ones took on average is taken off.
        later = sum(map(finish_s, range(1, key[1]))) / (key[1] - 1) if key[1] > 1 else 0.0
        slack = (finish_s(key[1]) - later) / 10 if key[0] == "decode" else 0.0
        assert found[key].seconds == pytest.approx(seconds + slack), key
        assert found[key].repeats == (4 if key[0] == "finish" else 2)
        assert found[key].low_s == pytest.approx(found[key].high_s)
    assert table.facts["decode_timed_by"] == BY_CALLS
    assert table.facts["not_measured"] == []
    assert len(set(engine.prompts)) == len(engine.prompts)


def test_a_measured_table_models_the_engine_it_was_measured_on() -> None:
    clock = FakeClock()
    grid = Grid(batches=(1, 4, 16), prompts=(10, 30), contexts=(20, 60, 160), generated=50, passes=10, repeats=1)
    table = measure(Clockwork(clock), grid, Sampling(), Quiet(), clock)
    rng = random.Random(0)
    for k in (1, 3, 9, 16):
        lengths = [rng.randint(20, 120) for _ in range(k)]
        engine = Clockwork(clock, lambda request, lengths=lengths: lengths[request.sample_index])  # type: ignore[misc]
        rows = run_engine(engine, ask(["w " * 24], samples=k, sampling=Sampling()), Deadline(None, clock))
        assert batch_s(table, 25, lengths) == pytest.approx(max(row.finished_s for row in rows), rel=0.02)


def test_what_does_not_fit_is_told_and_left_out() -> None:
    clock = FakeClock()
    table = measure(Clockwork(clock, limit=4), GRID, Sampling(), Quiet(), clock)
    assert {cell.batch for cell in table.cells} == {1, 4}
    assert table.facts["not_measured"] == [
        f"{phase} of 8 rows at {tokens} tokens: they do not fit, or end early"
        for phase, places in (("prefill", (40, 12)), ("decode", (60, 20)))
        for tokens in places
    ]


def test_rows_that_end_early_are_not_taken_for_whole_ones() -> None:
    clock = FakeClock()
    calls = Calls(Clockwork(clock, lambda request: 7 if request.sample_index == 2 else 99), Sampling(), clock)
    assert calls.decode(2, 20, 10) is not None
    assert calls.decode(3, 20, 10) is None


class Doubling(Clockwork):
    """Counts two tokens for every word."""

    def row(self, request: Request, prompt: int, *rest: Any) -> Completion:
        return super().row(request, 2 * prompt, *rest)


def test_a_prompt_comes_as_near_as_the_tokenizer_allows() -> None:
    clock = FakeClock()
    calls = Calls(Doubling(clock), Sampling(), clock)
    assert [calls.prefill(1, wanted, 5).context for wanted in (40, 41, 500)] == [40, 40, 500]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "values"),
    [("--batch", {"batches": (0,)}), ("--prompt", {"prompts": ()}), ("--generate", {"generated": 0})],
)
def test_a_grid_that_means_nothing_is_refused(name: str, values: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"batches": (1,), "prompts": (5,), "contexts": (5,), "generated": 5}
    with pytest.raises(UserError, match=f"{name} wants whole numbers of at least 1"):
        Grid(**whole | values)


def test_contexts_span_the_generation() -> None:
    assert default_contexts((512,), 512) == (512, 768, 1024)
    assert default_contexts((16, 64), 1) == (16, 40, 65)


@pytest.mark.parametrize(
    "name", ["llama", "llamba", "mamba-in-llama fused", "mamba-in-llama mamba2", "phi-mamba hybrid"]
)
def test_passes_of_the_native_engine_stand_where_they_say(name: str, tmp_path: Path) -> None:
    engine: Any = native(save(STUDENTS[name](), tmp_path), max_batch_size=8, random_weights=True)
    requests = ask(["Add 2 and 3.", "What?"], samples=3)
    before = texts(run_engine(engine, requests))
    timer = passes_of(engine, Sampling(), Ticks())
    assert isinstance(timer, NativePasses)
    flight = timer.board(batch=3, context=40, shared=25, generated=12, passes=10)
    assert flight is not None
    slots = flight.slots
    assert (slots.count, slots.contexts()) == (3, 3 * 41)
    assert slots.positions[:3].tolist() == [40] * 3
    assert slots.shared[:3].tolist() == [25] * 3
    timer.passes(flight, Deadline(None, Ticks()), 4)
    assert slots.positions[:3].tolist() == [44] * 3
    assert len(timer.ends(flight, Deadline(None, Ticks()), generated=12)) == 3
    assert slots.count == 0
    # Ten passes, each of which looks at the clock for the deadline, which has no budget: only the two ends count.
    timed = timer.time(batch=3, context=40, prompt=25, generated=12, passes=10)
    assert timed is not None
    assert (timed.context, timed.seconds) == (40, 0.1)
    assert timer.time(batch=9, context=40, prompt=25, generated=12, passes=10) is None
    assert texts(run_engine(engine, requests)) == before


@pytest.mark.parametrize("engine_name", ["native", "transformers"])
def test_no_row_ends_early_while_ends_are_ignored(engine_name: str, tmp_path: Path) -> None:
    folder = tiny.save(tiny.llama(), tmp_path)
    engine: Any = native(folder) if engine_name == "native" else transformers(folder)
    requests = ask(["Add 2 and 3.", "What?", "Say."], samples=8, sampling=Sampling(temperature=1.0, max_tokens=30))
    before = by_key(run_engine(engine, requests))
    with endless(engine):
        assert {row.completion_tokens for row in run_engine(engine, requests)} == {30}
    assert min(row.completion_tokens for row in before.values()) < 30
    assert texts(run_engine(engine, requests)) == texts(list(before.values()))


def test_an_engine_that_says_so_is_told_to_ignore_ends() -> None:
    class Engine:
        ignores_ends = False

    engine = Engine()
    with endless(engine):
        assert engine.ignores_ends
    assert not engine.ignores_ends


def test_ceilings_are_bytes_and_operations_over_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ceilings.SIZES, "cpu", (4096, 32))
    assert measure_ceilings("cpu", "bfloat16", Ticks()) == {
        "dtype": "bfloat16",
        "copy_bytes_per_s": 2 * 4096.0,
        "triad_bytes_per_s": 3 * 4096.0,
        "bytes_per_s": 3 * 4096.0,
        "flops_per_s": 2.0 * 32**3,
    }


@pytest.mark.parametrize("name", ["llama untied", "llamba", "mamba-in-llama", "mamba-in-llama mamba2", "mamba2"])
def test_random_checkpoints_have_the_shape_and_no_weight_of_their_model(name: str, tmp_path: Path) -> None:
    folder = save(STUDENTS[name](), tmp_path / "model")
    written = str(write_random(folder, tmp_path / "random", "float32"))
    assert read_shape(written) == read_shape(folder)
    one, other = load_model(folder), load_model(written)
    assert not torch.equal(one.embedding.weight, other.embedding.weight)
    engine: Any = native(folder, random_weights=True)
    assert engine.flops == read_shape(folder).forward
    assert {row.completion_tokens for row in run_engine(engine, ask(["hello"], sampling=Sampling(max_tokens=6)))} == {6}


def test_random_weights_reach_an_engine_that_only_reads_files(tmp_path: Path) -> None:
    folder = save(STUDENTS["llama"](), tmp_path / "model")
    engine = transformers(str(write_random(folder, tmp_path / "random", "float32")))
    assert len(run_engine(engine, ask(["hello"], sampling=Sampling(max_tokens=6)))) == 1


def ttc_speed(*arguments: str) -> Any:
    app = typer.Typer()
    command.add_to(app)
    return CliRunner().invoke(app, [*arguments, "--quiet"])


BRIEF = ("--batch", "1,3", "--prompt", "9", "--generate", "8", "--repeats", "2", "--passes", "3")


@pytest.mark.parametrize("engine", ["native", "transformers"])
def test_the_command_measures_prints_and_stores(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ceilings.SIZES, "cpu", (4096, 32))
    folder = tiny.save(tiny.llama(), tmp_path / "model")
    out = tmp_path / "out"
    shown = ttc_speed(folder, *BRIEF, "--engine", engine, "--out", str(out), "--json")
    assert shown.exit_code == 0, shown.exception
    found = json.loads(shown.stdout)
    facts, cells = found["tables"][0]["facts"], found["tables"][0]["cells"]
    assert facts["model"] == folder
    assert facts["decode_timed_by"] == (DIRECT if engine == "native" else BY_CALLS)
    assert facts["engine"]["engine"] == engine
    assert {"torch", "ttc"} <= facts["versions"].keys()
    assert {(cell["phase"], cell["batch"]) for cell in cells} >= {("prefill", 1), ("decode", 3)}
    shape = read_shape(folder)
    decode = next(cell for cell in cells if cell["phase"] == "decode" and cell["batch"] == 3)
    assert decode["flops"] == 3 * shape.forward.decode(1, decode["context"] + 1)
    assert decode["share"] == decode["bound_s"] / decode["seconds"]
    assert [row["batch"] for row in found["tables"][0]["generations"]] == [1, 3]
    stored = read_timings(out)
    assert [cell.seconds for cell in stored.cells] == [cell["seconds"] for cell in cells]
    assert all((out / f"speed.{form}").stat().st_size > 5000 for form in ("png", "svg", "pdf"))


def test_the_command_compares_models_and_prints_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ceilings.SIZES, "cpu", (4096, 32))
    teacher = tiny.save(tiny.llama(), tmp_path / "teacher")
    student = save(STUDENTS["llamba"](), tmp_path / "student")
    shown = ttc_speed(teacher, student, *BRIEF, "--random-weights", "--out", str(tmp_path / "out"))
    assert shown.exit_code == 0, shown.exception
    for words in ("ceilings:", "whole generations", "speed-up at equal batch and length", "decode", "share"):
        assert words in shown.stdout
    stored = {read_timings(path).facts["model"] for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert stored == {student, teacher}


def test_users_mistakes_are_one_sentence(tmp_path: Path) -> None:
    for arguments, told in (
        (["zoo/teacher", "--batch", "1,many"], "--batch wants whole numbers apart by commas, got '1,many'"),
        (["a-b/x", "a_b/x"], "two models share the name 'a-b-x'"),
        (["zoo/teacher", "--batch", "0"], "--batch wants whole numbers of at least 1, got 0"),
        (["zoo/nobody"], "the zoo has no checkpoint 'nobody'"),
        (["zoo/teacher", "--cover", str(tmp_path / "none")], "no run at"),
    ):
        shown = ttc_speed(*arguments, "--out", str(tmp_path))
        assert isinstance(shown.exception, UserError), shown.exception
        assert told in str(shown.exception)


def test_a_grid_that_covers_a_run_spans_its_lengths(tmp_path: Path) -> None:
    rows = [{"problem_id": f"p{n % 3}", "gold": "4", "answer": "4"} for n in range(18)]
    rows = [row | {"prompt_tokens": 10 + n % 3, "completion_tokens": 5 + 4 * n} for n, row in enumerate(rows)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run, _ = import_file(tmp_path / "x.jsonl", "math", [], None, tmp_path / "run", "someone", False)
    grid = covering(run, passes=16, repeats=3)
    # 6 samples of each problem; the shortest prompt has 10 tokens, the longest text 12 + 5 + 4 * 17.
    assert grid == Grid((1, 2, 4, 6), (10, 12), (10, 28, 47, 66, 85), generated=41, passes=16, repeats=3)


def test_engines_are_given_what_they_take() -> None:
    asked = Asked(None, ("max_batch_size=7",), "float32", True, GRID, Sampling())
    assert engine_options("zoo/teacher", "native", asked) == (
        "max_batch_size=7", "dtype=float32", "random_weights=true",
    )  # fmt: skip
    assert engine_options("zoo/teacher", "transformers", replace(asked, options=())) == (
        "max_batch_size=8", "dtype=float32",
    )  # fmt: skip
    with pytest.raises(UserError, match="engine replay has no choice of dtype; leave out --dtype"):
        engine_options("run", "replay", asked)


def table_of(model: str, seconds: float, bound_s: float) -> TimingTable:
    cells = [Cell("decode", 4, c, seconds, seconds, seconds, 1, 1, 1.0, 1.0, bound_s) for c in (10, 29)]
    cells.append(Cell("prefill", 4, 10, seconds, seconds, seconds, 1, 1, 1.0, 1.0, bound_s))
    facts = {"model": model, "engine": {}, "grid": {"batches": [4], "generated": 20}, "decode_timed_by": DIRECT}
    return TimingTable(tuple(cells), facts)


def test_a_speed_up_stands_beside_what_the_ceilings_allow() -> None:
    tables = [table_of("teacher", 0.3, 0.1), table_of("student", 0.2, 0.05)]
    assert speed_ups(tables) == [
        {
            "model": "student",
            "over": "teacher",
            "batch": 4,
            "prompt": 10,
            "generated": 20,
            "measured": pytest.approx(1.5),
            "bound": pytest.approx(2.0),
        }
    ]
    assert document(tables)["tables"][0]["generations"][0]["tokens_per_s"] == pytest.approx(4 * 20 / (20 * 0.3))
