import itertools
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.timing.timing_tables import Cell, TimingTable, read_timings, write_timings

BATCHES, CONTEXTS, PROMPTS = (1, 4, 10), (20, 50, 120), (20, 60)


def decode(batch: float, context: float) -> float:
    return 3 + 0.5 * batch + 0.01 * context + 0.002 * batch * context


def prefill(batch: float, prompt: float) -> float:
    return 2 + 0.25 * batch + 0.1 * prompt


def cell(phase: str, batch: int, context: int, seconds: float) -> Cell:
    return Cell(phase, batch, context, seconds, seconds / 2, 2 * seconds, 16, 5)  # type: ignore[arg-type]


@pytest.fixture
def table() -> TimingTable:
    cells = [cell("decode", b, c, decode(b, c)) for b, c in itertools.product(BATCHES, CONTEXTS)]
    cells += [cell("prefill", b, p, prefill(b, p)) for b, p in itertools.product(BATCHES, PROMPTS)]
    cells += [cell("finish", b, 0, 0.1 * b) for b in BATCHES]
    return TimingTable(tuple(reversed(cells)), {"model": "someone"})


@pytest.mark.parametrize(("batch", "context"), [(1, 20), (4, 50), (10, 120), (2, 20), (7, 33), (9, 119)])
def test_between_cells_time_is_linear_in_batch_and_context(table: TimingTable, batch: int, context: int) -> None:
    assert table.decode_s(batch, context) == pytest.approx(decode(batch, context))
    if context <= 60:
        assert table.prefill_s(batch, context) == pytest.approx(prefill(batch, context))


@pytest.mark.parametrize(("batch", "context", "passes"), [(1, 20, 101), (7, 33, 40), (4, 50, 1), (3, 50, 0)])
def test_a_stretch_of_passes_is_the_sum_of_its_passes(
    table: TimingTable, batch: int, context: int, passes: int
) -> None:
    one_by_one = sum(decode(batch, context + number) for number in range(passes))
    assert table.decode_s(batch, context, passes) == pytest.approx(one_by_one)


def test_a_mean_context_between_two_tokens(table: TimingTable) -> None:
    assert table.decode_s(4, 40.25, 3) == pytest.approx(sum(decode(4, 40.25 + number) for number in range(3)))


def test_further_samples_of_a_prompt_cost_what_they_add(table: TimingTable) -> None:
    assert table.enter_s(3, 40) == pytest.approx(3 * 0.25)
    assert [table.finish_s(batch) for batch in (1, 7, 10, 99)] == pytest.approx([0.1, 0.7, 1.0, 1.0])


@pytest.mark.parametrize(
    ("batch", "context", "passes", "told"),
    [
        (11, 50, 1, "for batches of 1 to 10, not for a batch of 11"),
        (4, 19, 1, "contexts of 20 to 120 tokens at batch 4, not for 19"),
        (4, 100, 22, "contexts of 20 to 120 tokens at batch 4, not for 121"),
    ],
)
def test_beyond_the_table_nothing_is_guessed(
    table: TimingTable, batch: int, context: int, passes: int, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        table.decode_s(batch, context, passes)


def test_an_empty_table_says_so() -> None:
    with pytest.raises(UserError, match="decode times for nothing"):
        TimingTable(()).decode_s(1, 10)
    assert TimingTable(()).finish_s(3) == 0


def test_a_table_comes_back_as_it_was_stored(table: TimingTable, tmp_path: Path) -> None:
    bounded = Cell("decode", 2, 30, 1.5, 1.0, 2.0, 16, 5, flops=3e9, bytes=1e6, bound_s=0.75)
    stored = TimingTable((*table.cells, bounded), {"model": "someone", "engine": {}, "grid": {"batches": [1, 4]}})
    names = [path.name for path in write_timings(tmp_path / "made", stored)]
    assert names == ["timings.parquet", "timings.json"]
    assert read_timings(tmp_path / "made") == stored
    assert (bounded.share, bounded.tokens_per_s) == (0.5, 2 / 1.5)
    (tmp_path / "made" / "timings.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        read_timings(tmp_path / "made")
    with pytest.raises(UserError, match=r"no timing table in .*; make one with `ttc speed MODEL --out"):
        read_timings(tmp_path)
