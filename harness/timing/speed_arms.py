"""One model of a `ttc speed`: which engine with which options, loaded, measured, stored, closed."""

import importlib
import tempfile
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from harness import plugins
from harness.errors import UserError
from harness.nouns import Sampling
from harness.plugin_options import options_of
from harness.progress import ShowProgress
from harness.running.bench import short
from harness.storage.runs import Run
from harness.timing.modelled import recorded_jobs
from harness.timing.speed import Grid, measure
from harness.timing.timing_tables import TimingTable, write_timings

CONTEXTS = 5
"""Places between the shortest prompt and the longest text of a run that is covered."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one `ttc speed` asks for, the same for every model."""

    engine: str | None
    options: tuple[str, ...]
    dtype: str
    random_weights: bool
    grid: Grid
    sampling: Sampling


def folders(models: Sequence[str], out: Path | None) -> list[Path]:
    """Where each model's table goes: `out` itself for one model, else a folder inside it or under `results/speed`.

    Raises UserError when two models would share one.
    """
    names = [short(model) for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"two models share the name '{twice}'; measure them one by one, each with its own --out")
    return [out] if out is not None and len(models) == 1 else [(out or Path("results/speed")) / name for name in names]


def measure_arm(model: str, asked: Asked, folder: Path, show: ShowProgress) -> TimingTable:
    """Load a model, go through the grid and store the table in `folder`. Raises UserError."""
    own = not plugins.names_checkpoint(model)
    engine = "" if own else asked.engine or plugins.default_engine(model)
    with tempfile.TemporaryDirectory() if needs_files(model, engine, asked) else nullcontext() as place:
        options = engine_options(model, engine, asked)
        loaded = plugins.load_model(files_of(model, Path(place), asked) if place else model, engine, options)
        loaded.name = model
        close = getattr(loaded, "close", None)
        with closing(loaded) if close else nullcontext(), show(f"timing {model}", asked.grid.visits) as progress:  # type: ignore[type-var]
            table = measure(loaded, asked.grid, asked.sampling, progress)
    write_timings(folder, table)
    return table


def needs_files(model: str, engine: str, asked: Asked) -> bool:
    """Whether random weights have to be written down first, for an engine that only reads them."""
    if not (asked.random_weights or model.startswith("preset/")) or not engine:
        return False
    return engine != "native"


def files_of(model: str, folder: Path, asked: Asked) -> str:
    """A checkpoint with random weights of a model's shape, as a user would type it."""
    room = importlib.import_module("harness.models.costs.random_checkpoint")
    written: Path = room.write_random(model, folder / "checkpoint", asked.dtype)
    return str(written)


def engine_options(model: str, engine: str, asked: Asked) -> tuple[str, ...]:
    """The user's options, and what else the engine takes: the dtype, room for the largest batch, random weights."""
    known = options_of(plugins.load_function("models", engine or model))
    given = {option.partition("=")[0] for option in asked.options}
    wanted = {"max_batch_size": str(max(asked.grid.batches))}
    if asked.dtype != "auto":
        wanted["dtype"] = asked.dtype
    if asked.random_weights and "random_weights" in known:
        wanted["random_weights"] = "true"
    if "dtype" in wanted and "dtype" not in known:
        raise UserError(f"{f'engine {engine}' if engine else model} has no choice of dtype; leave out --dtype")
    return (
        *asked.options,
        *(f"{name}={value}" for name, value in wanted.items() if name in known and name not in given),
    )


def covering(run: Run, passes: int, repeats: int) -> Grid:
    """The grid from which the time of a run's recorded lengths can be modelled. Raises UserError."""
    jobs = [job for own in recorded_jobs(run).values() for job in own]
    largest = run.spec["samples"]
    if run.spec.get("protocol") == "throughput":
        largest *= len({job.prompt_id for job in jobs})
    largest = min(largest, run.manifest["engine"].get("max_batch_size") or largest)
    prompts = sorted({min(job.prompt for job in jobs), max(job.prompt for job in jobs)})
    first, last = prompts[0], max(job.prompt + job.length for job in jobs)
    places = {first + (last - first) * place // (CONTEXTS - 1) for place in range(CONTEXTS)}
    batches = {2**power for power in range(largest.bit_length()) if 2**power <= largest} | {largest}
    generated = sorted(job.length for job in jobs)[len(jobs) // 2]
    return Grid(tuple(sorted(batches)), tuple(prompts), tuple(sorted(places)), generated, passes, repeats)
