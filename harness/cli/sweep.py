"""`ttc sweep` and `ttc paper`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Json, Quiet, default_selectors

if TYPE_CHECKING:
    from harness.sweeping.sweep import Sweep
    from harness.sweeping.sweep_board import Board

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check every field, print the runs with what they will cost, and end.")
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of the runs; without it results/NAME.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Another value than the file's; LABEL.FIELD for one model or task alone."
    ),
]


class Scale(StrEnum):
    """The sizes of the paper's experiment."""

    zoo = "zoo"
    full = "full"


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TOML file of models and tasks (docs/sweep.md).")],
    dry_run: DryRun = False,
    out: Out = None,
    change: Changes = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bench many models on many tasks, one run each, and report them together.

    The same command typed again skips the runs that are finished and goes on with the others.
    """
    go(file, out, change or [], dry_run, json_, quiet)


def paper(
    scale: Annotated[
        Scale, typer.Option(help="The shipped models on this machine's processor, or the published ones on GPUs.")
    ] = Scale.zoo,
    dry_run: DryRun = False,
    out: Out = None,
    change: Changes = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the experiment of Thinking Slow, Fast (arXiv 2502.20339): teachers and students for equal time.

    A sweep of a file that ships with the program (docs/paper.md); what was finished is not made again.
    """
    from harness.sweeping.sweep import paper_file

    go(paper_file(scale.value), out, change or [], dry_run, json_, quiet)


def go(file: Path, out: Path | None, changes: list[str], dry_run: bool, json_: bool, quiet: bool) -> None:
    """Read and check a sweep, then plan it or make it."""
    from harness import plugins
    from harness.analysis.summarise import check_scored
    from harness.sweeping.sweep import read_sweep
    from harness.sweeping.sweep_speed import check_tables

    read = read_sweep(file, out, changes)
    judged = [cell.asked.reward_models for cell in read.cells if cell.asked.reward_models]
    names = list(read.selectors) or default_selectors(bool(judged))
    check_scored(plugins.load_selectors(names, read.selector_options), judged[0] if judged else ())
    states = [cell.state for cell in read.cells]
    check_tables(read)
    if dry_run:
        print_plan(read, states, json_)
    else:
        run(read, states, names, json_, quiet)


def run(read: "Sweep", states: list[Any], names: list[str], json_: bool, quiet: bool) -> None:
    """Make every run that is not finished and measure every speed that is not, then the report of all that are."""
    from harness.progress import chooser
    from harness.sweeping.sweep_board import Board
    from harness.sweeping.sweep_report import report
    from harness.sweeping.sweep_speed import measure_missing

    board = Board(read.cells, states, quiet)
    try:
        with board.live():
            failed = bench_all(read, board)
        slow = measure_missing(read, chooser(quiet))
        report(read, [cell for cell in read.cells if cell.name not in failed], names, json_)
    except KeyboardInterrupt:
        typer.echo("ttc: stopped; what was finished is stored, type the same command to go on", err=True)
        raise typer.Exit(130) from None
    for name, sentence in (failed | slow).items():
        typer.echo(f"ttc: {name}: {sentence}", err=True)
    if failed or slow:
        raise typer.Exit(1)


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
    """The runs of a sweep, how far they are and what they will cost."""
    from harness.sweeping.sweep_plan import plan

    planned = plan(read, states)
    if json_:
        print(json.dumps(planned))
        return
    from harness.sweeping.plan_table import print_rows

    print_rows(planned["runs"], planned["total"], planned["notes"])


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(sweep)
    app.command()(paper)
