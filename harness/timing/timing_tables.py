"""A timing table: how long an engine takes for prompts, decode passes and ends of rows, by batch and context.

`ttc speed` measures and stores it; `timing.modelled` reads times off it. On disk it is `timings.parquet`, a row per
cell, with `timings.json` beside it, which says what was measured on what: model, engine, dtype, hardware, versions,
ceilings. Between measured cells time is taken to be linear in the batch and in the context; beyond them it is not
guessed.
"""

import json
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

from harness.errors import UserError
from harness.inert import read_json

Phase = Literal["prefill", "decode", "finish"]

TABLE, FACTS = "timings.parquet", "timings.json"
LONGEST_CONTEXT = 2**24
"""Tokens per row that a stored table may have."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One measured time.

    `prefill`: from the call to the first tokens of `batch` samples of one prompt of `context` tokens. `decode`: one
    pass over `batch` rows that have `context` tokens each. `finish`: one row that ends and leaves a batch of `batch`.
    `seconds` is the median of `repeats` measurements, `low_s` and `high_s` the smallest and the largest; each is a mean
    over `passes` passes or rows. `flops`, `bytes` and the time `bound_s` that the machine's ceilings allow for them are
    None where they are not known.
    """

    phase: Phase
    batch: int
    context: int
    seconds: float
    low_s: float
    high_s: float
    passes: int
    repeats: int
    flops: float | None = None
    bytes: float | None = None
    bound_s: float | None = None

    @property
    def tokens_per_s(self) -> float:
        """Tokens that are read or generated per second; meaningless for the end of a row."""
        return (self.context if self.phase == "prefill" else self.batch) / self.seconds

    @property
    def share(self) -> float | None:
        """The part of the speed that the ceilings allow which was reached."""
        return None if self.bound_s is None else self.bound_s / self.seconds


