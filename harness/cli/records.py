"""`ttc import`, `ttc select`, `ttc report` and `ttc show`: everything that works on stored runs and loads no model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    DEFAULT_SELECTORS,
    Budgets,
    Data,
    Json,
    Quiet,
    Runs,
    SelectorOptions,
    Selectors,
    TaskName,
    TaskOptions,
)

if TYPE_CHECKING:
    from harness.runs import Run
    from harness.summary import RunSummary


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Recorded completions, one JSON object a line.")],
    task: TaskName,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new run's folder.")],
    task_arg: TaskOptions = None,
    data: Data = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call the model; the file's name otherwise.")
    ] = None,
    regrade: Annotated[bool, typer.Option(help="Grade by the task even where the file says `correct`.")] = False,
    quiet: Quiet = False,
) -> None:
    """Make a run of recorded completions.

    A line has problem_id, gold, and text or answer; it may have sample_index, correct, reward, completion_tokens,
    prompt_tokens, finished_s and prompt. A recorded `correct` stands unless --regrade.
    """
    from harness.importing import import_file

    run, counts = import_file(file, task, task_arg or [], data, out, model or file.name.partition(".")[0], regrade)
    if not quiet:
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        print(f"{run.manifest['problems']['count']} problems, {sum(counts.values())} completions ({told}) → {run.path}")


def select(
    runs: Runs,
    selector: Selectors = None,
    selector_arg: SelectorOptions = None,
    budget: Budgets = None,
    json_: Json = False,
) -> None:
    """Choose again from stored completions; no model is loaded."""
    from harness.reporting import tell

    found, summaries = summarised(runs, selector, selector_arg, budget)
    tell(summaries, [], found, json_)


def report(
    runs: Runs,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of figures, tables and the page.")],
    selector: Selectors = None,
    selector_arg: SelectorOptions = None,
    budget: Budgets = None,
    json_: Json = False,
) -> None:
    """Draw the figures and write the tables, the CSV and the page of one or many runs."""
    from harness.reporting import tell, write_reports

    found, summaries = summarised(runs, selector, selector_arg, budget)
    tell(summaries, write_reports(summaries, out), found, json_)


def summarised(
    runs: list[Path], selector: list[str] | None, selector_arg: list[str] | None, budget: list[str] | None
) -> "tuple[list[Run], list[RunSummary]]":
    """The runs found at these paths and their summaries. Raises UserError before any run is read."""
    from harness import plugins
    from harness.budgets import parse_budget
    from harness.runs import find_runs
    from harness.summarise import summarise_all

    loaded = plugins.load_selectors(selector or DEFAULT_SELECTORS, selector_arg or [])
    budgets = [parse_budget(text) for text in budget or []]
    found = find_runs(runs)
    return found, summarise_all(found, loaded, budgets)


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    problem: Annotated[str | None, typer.Argument(metavar="[PROBLEM]", help="A problem's id.")] = None,
    json_: Json = False,
) -> None:
    """Look into a run: its facts and problems, or one problem with every completion, answer and verdict."""
    from harness.runs import open_run
    from harness.showing import show_problem, show_run

    opened = open_run(run)
    if problem is None:
        show_run(opened, json_)
    else:
        show_problem(opened, problem, json_)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command(name="import")(import_)
    app.command()(select)
    app.command()(report)
    app.command()(show)
