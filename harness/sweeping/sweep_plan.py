"""What a sweep will cost, reckoned before anything is loaded: prompts built, shapes read, hours, memory and disk.

Shapes come from the checkpoint's config where it can be had, else from the preset that the file names as `shape`; no
weights are read. Prompts are built from the task's data where they can be had, and counted with the checkpoint's own
tokenizer; without them `[plan]` says how long they are taken to be. Hours come from the cost model's expected times on
the device that `[plan]` names (`harness.models.costs.roofline`).
"""

from collections.abc import Sequence
from typing import Any

from harness.errors import UserError, choices
from harness.sweeping.plan_found import Found, costs
from harness.sweeping.plan_hours import SECONDS_AN_HOUR, Lengths, added, hours_of, load_of, memory_of, speed_s
from harness.sweeping.plan_notes import notes
from harness.sweeping.sweep import Cell, Sweep

RECORD_BYTES = 3
"""Bytes on disk per generated token; runs of the zoo take 1.5 to 2.6, reports apart."""
PROMPT_TOKENS = 256
"""Tokens of a prompt that could not be counted, unless `[plan]` says otherwise."""


def plan(sweep: Sweep, states: Sequence[str]) -> dict[str, Any]:
    """The whole plan, ready for JSON: a row for each run, the sums, and what they rest on.

    Raises UserError for a device that is not known, or a shape that is none.
    """
    hardware, found = hardware_of(sweep), Found(sweep.assumed)
    rows = [plan_row(sweep, found, cell, state, hardware) for cell, state in zip(sweep.cells, states, strict=True)]
    total = totals(sweep, found, rows, hardware)
    return {"folder": str(sweep.folder), "runs": rows, "total": total, "notes": notes(sweep, rows, total)}


def hardware_of(sweep: Sweep) -> Any:
    """The device that `[plan]` names, None without one. Raises UserError."""
    name = sweep.assumed.get("hardware")
    known = {one.name: one for one in (costs("roofline").H100, costs("roofline").H200)}
    if name is not None and name not in known:
        raise UserError(f"[plan]: no hardware named '{name}'; there is {choices(list(known))}")
    return known.get(name)


def plan_row(sweep: Sweep, found: Found, cell: Cell, state: str, hardware: Any) -> dict[str, Any]:
    """What one run is asked for, by name, and what it will cost."""
    asked, problems = cell.asked, found.problems(cell)
    built = isinstance(problems, list)
    count = len(problems[: asked.limit]) if isinstance(problems, list) else size_of(cell)
    counted = found.tokens(cell, problems[: asked.limit]) if isinstance(problems, list) else None
    longest = asked.sampling.max_tokens
    lengths = Lengths(
        sweep.assumed.get("prompt_tokens", PROMPT_TOKENS) if counted is None else counted,
        min(sweep.assumed.get("completion_tokens", longest), longest), longest,
    )  # fmt: skip
    shape, source = found.shape(cell)
    row: dict[str, Any] = {
        "run": str(cell.arm.path),
        "model": cell.arm.model,
        "engine": cell.arm.engine,
        "task": asked.task,
        "protocol": asked.protocol,
        "budget": str(asked.budget) if asked.budget else None,
        "samples": asked.samples,
        "reward_models": list(asked.reward_models),
        "strategy": asked.strategy or None,
        "workers": cell.crew.workers if cell.crew else None,
        "state": state,
        "shape": source,
        "problems": count,
        "prompts": "built" if built else problems,
        "prompt_tokens": lengths.prompt,
        "prompt_tokens_counted": counted is not None,
        "completion_tokens": lengths.completion,
        "record_bytes": None if count is None else RECORD_BYTES * count * asked.samples * lengths.completion,
        "disk_bytes": found.disk_bytes(cell.arm.model, shape),
    }
    load = load_of(found, cell, shape, lengths, count)
    return row | memory_of(load, hardware) | hours_of(found, load, hardware)


def size_of(cell: Cell) -> int | None:
    """How many problems the file says there are, as far as they are wanted."""
    known = [count for count in (cell.problems, cell.asked.limit) if count is not None]
    return min(known, default=None)


def totals(sweep: Sweep, found: Found, rows: Sequence[dict[str, Any]], hardware: Any) -> dict[str, Any]:
    """Sums over the runs that are not finished; None where a part is not known.

    `weight_bytes` are the files of all models and reward models, each counted once; `speed_hours` the speed tables.
    """
    open_rows = [row for row in rows if row["state"] != "finished"]
    sums: dict[str, Any] = {
        name: added([row[name] for row in open_rows])
        for name in ("hours", "hours_at_most", "scoring_hours", "record_bytes")
    }
    weights = {row["model"]: row["disk_bytes"] for row in rows}
    for name in dict.fromkeys(judge for row in rows for judge in row["reward_models"]):
        weights[name] = found.disk_bytes(name, found.reward_shape(name))
    speed = speed_s(sweep, found, hardware)
    sums["speed_hours"] = None if speed is None else speed / SECONDS_AN_HOUR
    return sums | {"weight_bytes": added(list(weights.values()))}
