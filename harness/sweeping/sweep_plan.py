"""What a sweep will cost, reckoned before anything is loaded: prompts built, shapes read, hours, memory and disk.

Shapes come from the checkpoint's config where it can be had, else from the preset that the file names as `shape`; no
weights are read. Prompts are built from the task's data where they can be had, and counted with the checkpoint's own
tokenizer; without them `[plan]` says how long they are taken to be. Hours come from the cost
model's expected times on the device that `[plan]` names (`harness.models.costs.roofline`).
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from harness import plugins
from harness.errors import UserError, choices
from harness.nouns import Problem
from harness.sweeping.sweep import Cell, Sweep

RECORD_BYTES = 3
"""Bytes on disk per generated token; runs of the zoo take 1.5 to 2.6, reports apart."""
PROMPT_TOKENS, SECONDS_AN_HOUR = 256, 3600
MOST_ROWS = 512
"""Rows in flight under the throughput protocol, where memory would allow more."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean tokens of a prompt and of a completion, and the longest completion that is let run."""

    prompt: float
    completion: float
    longest: int


def plan_rows(sweep: Sweep, states: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each run: what is asked for, what was found of it here, and what it will cost.

    Raises UserError for a device that is not known, or a shape that is none.
    """
    hardware = hardware_of(sweep)
    tasks: dict[Any, list[Problem] | str] = {}
    return [plan_row(sweep, cell, state, hardware, tasks) for cell, state in zip(sweep.cells, states, strict=True)]


def hardware_of(sweep: Sweep) -> Any:
    """The device that `[plan]` names, None without one. Raises UserError."""
    name = sweep.assumed.get("hardware")
    known = {one.name: one for one in (costs("roofline").H100, costs("roofline").H200)}
    if name is not None and name not in known:
        raise UserError(f"[plan]: no hardware named '{name}'; there is {choices(list(known))}")
    return known.get(name)


def plan_row(
    sweep: Sweep, cell: Cell, state: str, hardware: Any, tasks: dict[Any, list[Problem] | str]
) -> dict[str, Any]:
    """What one run is asked for, by name, and what it will cost."""
    asked = cell.asked
    key = asked.task, asked.task_options, asked.data
    if key not in tasks:
        tasks[key] = problems_here(cell)
    found = tasks[key]
    count = len(found[: asked.limit]) if isinstance(found, list) else size_of(cell)
    checkpoint = checkpoint_here(cell.arm.model)
    counted = tokens_of(checkpoint, found[: asked.limit]) if isinstance(found, list) else None
    lengths = Lengths(
        counted if counted is not None else taken(sweep),
        sweep.assumed.get("completion_tokens", asked.sampling.max_tokens), asked.sampling.max_tokens,
    )  # fmt: skip
    shape, source = shape_of(cell, checkpoint)
    row: dict[str, Any] = {
        "run": str(cell.arm.path),
        "model": cell.arm.model,
        "engine": cell.arm.engine,
        "task": asked.task,
        "protocol": asked.protocol,
        "budget": str(asked.budget) if asked.budget else None,
        "samples": asked.samples,
        "workers": cell.crew.workers if cell.crew else None,
        "state": state,
        "shape": source,
        "problems": count,
        "prompts": "built" if isinstance(found, list) else found,
        "prompt_tokens": lengths.prompt,
        "prompt_tokens_counted": counted is not None,
        "completion_tokens": lengths.completion,
        "record_bytes": None if count is None else RECORD_BYTES * count * asked.samples * lengths.completion,
    }
    return row | memory_of(shape, cell, lengths, hardware) | hours_of(sweep, shape, cell, count, lengths, hardware)


def problems_here(cell: Cell) -> list[Problem] | str:
    """The task's problems where their data can be had, else the sentence that says what is missing."""
    try:
        return list(plugins.load_task(cell.asked.task, cell.asked.task_options, cell.asked.data).problems)
    except UserError as error:
        return str(error)


def size_of(cell: Cell) -> int | None:
    """How many problems the file says there are, as far as they are wanted."""
    known = [count for count in (cell.problems, cell.asked.limit) if count is not None]
    return min(known, default=None)


def checkpoint_here(model: str) -> Any:
    """The small files of a checkpoint, from this machine or the hub; None where they cannot be had, or it is none."""
    if not plugins.names_checkpoint(model) or model.startswith("preset/"):
        return None
    try:
        return importlib.import_module("harness.models.checkpoints").find_checkpoint(model)
    except UserError:
        return None


def tokens_of(checkpoint: Any, problems: Sequence[Problem]) -> float | None:
    """Mean tokens of the rendered prompts; None where there is no tokenizer to count them."""
    text = importlib.import_module("harness.models.text")
    tokenizers = importlib.import_module("harness.models.tokenizers_")
    if checkpoint is None or not tokenizers.has_tokenizer(checkpoint):
        return None
    tokenizer = tokenizers.load_tokenizer(checkpoint)
    counts = [len(text.encode(tokenizer, problem.prompt)) for problem in problems]
    return sum(counts) / len(counts) if counts else None


def shape_of(cell: Cell, checkpoint: Any) -> tuple[Any, str | None]:
    """The model's shape with where it is from: its config, or the preset named beside it; None where neither is there.

    Raises UserError for a preset that does not exist.
    """
    shapes = costs("shapes")
    if checkpoint is not None:
        return shapes.checkpoint_shape(checkpoint), "config"
    preset = cell.arm.model if cell.arm.model.startswith("preset/") else cell.shape
    return (shapes.read_shape(preset), preset) if preset else (None, None)


def memory_of(shape: Any, cell: Cell, lengths: Lengths, hardware: Any) -> dict[str, Any]:
    """Parameters, bytes of the weights and of a full row in bfloat16, and how many such rows the device holds."""
    if shape is None:
        return dict.fromkeys(("parameters", "weight_bytes", "row_bytes", "largest_batch"))
    traffic = costs("traffic")
    longest = int(lengths.prompt) + lengths.longest
    return {
        "parameters": shape.parameters,
        "weight_bytes": traffic.weight_bytes(shape),
        "row_bytes": traffic.row_bytes(shape, longest),
        "largest_batch": traffic.largest_batch(shape, hardware.memory_bytes, longest) if hardware else None,
    }


def hours_of(
    sweep: Sweep, shape: Any, cell: Cell, count: int | None, lengths: Lengths, hardware: Any
) -> dict[str, Any]:
    """Device-hours of sampling, with completions of the mean length and at most, and of scoring."""
    asked = cell.asked
    scopes = 1 if asked.protocol == "throughput" else count
    seconds = asked.budget.amount if asked.budget and asked.budget.unit == "seconds" else None
    bound = scopes * seconds / SECONDS_AN_HOUR if seconds is not None and scopes is not None else None
    if shape is None or hardware is None or count is None:
        return {"hours": None, "hours_at_most": bound, "scoring_hours": None}
    usual = sampling_s(shape, cell, count, lengths.prompt, lengths.completion, hardware) / SECONDS_AN_HOUR
    most = sampling_s(shape, cell, count, lengths.prompt, lengths.longest, hardware) / SECONDS_AN_HOUR
    scored = added([scoring_s(sweep, name, count * asked.samples, lengths, hardware) for name in asked.reward_models])
    return {
        "hours": usual if bound is None else min(usual, bound),
        "hours_at_most": most if bound is None else min(most, bound),
        "scoring_hours": None if scored is None else scored / SECONDS_AN_HOUR,
    }


def sampling_s(shape: Any, cell: Cell, count: int, prompt: float, generated: float, hardware: Any) -> float:
    """Expected seconds of all samples: in waves as large as memory allows, a prompt read once for its wave."""
    roofline, traffic = costs("roofline"), costs("traffic")
    fits = traffic.largest_batch(shape, hardware.memory_bytes, int(prompt + generated)) or 1
    together = cell.asked.samples if cell.asked.protocol == "latency" else min(cell.asked.samples * count, MOST_ROWS)
    waves = ceil(together / fits)
    batch = ceil(together / waves)
    rounds = count * cell.asked.samples / together * waves
    decode_s = generated * roofline.expected_step_s(shape, hardware, batch, prompt + generated / 2)
    return float(rounds * decode_s + count * roofline.expected_prefill_s(shape, hardware, 1, int(prompt)))


def scoring_s(sweep: Sweep, name: str, samples: int, lengths: Lengths, hardware: Any) -> float | None:
    """Expected seconds in which a reward model reads every completion; None where its shape is not known.

    That of a reward model that is not on this machine is `reward_shape` in `[plan]`.
    """
    checkpoint, preset = checkpoint_here(name), sweep.assumed.get("reward_shape")
    if checkpoint is None and preset is None:
        return None
    shape = costs("shapes").read_shape(preset) if checkpoint is None else costs("shapes").checkpoint_shape(checkpoint)
    length = int(lengths.prompt + lengths.completion)
    return float(samples * costs("roofline").expected_prefill_s(shape, hardware, 1, length))


def costs(name: str) -> Any:
    """A module of the models' costs."""
    return importlib.import_module(f"harness.models.costs.{name}")


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the runs that are not finished; None where a part is not known. Weights are counted once a model."""
    open_rows = [row for row in rows if row["state"] != "finished"]
    weights = {row["model"]: row["weight_bytes"] for row in rows}
    sums: dict[str, Any] = {
        name: added([row[name] for row in open_rows])
        for name in ("hours", "hours_at_most", "scoring_hours", "record_bytes")
    }
    return sums | {"weight_bytes": added(list(weights.values()))}


def added(values: Sequence[float | None]) -> float | None:
    """A sum, None where a part of it is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def notes(sweep: Sweep, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the plan takes for granted, and what was not here to be checked."""
    said = []
    if sweep.assumed.get("hardware"):
        said.append(
            f"hours are the cost model's for one {sweep.assumed['hardware']} in bfloat16, with completions of the mean "
            "length and, at most, of the longest; the speed measurement adds minutes"
        )
    if any(not row["prompt_tokens_counted"] for row in rows):
        said.append(f"prompts without data or tokenizer here are taken to have {taken(sweep)} tokens")
    said += dict.fromkeys(f"{row['task']}: {row['prompts']}" for row in rows if row["prompts"] != "built")
    absent = dict.fromkeys(row["model"] for row in rows if row["shape"] is None)
    said += [f"the shape of {model} is not known here; name a preset of it as shape" for model in absent]
    return said


def taken(sweep: Sweep) -> int:
    """Tokens of a prompt that could not be counted."""
    return int(sweep.assumed.get("prompt_tokens", PROMPT_TOKENS))
