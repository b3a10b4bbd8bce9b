"""`ttc import`, `ttc select`, `ttc report` and `ttc show`: everything that works on stored runs and loads no model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    Budgets,
    Data,
    Json,
    Quiet,
    Runs,
    SelectorOptions,
    Selectors,
    TaskName,
    TaskOptions,
    Timings,
    default_selectors,
)

if TYPE_CHECKING:
    from harness.analysis.summary import RunSummary
    from harness.nouns import Selector
    from harness.storage.runs import Run


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Recorded completions: JSON lines, or another tool's log (--from).")
    ],
    task: TaskName,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new run's folder.")],
    task_arg: TaskOptions = None,
    data: Data = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call the model; the file's name otherwise.")
    ] = None,
    regrade: Annotated[bool, typer.Option(help="Grade by the task even where the file says `correct`.")] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="F", help="ttc, lm-eval, inspect or search-and-learn; by what the file holds otherwise."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Make a run of recorded completions.

    A line has problem_id, gold, and text or answer; it may have sample_index, correct, reward, completion_tokens,
    prompt_tokens, finished_s, finish_reason and prompt. A recorded `correct` stands unless --regrade. Sample logs of
    lm-eval, logs of Inspect and the completion files of search-and-learn are read too (docs/interchange.md).
    """
    from harness.importing import import_file
    from harness.inert import inert_line

    name = model or file.name.partition(".")[0]
    run, counts = import_file(file, task, task_arg or [], data, out, name, regrade, form)
    if not quiet:
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        count = run.manifest["problems"]["count"]
        print(inert_line(f"{count} problems, {sum(counts.values())} completions ({told}) → {run.path}"))


def select(
    runs: Runs,
    selector: Selectors = None,
    selector_arg: SelectorOptions = None,
    budget: Budgets = None,
    timing: Timings = None,
    json_: Json = False,
) -> None:
    """Choose again from stored completions; no model is loaded."""
    from harness.reporting import tell

    found, summaries, _ = summarised(runs, selector, selector_arg, budget, timing)
    tell(summaries, [], found, json_)


def report(
    runs: Runs,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of figures, tables and the page.")],
    selector: Selectors = None,
    selector_arg: SelectorOptions = None,
    budget: Budgets = None,
    style: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A matplotlib style file on top of the figures' own.")
    ] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", metavar="F", help="A format of the figures: png, svg, pdf, pgf.")
    ] = None,
    timing: Timings = None,
    json_: Json = False,
) -> None:
    """Draw the figures and write the tables, the CSV and the page of one or many runs.

    Runs are grouped by task and model size; those that asked or sampled otherwise are shown apart, with the reason.
    """
    from harness.reporting import material_of, tell, write_reports

    found, summaries, selectors = summarised(runs, selector, selector_arg, budget, timing)
    material = material_of(summaries, found, selectors, style, formats or [], timing or [])
    tell(summaries, write_reports(summaries, out, material), found, json_)


def summarised(
    runs: list[Path], selector: list[str] | None, selector_arg: list[str] | None, budget: list[str] | None,
    timing: list[Path] | None,
) -> "tuple[list[Run], list[RunSummary], list[Selector]]":  # fmt: skip
    """The runs found at these paths, their summaries and the selectors.

    Runs of a model that has a timing table get curves along modelled seconds too. Raises UserError before any run is
    read.
    """
    from harness import plugins
    from harness.analysis.summarise import has_scores, summarise_all
    from harness.budgets import parse_budget
    from harness.errors import UserError
    from harness.storage.runs import find_runs
    from harness.timing.modelled_curves import with_modelled_curves
    from harness.timing.timing_tables import read_timings

    if selector:
        plugins.load_selectors(selector, selector_arg or [])
    budgets = [parse_budget(text) for text in budget or []]
    found = find_runs(runs)
    names = selector or default_selectors(any(has_scores(run) for run in found))
    loaded = plugins.load_selectors(names, selector_arg or [])
    tables = {table.facts["model"]: table for table in map(read_timings, timing or [])}
    summaries = [
        with_modelled_curves(summary, run, sound(loaded, summary), tables[summary.model])
        if summary.model in tables
        else summary
        for summary, run in zip(summarise_all(found, loaded, budgets, skip_unscored=not selector), found, strict=True)
    ]
    for summary in summaries:
        if summary.faults and not summary.curves:
            raise UserError(next(iter(summary.faults.values())))
    return found, summaries, loaded


def sound(selectors: "list[Selector]", summary: "RunSummary") -> "list[Selector]":
    """The selectors that did not raise on this run."""
    return [selector for selector in selectors if selector.name not in summary.faults]


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    problem: Annotated[str | None, typer.Argument(metavar="[PROBLEM]", help="A problem's id.")] = None,
    json_: Json = False,
) -> None:
    """Look into a run: its facts and problems, or one problem with every completion, answer and verdict."""
    from harness.showing import show_problem, show_run
    from harness.storage.runs import open_run

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
