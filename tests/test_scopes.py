"""What is left to ask of a model, and what is stored of a run, against plain Python; the parts of timing.parquet."""

import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.errors import UserError
from harness.nouns import Completion, FinishReason, Problem, Sampling
from harness.running.scopes import Awaited, Requests, plan
from harness.storage.records import COMPLETIONS, TIMING, read_part, write_table
from harness.storage.runs import Run

PROBLEMS = [Problem(f"p{i}", f"question {i}", "1") for i in range(5)]
IDS = [problem.id for problem in PROBLEMS]
SAMPLES = 4


def completion(problem: int, sample: int, reason: FinishReason = "stop", finished: float = 1.0) -> Completion:
    return Completion(
        f"p{problem}", sample, "text", reason, 3, 7, 0, 0.0, 0.0, 0.1, finished, 1.0, 10.0, 100.0 * sample
    )


def timing(problem: str | None, spent: float = 1.0) -> dict[str, Any]:
    return {"segment": 0, "phase": "generate", "problem_id": problem, "elapsed_s": 1.0, "spent": spent}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", {"spec": {"samples": SAMPLES}})


def keys(requests: Any) -> list[tuple[str, int]]:
    return [(request.problem_id, request.sample_index) for request in requests]


def test_requests_are_a_sequence() -> None:
    (scope,) = plan(PROBLEMS, SAMPLES, Sampling(seed=3), "throughput")
    requests = scope.requests
    waves = [(problem.id, index) for index in range(SAMPLES) for problem in PROBLEMS]
    assert keys(requests) == waves
    assert keys([requests[0], requests[7], requests[-1]]) == [waves[0], waves[7], waves[-1]]
    assert keys(requests[3:9:2]) == waves[3:9:2]
    assert len(requests) == len(waves)
    assert requests[7].prompt == "question 2"
    assert requests[7].sampling.seed == 3
    assert requests[7] in requests
    with pytest.raises(IndexError):
        requests[len(waves)]


def test_a_long_sequence_is_read_to_its_end() -> None:
    (scope,) = plan(PROBLEMS, 3000, Sampling(), "throughput")
    assert keys(scope.requests) == [(problem.id, index) for index in range(3000) for problem in PROBLEMS]


@pytest.mark.parametrize("protocol", ["latency", "throughput"])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_is_what_is_not_stored(run: Run, protocol: str, seed: int) -> None:
    rng = random.Random(seed)
    everything = [(problem, sample) for problem in range(5) for sample in range(SAMPLES)]
    stored = rng.sample(everything, rng.randrange(1, 20))
    rows = [completion(*key, finished=rng.random()) for key in stored]
    for start in range(0, len(rows), 3):
        run.add_completions(rows[start : start + 3])
    run.add_completions(rows[:2])  # twice, as no run should have them
    scopes = plan(PROBLEMS, SAMPLES, Sampling(), protocol, run.tally(IDS, SAMPLES))
    left = [(f"p{problem}", sample) for problem, sample in everything if (problem, sample) not in stored]
    if protocol == "throughput":
        (scope,) = scopes
        assert keys(scope.requests) == sorted(left, key=lambda key: (key[1], key[0]))
        assert scope.used_s == max(row.finished_s for row in rows)
        assert scope.used_flops == sum(row.prefill_flops + row.decode_flops for row in rows)
        assert scope.used_tokens == 7 * len(rows)
        return
    assert [key for scope in scopes for key in keys(scope.requests)] == left
    for scope in scopes:
        mine = [row for row in rows if row.problem_id == scope.problem_id]
        assert scope.used_s == max((row.finished_s for row in mine), default=0.0)
        assert scope.used_flops == sum(row.prefill_flops + row.decode_flops for row in mine)
        assert scope.used_tokens == 7 * len(mine)


def test_scopes_that_the_deadline_struck_are_over(run: Run) -> None:
    run.add_completions([completion(0, 0), completion(1, 0, "deadline"), completion(2, 0, "error")])
    tally = run.tally(IDS, SAMPLES)
    assert [scope.problem_id for scope in plan(PROBLEMS, SAMPLES, Sampling(), "latency", tally, {"p4"})] == [
        "p0",
        "p2",
        "p3",
    ]
    assert plan(PROBLEMS, SAMPLES, Sampling(), "throughput", tally) == []
    assert plan(PROBLEMS, SAMPLES, Sampling(), "throughput", None, {None}) == []
    assert tally.reasons == {"stop": 1, "deadline": 1, "error": 1}