@dataclass(frozen=True)
class TimingTable:
    """Cells of one model in one engine, and the facts about them: `model`, `engine`, `dtype`, `machine`, ..."""

    cells: tuple[Cell, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def of(self, phase: Phase) -> list[Cell]:
        """The cells of one phase, by batch and context."""
        return sorted((cell for cell in self.cells if cell.phase == phase), key=lambda cell: (cell.batch, cell.context))

    @property
    def largest_batch(self) -> int:
        """The largest batch with a decode time."""
        return max((cell.batch for cell in self.cells if cell.phase == "decode"), default=0)

    def prefill_s(self, batch: int, prompt: int) -> float:
        """Seconds to the first tokens of `batch` samples of one prompt. Raises UserError beyond the table."""
        return self.prefills.between(batch, lambda line: line.at(prompt))

    def enter_s(self, batch: int, prompt: int) -> float:
        """Seconds for `batch` further samples of a prompt that has been read."""
        most = self.prefills.batches[-1]
        if most == 1:
            return 0.0
        one, many = self.prefill_s(1, prompt), self.prefill_s(most, prompt)
        return max(0.0, (many - one) / (most - 1)) * batch

    def decode_s(self, batch: int, context: float, passes: int = 1) -> float:
        """Seconds of `passes` passes over `batch` rows, the first at a mean context of `context` tokens.

        Raises UserError beyond the table.
        """
        return self.decodes.between(batch, lambda line: line.sum_from(context, passes))

    def finish_s(self, batch: int) -> float:
        """Seconds for one row that leaves a batch, 0 where it was not measured; beyond the table the nearest."""
        import numpy as np

        cells = self.of("finish")
        if not cells:
            return 0.0
        return float(np.interp(batch, [cell.batch for cell in cells], [cell.seconds for cell in cells]))

    @cached_property
    def decodes(self) -> "Surface":
        """The decode passes."""
        return Surface("decode", self.of("decode"))

    @cached_property
    def prefills(self) -> "Surface":
        """The prompts."""
        return Surface("prefill", self.of("prefill"))


class Line:
    """Seconds against context at one batch, linear between the measured places."""

    def __init__(self, phase: Phase, cells: Sequence[Cell]) -> None:
        import numpy as np

        self.phase, self.batch = phase, cells[0].batch
        self.contexts = [cell.context for cell in cells]
        self.seconds = [cell.seconds for cell in cells]
        self.first, self.last = self.contexts[0], self.contexts[-1]
        everywhere = np.interp(np.arange(self.first, self.last + 1), self.contexts, self.seconds)
        self.sums: list[float] = [0.0, *np.cumsum(everywhere).tolist()]
        """Seconds of passes at the contexts from the first one up to, and without, each."""

    def at(self, context: float) -> float:
        """Seconds at one context."""
        import numpy as np

        self.check(context)
        return float(np.interp(context, self.contexts, self.seconds))

    def sum_from(self, context: float, passes: int) -> float:
        """Seconds of passes at `context`, `context` + 1, ..."""
        if passes == 0:
            return 0.0
        self.check(context)
        self.check(context + passes - 1)
        return self.sum_to(context - self.first + passes) - self.sum_to(context - self.first)

    def sum_to(self, place: float) -> float:
        """`sums` at a place that may lie between two of its entries."""
        whole = min(int(place), len(self.sums) - 2)
        return self.sums[whole] + (place - whole) * (self.sums[whole + 1] - self.sums[whole])

    def check(self, context: float) -> None:
        """Raises UserError when the context lies beyond what was measured."""
        if not self.first <= context <= self.last:
            raise UserError(
                f"the timing table has {self.phase} times for contexts of {self.first} to {self.last} tokens at batch "
                f"{self.batch}, not for {context:g}; measure again with `ttc speed MODEL --cover RUN`"
            )


class Surface:
    """Seconds against batch and context."""

    def __init__(self, phase: Phase, cells: Sequence[Cell]) -> None:
        self.phase = phase
        of_batch: dict[int, list[Cell]] = {}
        for cell in cells:
            of_batch.setdefault(cell.batch, []).append(cell)
        self.batches = list(of_batch)
        self.lines = [Line(phase, found) for found in of_batch.values()]

    def between(self, batch: int, seconds: Callable[[Line], float]) -> float:
        """`seconds` of the lines on both sides of a batch, weighted by its distance from them. Raises UserError."""
        if not self.batches or not self.batches[0] <= batch <= self.batches[-1]:
            known = f"batches of {self.batches[0]} to {self.batches[-1]}" if self.batches else "nothing"
            raise UserError(
                f"the timing table has {self.phase} times for {known}, not for a batch of {batch}; measure again with "
                "`ttc speed MODEL --cover RUN`"
            )
        above = bisect_left(self.batches, batch)
        upper = seconds(self.lines[above])
        if self.batches[above] == batch:
            return upper
        low, high = self.batches[above - 1], self.batches[above]
        lower = seconds(self.lines[above - 1])
        return lower + (upper - lower) * (batch - low) / (high - low)


def write_timings(folder: Path, table: TimingTable) -> list[Path]:
    """Store a table; the folder is made. Returns the two files. Raises UserError when they cannot be written.

    The facts of an earlier table go first and come last, so that a kill never leaves them beside cells of another.
    """
    from harness.storage.records import write_table
    from harness.storage.storing import put_text, take_away

    take_away(folder / FACTS)
    write_table(folder / TABLE, [asdict(cell) for cell in table.cells], columns())
    put_text(folder / FACTS, json.dumps(dict(table.facts), indent=2, default=str) + "\n")
    return [folder / TABLE, folder / FACTS]


def read_timings(folder: Path) -> TimingTable:
    """Read a table that `ttc speed` stored. Raises UserError when the folder has none or it is damaged."""
    from harness.storage.records import read_part

    if not (folder / TABLE).is_file() or not (folder / FACTS).is_file():
        raise UserError(f"there is no timing table in '{folder}'; make one with `ttc speed MODEL --out {folder}`")
    rows = read_part(folder / TABLE, columns()).to_pylist()
    try:
        facts = read_json((folder / FACTS).read_bytes())
    except ValueError as error:
        raise UserError(f"'{folder / FACTS}' is not valid JSON ({error}); measure again with `ttc speed`") from None
    if not (isinstance(facts, dict) and isinstance(facts.get("model"), str) and isinstance(facts.get("engine"), dict)):
        raise UserError(f"'{folder / FACTS}' names no model and its engine; measure again with `ttc speed`")
    cells = tuple(Cell(**row) for row in rows)
    for cell in cells:
        if not is_sound(cell):
            raise UserError(
                f"'{folder / TABLE}' has a cell that nobody measured ({cell.phase!r:.40}, batch {cell.batch}, context "
                f"{cell.context}, {cell.seconds:g} s); measure again with `ttc speed`"
            )
    return TimingTable(cells, facts)


def is_sound(cell: Cell) -> bool:
    """Whether a stored cell may have been measured; of a forged one the context alone could fill the memory."""
    seconds = (cell.seconds, cell.low_s, cell.high_s, cell.flops or 0.0, cell.bytes or 0.0, cell.bound_s or 0.0)
    return (
        cell.phase in get_args(Phase)
        and cell.batch > 0
        and 0 <= cell.context <= LONGEST_CONTEXT
        and all(isfinite(number) for number in seconds)
        and (cell.seconds > 0 or cell.phase == "finish")
    )


def columns() -> Any:
    """The Arrow schema of `timings.parquet`."""
    import pyarrow as pa

    from harness.storage.records import column, schema

    whole, real = pa.int32(), pa.float64()
    return schema(
        column("phase", pa.string()),
        column("batch", whole, "rows"),
        column("context", whole, "tokens per row"),
        column("seconds", real, "seconds per prefill, decode pass or finished row; median of the repeats"),
        column("low_s", real, "seconds, the smallest repeat"),
        column("high_s", real, "seconds, the largest repeat"),
        column("passes", whole, "passes or rows that a repeat is a mean of"),
        column("repeats", whole),
        column("flops", real, "FLOP", nullable=True),
        column("bytes", real, "bytes", nullable=True),
        column("bound_s", real, "seconds that the machine's ceilings allow", nullable=True),
    )
