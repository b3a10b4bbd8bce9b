"""What a sweep's plan takes for granted, in sentences: what was not here to be checked, and what was not reckoned."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness import plugins
from harness.sweeping.plan_found import setting_of
from harness.sweeping.sweep import Sweep
from harness.sweeping.sweep_speed import REMOTE

Row = Mapping[str, Any]


def notes(sweep: Sweep, rows: Sequence[Row], total: Row) -> list[str]:
    """The sentences, the most general first."""
    return [*basis(sweep, rows, total), *missing(rows), *not_reckoned(sweep, rows), *not_fitting(sweep, rows)]


def basis(sweep: Sweep, rows: Sequence[Row], total: Row) -> Iterator[str]:
    """What the hours rest on."""
    if sweep.assumed.get("hardware") and any(row["hours"] is not None for row in rows):
        yield (
            f"hours are the cost model's for one {sweep.assumed['hardware']}, with completions of the mean length and, "
            "at most, of the longest, and bounded by the budget, which scoring shares"
        )
    if total["speed_hours"]:
        yield f"measuring speed takes about {total['speed_hours']:.2g} hours more"
    workers = max(row["workers"] or 1 for row in rows)
    if workers > 1:
        yield f"hours are those of one device: up to {workers} workers take a share each"
    if uncounted := [row["prompt_tokens"] for row in rows if not row["prompt_tokens_counted"]]:
        yield f"prompts without data or tokenizer here are taken to have {uncounted[0]:g} tokens"


def missing(rows: Sequence[Row]) -> Iterator[str]:
    """What could not be had."""
    yield from dict.fromkeys(f"{row['task']}: {row['prompts']}" for row in rows if row["prompts"] != "built")
    for model in dict.fromkeys(row["model"] for row in rows if row["shape"] is None and row["engine"] != REMOTE):
        yield f"the shape of {model} is not known here; name a preset of it as shape"
    judged = [row for row in rows if row["hours"] is not None and row["scoring_hours"] is None]
    if judged:
        yield "the shape of a reward model is not known here; name a preset of it as reward_shape in [plan]"


def not_reckoned(sweep: Sweep, rows: Sequence[Row]) -> Iterator[str]:
    """What changes the cost and is in no figure."""
    for model in dict.fromkeys(row["model"] for row in rows if row["engine"] == REMOTE):
        yield f"{model} is behind an endpoint: no memory and no hours of a device are reckoned for it"
    for strategy in dict.fromkeys(row["strategy"] for row in rows if row["strategy"]):
        yield f"the strategy {strategy} changes how much is generated: its hours are those of independent samples"
    judges = dict.fromkeys(name for row in rows for name in row["reward_models"])
    for name in filter(plugins.names_reward_model, judges):
        yield f"the time of the reward model {name} is not reckoned: it is a plug-in"
    if any(str(setting_of(cell, "tensor_parallel_size") or 1) != "1" for cell in sweep.cells):
        yield "memory and hours are those of one device: tensor_parallel_size is not reckoned with"


def not_fitting(sweep: Sweep, rows: Sequence[Row]) -> Iterator[str]:
    """Models that the device does not hold, and those whose samples it does not hold at once."""
    hardware, told = sweep.assumed.get("hardware"), set()
    for row in rows:
        rows_fit, beside = row["largest_batch"], " with its reward models" if row["reward_models"] else ""
        if rows_fit is None or row["model"] in told:
            continue
        if rows_fit == 0:
            needed = (row["weight_bytes"] + row["reward_bytes"] + row["row_bytes"]) / 1e9
            yield f"{row['model']}{beside} does not fit one {hardware}: one full row makes it {needed:.3g} GB"
        elif row["protocol"] == "latency" and rows_fit < row["samples"]:
            yield (
                f"{row['model']}{beside} leaves one {hardware} room for {rows_fit} full rows of "
                f"{row['samples']} samples: the longest of them wait or are pre-empted"
            )
        else:
            continue
        told.add(row["model"])
