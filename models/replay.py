"""The engine `replay`: a stored run played back under its recorded times, without waiting.

What it yields depends on the stored times, token counts and FLOPs alone, never on how long the playing takes.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from harness.budgets import Deadline
from harness.errors import UserError, choices
from harness.nouns import Completion, Facts, Model, Request

Bank = Mapping[str, Mapping[int, Completion]]
"""Completions by problem id and sample index."""


def replay(checkpoint: str) -> Model:
    """Play back the run in a folder.

    Args:
        checkpoint: a run folder with `completions/*.parquet`, whose columns hold the fields of a completion; others are
            ignored.

    Raises UserError when there are no completions or when columns are missing.
    """
    folder = Path(checkpoint).expanduser()
    parts = sorted((folder / "completions").glob("*.parquet"))
    if not parts:
        raise UserError(
            f"there are no completions/*.parquet in '{checkpoint}'; name the folder of a run, for example results/RUN"
        )
    return Replay(folder.resolve().name, read_bank(parts))


class Replay:
    """A `harness.nouns.Model` that answers from a bank of stored completions.

    Times are the stored ones: seconds on the clock of the problem in a run of the latency protocol, on the clock of the
    run in one of the throughput protocol. Replay under the protocol the run was made with.
    """

    def __init__(self, name: str, bank: Bank) -> None:
        self.name = name
        self.bank = bank

    @property
    def facts(self) -> Facts:
        """What the manifest records of this engine."""
        return {
            "engine": "replay",
            "clock": "recorded",
            "replayed_run": self.name,
            "replayed_completions": sum(map(len, self.bank.values())),
        }

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        """Yield the stored completions of the requests in the order in which they finished.

        A budget in seconds is compared with the stored times, which count from the beginning of the scope, so that the
        time of earlier sittings is in them already. A completion that was running when the budget ended is cut there,
        on the assumption that its characters and tokens came evenly between its first token and its finish; one that
        had not started is left out. Token and FLOP budgets are used up completion by completion in order of finish, and
        the one that exceeds what is left is cut in the same way. All work is charged to the deadline.

        A sample that the run does not hold is left out. Raises UserError when it holds none of a problem.
        """
        found = [stored for request in requests if (stored := self.find(request))]
        found.sort(key=lambda stored: stored.finished_s)
        return play(found, deadline)

    def find(self, request: Request) -> Completion | None:
        """The stored completion of a request, if there is one."""
        samples = self.bank.get(request.problem_id)
        if samples is None:
            raise UserError(
                f"the run '{self.name}' holds no completion of the problem '{request.problem_id}'; replay it with the "
                "task it was made with"
            )
        return samples.get(request.sample_index)


def play(found: Sequence[Completion], deadline: Deadline) -> Iterator[Completion]:
    """Yield what fits into the budget, whole or cut, and charge it."""
    for stored in found:
        if deadline.budget is None:
            played: Completion | None = stored
        elif deadline.budget.unit == "seconds":
            played = at_time(stored, deadline.budget.amount)
        else:
            played = None if deadline.expired else affordable(stored, deadline.budget.unit, deadline.left)
        if played is None:
            continue
        deadline.charge(tokens=played.completion_tokens, flops=played.prefill_flops + played.decode_flops)
        yield played


def at_time(stored: Completion, time_s: float) -> Completion | None:
    """What there was of a completion at a time; None when it had not started."""
    if stored.finished_s <= time_s:
        return stored
    if stored.started_s >= time_s:
        return None
    first_s = math.inf if stored.first_token_s is None else stored.first_token_s
    share = (time_s - first_s) / (stored.finished_s - first_s) if first_s < time_s else 0.0
    return cut(stored, share, time_s)


def affordable(stored: Completion, unit: str, left: float) -> Completion:
    """What `left` tokens or FLOPs pay of a completion, its prompt first."""
    begin, cost = (
        (0.0, float(stored.completion_tokens)) if unit == "tokens" else (stored.prefill_flops, stored.decode_flops)
    )
    if begin + cost <= left:
        return stored
    share = max(0.0, left - begin) / cost if cost else 0.0
    first_s = stored.finished_s if stored.first_token_s is None else stored.first_token_s
    played = cut(stored, share, first_s + share * (stored.finished_s - first_s))
    return replace(played, prefill_flops=min(begin, left)) if unit == "flops" else played


def cut(stored: Completion, share: float, finished_s: float) -> Completion:
    """A completion of which a share in [0, 1) was decoded when it was stopped."""

    def part(whole: int) -> int:
        return math.floor(share * whole + 1e-9)  # so that 0.7 of 10 is 7

    tokens = part(stored.completion_tokens)
    return replace(
        stored,
        text=stored.text[: part(len(stored.text))],
        finish_reason="deadline",
        error=None,
        completion_tokens=tokens,
        logprob=None,
        decode_flops=share * stored.decode_flops,
        first_token_s=stored.first_token_s if tokens else None,
        finished_s=finished_s,
    )


def read_bank(parts: Sequence[Path]) -> Bank:
    """All completions in the parquet files. Raises UserError when one cannot be read or lacks a column."""
    import pyarrow
    from pyarrow import parquet

    columns = [field.name for field in fields(Completion)]
    needed = {field.name for field in fields(Completion) if field.default is MISSING}
    bank: dict[str, dict[int, Completion]] = defaultdict(dict)
    for part in parts:
        try:
            # Without threads, which may abort a process that ends soon after.
            table = parquet.ParquetFile(part, pre_buffer=False).read(use_threads=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"'{part}' is no readable parquet file ({error}); copy the run again") from error
        missing = sorted(needed - set(table.column_names))
        if missing:
            raise UserError(f"'{part}' lacks the columns {choices(missing)} of a completion; name a run that ttc made")
        for row in table.select([name for name in columns if name in table.column_names]).to_pylist():
            values: dict[str, Any] = {name: None if is_nan(value) else value for name, value in row.items()}
            if values["finished_s"] is None:
                raise UserError(f"'{part}' has completions without finished_s; only a run with times can be replayed")
            stored = Completion(**values)
            bank[stored.problem_id][stored.sample_index] = stored
    return dict(bank)


def is_nan(value: Any) -> bool:
    """Whether a cell is the NaN that pandas writes for a missing number."""
    return isinstance(value, float) and math.isnan(value)
