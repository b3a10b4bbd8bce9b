from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.budgets import Budget, Deadline
from harness.errors import UserError
from harness.models.replay import Replay, replay
from harness.nouns import Completion, Model, Request, Sampling


def stored(
    problem: str, sample: int, tokens: int, started_s: float, first_s: float | None, finished_s: float, **more: Any
) -> Completion:
    settings: dict[str, Any] = {
        "problem_id": problem,
        "sample_index": sample,
        "text": "".join(chr(97 + place % 26) for place in range(2 * tokens)),
        "finish_reason": "stop",
        "prompt_tokens": 4,
        "completion_tokens": tokens,
        "seed": sample,
        "submitted_s": 0.0,
        "started_s": started_s,
        "first_token_s": first_s,
        "finished_s": finished_s,
        "batch_size": 3.0,
        "prefill_flops": 100.0,
        "decode_flops": 10.0 * tokens,
        "logprob": -1.5,
    }
    return Completion(**settings | more)


# Sample 1 finishes first; sample 2 is at its eleventh of 20 tokens when 6 s have gone; sample 3 begins at 5 s.
RUN = [
    stored("a", 0, 10, 0.0, 1.0, 6.0),
    stored("a", 1, 4, 0.0, 1.0, 3.0),
    stored("a", 2, 20, 0.0, 1.0, 11.0),
    stored("a", 3, 8, 5.0, 6.5, 9.0, finish_reason="length"),
    stored("b", 0, 3, 0.0, 0.5, 2.0),
]


def write(folder: Path, parts: Sequence[Sequence[Completion]]) -> str:
    (folder / "completions").mkdir(parents=True)
    for number, part in enumerate(parts):
        frame = pandas.DataFrame([asdict(row) | {"another_column": "x"} for row in part])
        frame.to_parquet(folder / "completions" / f"{number:03}.parquet")
    return str(folder)


@pytest.fixture
def engine(tmp_path: Path) -> Model:
    return replay(write(tmp_path / "old-run", [RUN[:2], RUN[2:]]))


def ask(problem: str, samples: Sequence[int]) -> list[Request]:
    return [Request(problem, sample, "?", Sampling()) for sample in samples]


def never() -> float:
    """A clock that stands still: replay must not need one that runs."""
    return 0.0


def play(engine: Model, requests: Sequence[Request], budget: Budget | None = None) -> list[Completion]:
    return list(engine.generate(requests, Deadline(budget, never)))


def test_without_a_budget_everything_comes_as_stored_in_order_of_finish(engine: Model) -> None:
    found = play(engine, ask("a", [3, 2, 1, 0]))
    assert found == [RUN[1], RUN[0], RUN[3], RUN[2]]


def test_only_what_is_asked_for_and_stored_is_played(engine: Model) -> None:
    assert play(engine, ask("a", [1, 7])) == [RUN[1]]
    assert play(engine, ask("b", [0]) + ask("a", [1])) == [RUN[4], RUN[1]]


def test_a_time_budget_cuts_what_was_running(engine: Model) -> None:
    found = play(engine, ask("a", range(4)), Budget(6.0))
    assert found[:2] == [RUN[1], RUN[0]]
    begun, running = found[2:]
    # 5 of its 10 seconds of decoding had gone: half of its 40 characters and 20 tokens.
    assert (running.sample_index, running.text, running.completion_tokens) == (2, RUN[2].text[:20], 10)
    assert (running.finish_reason, running.finished_s, running.logprob) == ("deadline", 6.0, None)
    assert (running.first_token_s, running.decode_flops, running.prefill_flops) == (1.0, 100.0, 100.0)
    assert (begun.sample_index, begun.text, begun.completion_tokens) == (3, "", 0)
    assert (begun.finish_reason, begun.first_token_s, begun.finished_s) == ("deadline", None, 6.0)


def test_what_had_not_started_is_left_out(engine: Model) -> None:
    assert [one.sample_index for one in play(engine, ask("a", range(4)), Budget(5.0))] == [1, 0, 2]


def test_the_time_of_earlier_sittings_is_in_the_stored_times(engine: Model) -> None:
    resumed = Deadline(Budget(6.0), never, offset_s=5.0)
    assert list(engine.generate(ask("a", [0]), resumed)) == [RUN[0]]


