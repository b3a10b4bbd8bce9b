"""Modelled time against a pass-by-pass simulation, against all subsets, and against an engine of known times."""

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from clockwork import Clockwork, finish_s, pass_s, prefill_s
from fakes import FakeClock

from harness import plugins
from harness.analysis.bank import load_bank
from harness.analysis.summarise import summarise
from harness.budgets import Deadline
from harness.errors import UserError
from harness.importing import import_file
from harness.nouns import Request, Sampling
from harness.storage.runs import Run
from harness.timing.modelled import (
    Job,
    batch_s,
    conversion_s,
    expected_run_s,
    expected_s,
    finish_times,
    generation_s,
    recorded_jobs,
    waves,
)
from harness.timing.modelled_curves import (
    Comparison,
    compare,
    describe,
    m1_curves,
    modelled_curves,
    with_modelled_curves,
    with_modelled_seconds,
)
from harness.timing.timing_tables import Cell, TimingTable

PROMPT = 30


@pytest.fixture(scope="module")
def table() -> TimingTable:
    """The times of `clockwork`, which are linear between any cells."""
    cells = []
    for batch in (1, 3, 16):
        for context in (1, 400):
            cells.append(("decode", batch, context, pass_s(batch, context)))
            cells.append(("prefill", batch, context, prefill_s(batch, context)))
        cells.append(("finish", batch, 0, finish_s(batch)))
    return TimingTable(tuple(Cell(p, b, c, s, s, s, 1, 1) for p, b, c, s in cells), {"model": "clockwork"})  # type: ignore[arg-type]


def pass_by_pass(jobs: Sequence[Job], limit: int) -> list[float]:
    """The engine's schedule, one pass at a time, with the formulas themselves."""
    now, waiting, flying, read = 0.0, list(range(len(jobs))), dict[int, int](), set[str]()
    ends = [0.0] * len(jobs)
    while waiting or flying:
        boarding, waiting = waiting[: limit - len(flying)], waiting[limit - len(flying) :]
        for prompt_id in dict.fromkeys(jobs[index].prompt_id for index in boarding):
            sharers = [index for index in boarding if jobs[index].prompt_id == prompt_id]
            now += 0.002 * len(sharers) if prompt_id in read else prefill_s(len(sharers), jobs[sharers[0]].prompt)
            read.add(prompt_id)
        flying |= dict.fromkeys(boarding, 1)
        if not any(flying[index] == jobs[index].length for index in flying):
            now += pass_s(len(flying), sum(jobs[i].prompt + done - 1 for i, done in flying.items()) / len(flying))
            flying = {index: done + 1 for index, done in flying.items()}
        for index in [index for index, done in flying.items() if done == jobs[index].length]:
            now += finish_s(len(flying))
            ends[index] = now
            del flying[index]
    return ends


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("limit", [1, 3, 16])
def test_finish_times_are_those_of_the_schedule(table: TimingTable, seed: int, limit: int) -> None:
    rng = random.Random(seed)
    prompts = {f"p{number}": rng.randint(2, 40) for number in range(5)}
    jobs = [Job(name, prompts[name], rng.randint(1, 60)) for name in rng.choices(list(prompts), k=16)]
    assert finish_times(table, jobs, limit).tolist() == pytest.approx(pass_by_pass(jobs, limit))


def test_a_batch_takes_as_long_as_the_engine_that_the_table_describes(table: TimingTable) -> None:
    lengths = [5, 40, 1, 17, 17, 90]
    clock = FakeClock()
    engine = Clockwork(clock, lambda request: lengths[request.sample_index])
    prompt = "w " * (PROMPT - 1)
    requests = [Request("p", index, prompt, Sampling(max_tokens=1000)) for index in range(len(lengths))]
    rows = list(engine.generate(requests, Deadline(None, clock)))
    modelled = finish_times(table, [Job("p", PROMPT, length) for length in lengths])
    assert [modelled[row.sample_index] for row in rows] == pytest.approx([row.finished_s for row in rows])
    assert batch_s(table, PROMPT, lengths) == pytest.approx(max(row.finished_s for row in rows))


@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_the_expected_time_is_the_mean_over_all_subsets(table: TimingTable, k: int) -> None:
    lengths = [5, 40, 1, 17, 17, 90]
    subsets = itertools.combinations(lengths, k)
    expected = np.mean([batch_s(table, PROMPT, subset) for subset in subsets])
    assert expected_s(table, PROMPT, lengths, k) == pytest.approx(expected)


def test_more_samples_than_fit_are_averaged_over_random_subsets(table: TimingTable) -> None:
    lengths = [5, 40, 1, 17, 17, 90]
    assert expected_s(table, PROMPT, lengths, 6, limit=2) == pytest.approx(
        batch_s(table, PROMPT, lengths, limit=2), rel=0.2
    )
    alike = [20] * 6
    assert expected_s(table, PROMPT, alike, 4, limit=2) == pytest.approx(batch_s(table, PROMPT, alike[:4], limit=2))
    assert expected_s(table, PROMPT, lengths, 5, limit=2) == expected_s(table, PROMPT, lengths, 5, limit=2)