def test_rows_of_other_problems_and_samples_are_left_out(run: Run) -> None:
    run.add_completions([completion(9, 0), completion(1, 17), completion(1, 2)])
    tally = run.tally(IDS, SAMPLES)
    assert [tuple(place) for place in zip(*tally.done.nonzero(), strict=True)] == [(1, 2)]


def test_an_answer_is_awaited_once() -> None:
    import numpy as np

    awaited = Awaited(Requests(PROBLEMS, np.array([0, 7]), Sampling()))
    assert awaited.answered("p2", 1)
    assert not awaited.answered("p2", 1)
    assert not awaited.answered("p2", 0)
    assert not awaited.answered("p2", -1)
    assert not awaited.answered("other", 0)
    assert awaited.answered("p0", 0)


def test_rows_come_problem_by_problem(run: Run) -> None:
    for sample in range(3):
        run.add_completions([completion(problem, sample) for problem in (4, 0, 2)])
    found = list(run.rows_of("completions", ["p2", "p3", "p4"], ("problem_id", "sample_index")))
    assert found == [
        [{"problem_id": "p2", "sample_index": sample} for sample in range(3)],
        [],
        [{"problem_id": "p4", "sample_index": sample} for sample in range(3)],
    ]
    assert list(run.rows_of("verdicts", ["p2", "p3"])) == [[], []]


def test_the_sitting_is_written_with_its_completions(run: Run) -> None:
    run.add_completions([completion(0, 0)], segment=3)
    assert [row["segment"] for row in run.completions()] == [3]


# timing.parquet


def spents(run: Run) -> list[float]:
    return [row["spent"] for row in run.timing()]


def test_timing_is_appended_and_then_folded_into_one_file(run: Run) -> None:
    for number in range(3):
        run.add_timing([timing("p0", number)])
    assert spents(run) == [0, 1, 2]
    assert not (run.path / "timing.parquet").exists()
    run.fold_timing()
    assert spents(run) == [0, 1, 2]
    assert pq.read_table(run.path / "timing.parquet")["spent"].to_pylist() == [0, 1, 2]
    assert not (run.path / "timing").exists()
    run.add_timing([timing("p1", 3.0)])
    assert spents(run) == [0, 1, 2, 3]
    run.fold_timing()
    run.fold_timing()
    assert spents(run) == [0, 1, 2, 3]
    assert (run.path / "timing.parquet").is_file()


@pytest.mark.parametrize("removed", [0, 1, 2, 3])
def test_killed_while_folding_no_row_is_lost_or_doubled(run: Run, removed: int) -> None:
    for number in range(3):
        run.add_timing([timing("p0", number)])
    kept = {path: path.read_bytes() for path in sorted((run.path / "timing").iterdir())}
    run.fold_timing()
    (run.path / "timing").mkdir(exist_ok=True)
    for path in list(kept)[removed:]:
        path.write_bytes(kept[path])
    assert spents(run) == [0, 1, 2]
    run.add_timing([timing("p1", 3.0)])
    assert spents(run) == [0, 1, 2, 3]
    run.fold_timing()
    assert spents(run) == [0, 1, 2, 3]


def test_a_file_of_before_there_were_parts_is_read(run: Run) -> None:
    import pyarrow as pa

    old = pa.schema([field for field in TIMING if field.name not in ("overshoot", "outside_s")], TIMING.metadata)
    write_table(run.path / "timing.parquet", [timing("p0", 5.0)], old)
    assert [(row["spent"], row["outside_s"]) for row in run.timing()] == [(5.0, None)]
    run.add_timing([timing("p1", 6.0)])
    run.fold_timing()
    assert spents(run) == [5, 6]


def test_an_empty_run_has_an_empty_timing(run: Run) -> None:
    run.fold_timing()
    assert (run.path / "timing.parquet").is_file()
    assert run.timing() == []


def test_a_record_without_a_column_that_must_be_there_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    path = tmp_path / "part.parquet"
    write_table(path, [{"problem_id": "p"}], pa.schema([COMPLETIONS.field("problem_id")], COMPLETIONS.metadata))
    with pytest.raises(UserError, match="lacks the column 'sample_index'; move it away"):
        read_part(path, COMPLETIONS)
