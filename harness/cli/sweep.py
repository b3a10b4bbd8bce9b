"""`ttc sweep`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Json, Quiet, default_selectors

if TYPE_CHECKING:
    from harness.sweeping.sweep import Cell, Sweep
    from harness.sweeping.sweep_board import Board


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TOML file of models and tasks (docs/sweep.md).")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file, print its runs and how far they are, and end.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of the runs; without it results/NAME.")
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bench many models on many tasks, one run each, and report them together.

    The same command typed again skips the runs that are finished and goes on with the others.
    """
    from harness import plugins
    from harness.analysis.summarise import check_scored
    from harness.sweeping.sweep import read_sweep

    read = read_sweep(file, out)
    judged = [cell.asked.reward_models for cell in read.cells if cell.asked.reward_models]
    names = list(read.selectors) or default_selectors(bool(judged))
    check_scored(plugins.load_selectors(names, read.selector_options), judged[0] if judged else ())
    states = [cell.state for cell in read.cells]
    if dry_run:
        print_plan(read, states, json_)
    else:
        run(read, states, names, json_, quiet)


def run(read: "Sweep", states: list[Any], names: list[str], json_: bool, quiet: bool) -> None:
    """Make every run that is not finished, then the report of all that are."""
    from harness.sweeping.sweep_board import Board

    board = Board(read.cells, states, quiet)
    try:
        with board.live():
            failed = bench_all(read, board)
        report(read, [cell for cell in read.cells if cell.name not in failed], names, json_)
    except KeyboardInterrupt:
        typer.echo("ttc: stopped; what was finished is stored, type the same command to go on", err=True)
        raise typer.Exit(130) from None
    for name, sentence in failed.items():
        typer.echo(f"ttc: {name}: {sentence}", err=True)
    if failed:
        raise typer.Exit(1)


def report(read: "Sweep", cells: "list[Cell]", names: list[str], json_: bool) -> None:
    """Summarise these runs, on the cluster where there is one, and report them together."""
    from harness import plugins
    from harness.analysis.summarise import summarise_all
    from harness.reporting import material_of, tell, write_reports
    from harness.storage.runs import open_run
    from harness.workers.spread import summarise_on

    if not cells:
        return
    runs = [open_run(cell.arm.path) for cell in cells]
    selectors = plugins.load_selectors(names, read.selector_options)
    spread = summarise_on(read.crew, [run.path for run in runs], names, read.selector_options) if read.crew else None
    summaries = spread or summarise_all(runs, selectors, skip_unscored=True)
    material = material_of(summaries, runs, selectors)
    tell(summaries, write_reports(summaries, read.folder / "report", material), runs, json_)


def bench_all(read: "Sweep", board: "Board") -> dict[str, str]:
    """Bench what is not finished, one run after the other; a sentence for each that could not be made."""
    from contextlib import nullcontext

    from harness import plugins
    from harness.errors import UserError
    from harness.nouns import Task
    from harness.running.bench import bench_arm
    from harness.workers.team import connected

    failed: dict[str, str] = {}
    tasks: dict[tuple[Any, ...], Task] = {}
    todo = [cell for cell in read.cells if board.states[cell.name] != "finished"]
    with connected(read.crew) if read.crew and todo else nullcontext():
        for cell in todo:
            asked = cell.asked
            board.move(cell, "loading")
            try:
                key = asked.task, asked.task_options, asked.data
                if key not in tasks:
                    tasks[key] = plugins.load_task(*key)
                made = bench_arm(cell.arm, asked, tasks[key], board.show(cell), crew=cell.crew)
                board.move(cell, f"finished {made.manifest['validity']['verdict']}")
            except UserError as error:
                failed[cell.name] = str(error)
                board.move(cell, "failed", str(error))
    return failed


def print_plan(read: "Sweep", states: list[Any], json_: bool) -> None:
    """The runs of a sweep and how far they are."""
    rows = [plan_row(cell, state) for cell, state in zip(read.cells, states, strict=True)]
    if json_:
        print(json.dumps({"folder": str(read.folder), "runs": rows}))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("–" if value is None else str(value)) for value in row.values()))
    Console(width=160, highlight=False).print(table)


def plan_row(cell: "Cell", state: str) -> dict[str, Any]:
    """What one run is asked for, by name."""
    asked = cell.asked
    return {
        "run": str(cell.arm.path),
        "model": cell.arm.model,
        "engine": cell.arm.engine,
        "task": asked.task,
        "protocol": asked.protocol,
        "budget": str(asked.budget) if asked.budget else None,
        "samples": asked.samples,
        "workers": cell.crew.workers if cell.crew else None,
        "state": state,
    }


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(sweep)