def test_waves_are_the_throughput_protocols_order() -> None:
    first, second = ([Job(name, 3, length) for length in range(1, count + 1)] for name, count in (("a", 3), ("b", 2)))
    assert [(job.prompt_id, job.length) for job in waves([first, second])] == [
        ("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3),
    ]  # fmt: skip


def test_a_whole_run_takes_what_its_waves_take(table: TimingTable) -> None:
    jobs = [[Job(name, 20, length) for length in (9, 9, 9)] for name in "ab"]
    for k in (1, 2, 3):
        once = finish_times(table, waves([own[:k] for own in jobs]), limit=4).max()
        assert expected_run_s(table, jobs, k, limit=4) == pytest.approx(once)


def test_m1s_conversion_by_hand(table: TimingTable) -> None:
    rates = {}
    for batch in (1, 3, 16):
        seconds = prefill_s(batch, 50) + sum(pass_s(batch, 50 + number) for number in range(99))
        rates[batch] = batch * 100 / seconds
        assert generation_s(table, batch, 50, 100) == pytest.approx(seconds)
    assert conversion_s(table, samples=32, longest=8192, prompt=50, generated=100) == pytest.approx(
        32 * 8192 / max(rates.values())
    )


LENGTHS = {"a": [5, 40, 1, 17], "b": [30, 30, 8, 2]}


@pytest.fixture
def run(tmp_path: Path, table: TimingTable) -> Run:
    """Two problems of four samples; those with an even index are right. Times are those of clockwork, 3 % slower."""
    lines = []
    for name, lengths in LENGTHS.items():
        finished = finish_times(table, [Job(name, PROMPT, length) for length in lengths])
        for index, length in enumerate(lengths):
            row = {"problem_id": name, "gold": "4", "answer": "4" if index % 2 == 0 else "5", "prompt_tokens": PROMPT}
            lines.append(row | {"completion_tokens": length, "finished_s": 1.03 * finished[index]})
    file = tmp_path / "recorded.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    return import_file(file, "math", [], None, tmp_path / "run", "someone", False)[0]


def test_curves_have_expected_values_at_expected_times(run: Run, table: TimingTable) -> None:
    selectors = [plugins.load_selector(name) for name in ("coverage", "majority")]
    by_k = {curve.selector: curve for curve in summarise(run, selectors).curves if curve.axis == "k"}
    for curve in modelled_curves(run, selectors, table):
        assert (curve.kind, curve.axis, curve.charged) == ("modelled", "seconds", None)
        assert [point.value for point in curve.points] == [point.value for point in by_k[curve.selector].points]
        for k, point in zip((1, 2, 4), curve.points, strict=True):
            times = [
                np.mean([batch_s(table, PROMPT, subset) for subset in itertools.combinations(lengths, k)])
                for lengths in LENGTHS.values()
            ]
            assert point.x == pytest.approx(np.mean(times))
    replicated = m1_curves(run, selectors, table, longest=8192)
    assert [curve.selector for curve in replicated] == ["coverage (M1 conversion)", "majority (M1 conversion)"]
    xs = [point.x for point in replicated[0].points]
    assert xs == pytest.approx([xs[0], 2 * xs[0], 4 * xs[0]])


def test_samples_move_to_their_modelled_seconds(run: Run, table: TimingTable) -> None:
    items = load_bank(run)
    for before, after in zip(items, with_modelled_seconds(items, run, table), strict=True):
        expected = finish_times(table, [Job("", PROMPT, length) for length in LENGTHS[before.problem_id]])
        assert list(after.positions["seconds"]) == pytest.approx(expected.tolist())
        assert list(before.positions["seconds"]) == pytest.approx((1.03 * expected).tolist())
        assert list(after.positions["tokens"]) == list(before.positions["tokens"])


def test_measured_and_modelled_time_are_compared_scope_by_scope(run: Run, table: TimingTable) -> None:
    found = compare(run, table)
    assert [(one.scope, one.samples) for one in found] == [("a", 4), ("b", 4)]
    assert [one.error for one in found] == pytest.approx([1 / 1.03 - 1] * 2)
    errors = [Comparison("x", 1, 1.0, 1 + error) for error in (-0.1, 0.02, 0.04)]
    assert describe(errors) == pytest.approx({"median": 0.04, "p90": 0.088, "worst": 0.1, "bias": 0.02})
    assert describe([]) == {}


def test_a_summary_gains_curves_and_what_they_rest_on(run: Run, table: TimingTable) -> None:
    selectors = [plugins.load_selector("coverage")]
    engine = {"engine": "clockwork", "dtype": "float32", "device_name": "a clock"}
    bare = summarise(run, selectors)
    other = with_modelled_curves(bare, run, selectors, TimingTable(table.cells, {"engine": engine}))
    assert other.curves == (*bare.curves, *modelled_curves(run, selectors, table))
    assert other.facts == {**bare.facts, **{f"timing_{name}": value for name, value in engine.items()}}
    run.manifest["engine"] = engine
    same = with_modelled_curves(bare, run, selectors, TimingTable(table.cells, {"engine": engine}))
    assert same.facts["modelled_median_error"] == pytest.approx(1 - 1 / 1.03)


def test_without_token_counts_there_is_no_modelled_time(tmp_path: Path) -> None:
    file = tmp_path / "recorded.jsonl"
    file.write_text(json.dumps({"problem_id": "a", "gold": "4", "answer": "4"}))
    bare, _ = import_file(file, "math", [], None, tmp_path / "run", "someone", False)
    with pytest.raises(UserError, match="has no token counts"):
        recorded_jobs(bare)
