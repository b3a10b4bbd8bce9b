"""The speed of a sweep's models: one timing table for each, measured once and kept beside the runs."""

from collections.abc import Sequence
from pathlib import Path

from harness.errors import UserError
from harness.progress import ShowProgress
from harness.running.bench import OWN_ENGINE
from harness.sweeping.sweep import Cell, Sweep
from harness.timing.speed import Grid
from harness.timing.speed_arms import Asked, measure_arm
from harness.timing.timing_tables import FACTS, TABLE, TimingTable, read_timings

REMOTE = "openai"
"""The engine whose device is not at hand: its steps cannot be timed."""


def timed_models(sweep: Sweep, panel: str | None = None) -> list[tuple[Cell, Path]]:
    """A run of every model whose speed is measured, the first of several, with the folder of its table.

    Only the models of one panel when it is named. Models differ in name, engine or the engine's options.
    """
    found: dict[object, tuple[Cell, Path]] = {}
    for cell in sweep.cells:
        if cell.arm.engine != REMOTE and panel in (None, cell.panel):
            key = cell.arm.model, cell.arm.engine, cell.arm.options
            found.setdefault(key, (cell, sweep.folder / "speed" / cell.label))
    return list(found.values()) if sweep.grid else []


def measured(folder: Path) -> bool:
    """Whether a folder has a whole table."""
    return (folder / TABLE).exists() and (folder / FACTS).exists()


def measure_missing(sweep: Sweep, show: ShowProgress) -> dict[str, str]:
    """Measure every model that has no table yet; a sentence for each that could not be."""
    failed: dict[str, str] = {}
    for cell, folder in timed_models(sweep):
        if measured(folder):
            continue
        assert sweep.grid is not None, "without a grid no model is timed"
        engine = None if cell.arm.engine == OWN_ENGINE else cell.arm.engine
        asked = Asked(engine, cell.arm.options, "auto", False, sweep.grid, cell.asked.sampling)
        try:
            measure_arm(cell.arm.model, asked, folder, show)
        except UserError as error:
            failed[f"speed of {cell.label}"] = str(error)
    return failed


def check_tables(sweep: Sweep) -> None:
    """Raises UserError when a table that is there was measured on another grid."""
    for _, folder in timed_models(sweep):
        if measured(folder) and sweep.grid is not None:
            check_grid(read_timings(folder), sweep.grid, folder)


def check_grid(table: TimingTable, grid: Grid, folder: Path) -> None:
    """Raises UserError when a table was measured on another grid."""
    measured = table.facts.get("grid", {})
    for name in ("batches", "prompts", "contexts", "generated"):
        wanted = getattr(grid, name)
        wanted = list(wanted) if isinstance(wanted, tuple) else wanted
        if measured.get(name) != wanted:
            raise UserError(
                f"'{folder}' was measured with {name} {measured.get(name)}, and [speed] asks for {wanted}; move the "
                "folder away to measure again, or give the sweep another name"
            )


def timings_of(sweep: Sweep, panel: str | None = None) -> Sequence[Path]:
    """The folders of the tables that are there."""
    return [folder for _, folder in timed_models(sweep, panel) if measured(folder)]
