"""Memory and device-hours of a sweep's runs by the cost model (`harness.models.costs`), for one device a copy."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

from harness import plugins
from harness.sweeping.plan_found import Found, costs, precision_of, reward_precision_of, setting_of
from harness.sweeping.sweep import Cell, Sweep
from harness.sweeping.sweep_speed import measured, timed_models

SECONDS_AN_HOUR = 3600
MOST_ROWS = 512
"""Rows in flight of an engine that has no limit of its own, where memory would allow more."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean tokens of a prompt and of a completion, and the longest completion that is let run."""

    prompt: float
    completion: float
    longest: int


@dataclass(frozen=True, slots=True)
class Load:
    """What a run puts on a device: its model's shape, the bytes of the reward models beside it, and the lengths."""

    cell: Cell
    shape: Any
    precision: Any
    beside: int
    lengths: Lengths
    count: int | None

    def fits(self, hardware: Any, generated: float) -> int:
        """Rows of a prompt and so many tokens that the device holds beside all weights."""
        traffic, context = costs("traffic"), int(self.lengths.prompt + generated)
        memory = hardware.memory_bytes
        return int(traffic.largest_batch(self.shape, memory, context, self.precision, beside=self.beside))


def load_of(found: Found, cell: Cell, shape: Any, lengths: Lengths, count: int | None) -> Load:
    """The load of a run; a reward model whose shape is not known takes no memory here, which the notes tell."""
    traffic, precision = costs("traffic"), reward_precision_of(cell)
    judges = [found.reward_shape(name) for name in cell.asked.reward_models]
    beside = sum(traffic.weight_bytes(judge, precision) for judge in judges if judge is not None)
    return Load(cell, shape, precision_of(cell), beside, lengths, count)


def memory_of(load: Load, hardware: Any) -> dict[str, Any]:
    """Parameters, bytes of weights, reward models and a full row, and how many such rows the device holds with all."""
    names = ("parameters", "weight_bytes", "row_bytes", "largest_batch")
    if load.shape is None:
        return dict.fromkeys(names) | {"reward_bytes": load.beside}
    traffic = costs("traffic")
    longest = int(load.lengths.prompt) + load.lengths.longest
    return {
        "parameters": load.shape.parameters,
        "weight_bytes": traffic.weight_bytes(load.shape, load.precision),
        "row_bytes": traffic.row_bytes(load.shape, longest, load.precision),
        "largest_batch": load.fits(hardware, load.lengths.longest) if hardware else None,
        "reward_bytes": load.beside,
    }


def hours_of(found: Found, load: Load, hardware: Any) -> dict[str, Any]:
    """Device-hours of sampling, with completions of the mean length and at most, and of scoring.

    What a budget in seconds does not leave time for is not counted; scoring is on the same clock. None for a model that
    does not fit.
    """
    cell, count = load.cell, load.count
    scopes = 1 if cell.asked.protocol == "throughput" else count
    seconds = cell.asked.budget.amount if cell.asked.budget and cell.asked.budget.unit == "seconds" else inf
    bound = None if scopes is None else scopes * seconds / SECONDS_AN_HOUR
    ceiling = None if bound is None or bound == inf else bound
    if load.shape is None or hardware is None or count is None or not load.fits(hardware, load.lengths.longest):
        return {"hours": None, "hours_at_most": ceiling, "scoring_hours": None}
    assert bound is not None, "the problems are counted"
    usual = min(bound, sampling_s(load, count, load.lengths.completion, hardware) / SECONDS_AN_HOUR)
    most = min(bound, sampling_s(load, count, load.lengths.longest, hardware) / SECONDS_AN_HOUR)
    scored = scoring_s(found, load, count * cell.asked.samples, hardware)
    scoring = None if scored is None else min(bound - usual, scored / SECONDS_AN_HOUR)
    return {"hours": usual, "hours_at_most": most, "scoring_hours": scoring}


def sampling_s(load: Load, count: int, generated: float, hardware: Any) -> float:
    """Expected seconds of all samples, each problem's (or all, in the throughput protocol) in equal waves that fit."""
    asked, prompt = load.cell.asked, load.lengths.prompt
    scopes = count if asked.protocol == "latency" else 1
    rows = count * asked.samples // scopes
    waves = ceil(rows / min(load.fits(hardware, generated) or 1, rows_at_once(load.cell)))
    batch = ceil(rows / waves)
    mean = prompt + generated / 2
    step_s = costs("roofline").expected_step_s(load.shape, hardware, batch, mean, load.precision)
    shared = count * (waves if asked.protocol == "latency" else 1)
    readings = shared if shares_prompts(load.cell) else count * asked.samples
    return float(scopes * waves * generated * step_s + readings * prefill_s(load.shape, hardware, 1, int(prompt)))


def rows_at_once(cell: Cell) -> int:
    """Rows that a run's engine has in flight at most."""
    limit = setting_of(cell, "max_batch_size")
    return int(limit) if str(limit).isdigit() and int(limit) else MOST_ROWS


def shares_prompts(cell: Cell) -> bool:
    """Whether samples of a problem share the reading of its prompt."""
    return cell.arm.engine == "native" or str(setting_of(cell, "prefix_caching")).lower() in ("true", "yes", "1")


def scoring_s(found: Found, load: Load, samples: int, hardware: Any) -> float | None:
    """Expected seconds in which every reward model reads every completion with its prompt.

    None where a shape is not known; a plug-in's time is not reckoned.
    """
    judges = [name for name in load.cell.asked.reward_models if not plugins.names_reward_model(name)]
    shapes, length = [found.reward_shape(name) for name in judges], int(load.lengths.prompt + load.lengths.completion)
    return added([samples * prefill_s(shape, hardware, 1, length) if shape else None for shape in shapes])


def prefill_s(shape: Any, hardware: Any, batch: int, tokens: int) -> float:
    """Expected seconds of reading `batch` different texts."""
    return float(costs("roofline").expected_prefill_s(shape, hardware, batch, tokens))


def speed_s(sweep: Sweep, found: Found, hardware: Any) -> float | None:
    """Expected seconds of the speed tables that are not there yet; None where a shape is not known.

    The native engine's passes are timed without reading a text of their length, every other engine's after it.
    """
    if sweep.grid is None or hardware is None:
        return None
    missing = [cell for cell, folder in timed_models(sweep) if not measured(folder)]
    return added([table_s(sweep, cell, found.shape(cell)[0], hardware) for cell in missing])


def table_s(sweep: Sweep, cell: Cell, shape: Any, hardware: Any) -> float | None:
    """Expected seconds of one model's table, without the cells that do not fit."""
    grid, precision, total_s = sweep.grid, precision_of(cell), 0.0
    if shape is None or grid is None:
        return None
    for batch in grid.batches:
        read = 1 if shares_prompts(cell) else batch
        total_s += sum(prefill_s(shape, hardware, read, prompt) for prompt in grid.prompts)
        for context in grid.contexts:
            if costs("traffic").largest_batch(shape, hardware.memory_bytes, context, precision) < batch:
                continue
            total_s += grid.passes * costs("roofline").expected_step_s(shape, hardware, batch, context, precision)
            total_s += 0.0 if cell.arm.engine == "native" else prefill_s(shape, hardware, read, context)
    return (grid.repeats + 1) * total_s


def added(values: Sequence[float | None]) -> float | None:
    """A sum, None where a part of it is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
