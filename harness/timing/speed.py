"""`ttc speed`: a grid of times of one loaded engine, which it knows by the `Model` protocol.

Prompts are timed as a bench meets them: from the call of `generate` to the first token of every row, with a budget of
so many tokens, so that the engine stops there. Decode passes are timed inside the engine's own loop where the room of
the models knows the way (`harness.models.costs.native_passes`), else by calls (`harness.timing.speed_calls`).

The grid is gone through several times from its largest cell to its smallest, once to warm up and then once for each
repeat, so that a slow drift of the machine touches every cell alike.
"""

import importlib
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from harness.budgets import Clock, monotonic, unix_s
from harness.errors import UserError
from harness.nouns import Model, Sampling
from harness.progress import Progress
from harness.storage.manifest import git_commit, machine, versions
from harness.timing.speed_calls import Calls, Timed
from harness.timing.timing_tables import Cell, Phase, TimingTable

DIRECT = "passes of the engine's own decode loop"
BY_CALLS = "calls of generate"

Key = tuple[Phase, int, int]
Visit = Callable[[], Timed | None]


@dataclass(frozen=True, slots=True)
class Grid:
    """What is measured: every batch at every prompt length and context, `repeats` times, `passes` passes each.

    `generated` is how long a completion is where that matters: for the room that is kept for it and for its end.
    """

    batches: tuple[int, ...]
    prompts: tuple[int, ...]
    contexts: tuple[int, ...]
    generated: int
    passes: int = 16
    repeats: int = 5

    def __post_init__(self) -> None:
        """Raises UserError for a grid that means nothing."""
        numbers = {"--batch": self.batches, "--prompt": self.prompts, "--context": self.contexts}
        numbers |= {"--generate": (self.generated,), "--passes": (self.passes,), "--repeats": (self.repeats,)}
        for name, values in numbers.items():
            if not values or min(values) < 1:
                raise UserError(
                    f"{name} wants whole numbers of at least 1, got {', '.join(map(str, values)) or 'none'}"
                )

    @property
    def visits(self) -> int:
        """How many measurements are made, those that warm up included."""
        return (self.repeats + 1) * len(self.batches) * (len(self.prompts) + len(self.contexts))


@dataclass(slots=True)
class Found:
    """What has been measured so far."""

    seconds: dict[Key, list[float]]
    refused: dict[str, None]

    def add(self, phase: Phase, batch: int, timed: Timed) -> None:
        """Keep one measurement."""
        self.seconds.setdefault((phase, batch, timed.context), []).append(timed.seconds)
        if timed.finish_s is not None:
            self.seconds.setdefault(("finish", batch, 0), []).append(timed.finish_s)

    def cells(self, passes: int) -> tuple[Cell, ...]:
        """The medians with what they lie between."""
        return tuple(
            Cell(phase, batch, context, statistics.median(own), min(own), max(own), passes if context else 1, len(own))
            for (phase, batch, context), own in self.seconds.items()
        )


def default_contexts(prompts: Sequence[int], generated: int) -> tuple[int, ...]:
    """From the shortest prompt to the longest text, with a place between."""
    first, last = min(prompts), max(prompts) + generated
    return tuple(sorted({first, (first + last) // 2, last}))


def measure(model: Model, grid: Grid, sampling: Sampling, progress: Progress, clock: Clock = monotonic) -> TimingTable:
    """Go through the grid and put the facts about it beside the cells.

    Args:
        model: a loaded engine.
        grid: what to measure.
        sampling: how tokens are drawn; its `max_tokens` is not read.
        progress: told after every measurement.
        clock: in seconds.
    """
    direct, endless = costs("native_passes").passes_of(model, sampling, clock), costs("endless").endless
    calls, found = Calls(model, sampling, clock), Found({}, {})

    def prefill(batch: int, prompt: int) -> Timed | None:
        return calls.prefill(batch, prompt, grid.generated)

    def decode(batch: int, context: int) -> Timed | None:
        if direct is None:
            return calls.decode(batch, context, grid.passes)
        timed: Timed | None = direct.time(batch, context, min(grid.prompts), grid.generated, grid.passes)
        return timed

    # First, while the device's memory is not yet full of states.
    facts = facts_of(model, grid, sampling)
    facts |= peaks_of(facts["engine"], clock)
    done = 0
    with endless(model):
        for phase, visit, places in (("prefill", prefill, grid.prompts), ("decode", decode, grid.contexts)):
            for repeat, batch, context in rounds(grid, places):
                timed = visit(batch, context)
                if timed is None:
                    found.refused[f"{phase} of {batch} rows at {context} tokens: they do not fit, or end early"] = None
                elif repeat:
                    found.add(phase, batch, timed)  # type: ignore[arg-type]
                done += 1
                progress.update(done, f"{phase}, {batch} rows, {context} tokens")
    facts |= {"decode_timed_by": BY_CALLS if direct is None else DIRECT, "not_measured": list(found.refused)}
    return with_costs(TimingTable(found.cells(grid.passes), facts))


def rounds(grid: Grid, places: Iterable[int]) -> Iterable[tuple[int, int, int]]:
    """(repeat, batch, place), the largest first: what is allocated for it serves the others too. Repeat 0 warms up."""
    largest_first = (sorted(grid.batches, reverse=True), sorted(places, reverse=True))
    return product(range(grid.repeats + 1), *largest_first)


def facts_of(model: Model, grid: Grid, sampling: Sampling) -> dict[str, Any]:
    """What was measured on what."""
    return {
        "model": model.name,
        "engine": dict(getattr(model, "facts", {})),
        "grid": asdict(grid),
        "sampling": {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k")},
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
        "measured_unix_s": unix_s(),
    }


def peaks_of(engine: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """The ceilings of the device that an engine runs on, where it says which and in which dtype."""
    room, device, dtype = costs("ceilings"), engine.get("device"), engine.get("dtype")
    if device not in room.SIZES or dtype not in costs("traffic").SIZES:
        return {}
    return {"ceilings": room.measure_ceilings(device, dtype, clock)}


def with_costs(table: TimingTable) -> TimingTable:
    """The table with every cell's work, and its bound by the ceilings, where the shape and the dtype are known."""
    peaks, machine_ = table.facts.get("ceilings"), table.facts["machine"]
    precision = costs("traffic").precision_of(table.facts["engine"])
    shape = costs("shapes").shape_or_none(table.facts["model"]) if peaks and precision else None
    if shape is None or peaks is None:
        return table
    memory = (
        machine_["gpus"][0]["memory_bytes"] if table.facts["engine"]["device"] == "cuda" else machine_["memory_bytes"]
    )
    most = max(table.facts["grid"]["contexts"])
    fits = {"context": most, "rows": costs("traffic").largest_batch(shape, memory, most, precision)}
    cells = tuple(bounded(cell, shape, precision, peaks) for cell in table.cells)
    return TimingTable(cells, {**table.facts, "parameters": shape.parameters, "largest_batch": fits})


def costs(name: str) -> Any:
    """A module of the models' room, by name: the core imports no room."""
    return importlib.import_module(f"harness.models.costs.{name}")


def bounded(cell: Cell, shape: Any, precision: Any, peaks: Mapping[str, Any]) -> Cell:
    """A cell with its work and the time that the ceilings allow; the end of a row has none."""
    if cell.phase == "finish":
        return cell
    hardware = costs("roofline").Hardware("this machine", peaks["bytes_per_s"], peaks["flops_per_s"])
    work = costs("bounds").work_of(shape, precision, hardware, cell.phase, cell.batch, cell.context)
    return replace(cell, flops=work.flops, bytes=work.bytes, bound_s=work.bound_s)