@given(st.floats(0.01, 12), st.floats(0.01, 12))
def test_a_smaller_time_budget_gives_prefixes_of_a_larger_one(one: float, other: float) -> None:
    player = Replay("run", {"a": {row.sample_index: row for row in RUN[:4]}})
    small, large = (
        {row.sample_index: row for row in play(player, ask("a", range(4)), Budget(amount))}
        for amount in sorted((one, other))
    )
    assert small.keys() <= large.keys()
    for sample, row in small.items():
        assert large[sample].text.startswith(row.text)
        assert row.completion_tokens <= large[sample].completion_tokens
        assert row.finished_s <= large[sample].finished_s


def test_a_token_budget_is_used_up_in_order_of_finish(engine: Model) -> None:
    deadline = Budget(4 + 10 + 2, "tokens").start(never)
    found = list(engine.generate(ask("a", range(4)), deadline))
    assert found[:2] == [RUN[1], RUN[0]]
    (last,) = found[2:]
    # 2 tokens are left of the 8 of sample 3: a quarter of its 16 characters and of its 2.5 s of decoding.
    assert (last.sample_index, last.text, last.completion_tokens) == (3, RUN[3].text[:4], 2)
    assert (last.finish_reason, last.finished_s) == ("deadline", 6.5 + 2.5 / 4)
    assert deadline.tokens == 16


def test_a_flop_budget_pays_the_prompt_first(engine: Model) -> None:
    deadline = Budget(140 + 150.0, "flops").start(never)
    found = list(engine.generate(ask("a", range(4)), deadline))
    assert found[0] == RUN[1]
    assert (found[1].prefill_flops, found[1].decode_flops, found[1].completion_tokens) == (100.0, 50.0, 5)
    assert deadline.flops == 290
    poor = Budget(140 + 60.0, "flops").start(never)
    begun = list(engine.generate(ask("a", range(4)), poor))[1]
    assert (begun.prefill_flops, begun.decode_flops, begun.text, begun.first_token_s) == (60.0, 0.0, "", None)


def test_what_was_charged_before_counts(engine: Model) -> None:
    deadline = Budget(7, "tokens").start(never)
    deadline.charge(tokens=3)
    assert list(engine.generate(ask("a", range(4)), deadline)) == [RUN[1]]


def test_work_is_charged(engine: Model) -> None:
    deadline = Deadline(None, never)
    list(engine.generate(ask("a", range(4)), deadline))
    assert deadline.tokens == 4 + 10 + 8 + 20
    assert deadline.flops == 4 * 100 + 10 * 42


def test_cells_without_a_value_stay_without(tmp_path: Path) -> None:
    refused = stored("a", 0, 0, 0.0, None, 0.5, finish_reason="error", error="too long", logprob=None)
    engine = replay(write(tmp_path / "run", [[refused, replace(refused, sample_index=1, first_token_s=0.2)]]))
    assert play(engine, ask("a", [0])) == [refused]


def test_facts_name_the_run(engine: Model, tmp_path: Path) -> None:
    assert engine.name == "old-run"
    assert isinstance(engine, Replay)
    assert engine.facts["engine"] == "replay"
    assert engine.facts["replayed_completions"] == 5


def test_a_problem_that_the_run_does_not_hold_is_refused(engine: Model) -> None:
    with pytest.raises(UserError, match="the run 'old-run' holds no completion of the problem 'c'"):
        engine.generate(ask("a", [0]) + ask("c", [0]), Deadline(None, never))


def test_a_folder_without_completions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there are no completions/\*\.parquet in"):
        replay(str(tmp_path))


def test_missing_columns_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", [RUN])
    part = tmp_path / "run" / "completions" / "000.parquet"
    pandas.read_parquet(part).drop(columns=["finished_s", "seed"]).to_parquet(part)
    with pytest.raises(UserError, match="lacks the columns finished_s, seed of a completion"):
        replay(folder)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", [RUN])
    (tmp_path / "run" / "completions" / "001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"001\.parquet' is no readable parquet file"):
        replay(folder)
