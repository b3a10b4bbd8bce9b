"""`ttc bench` and `ttc demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.options import (
    Data,
    Json,
    Limit,
    Quiet,
    RewardModels,
    RewardOptions,
    SelectorOptions,
    Selectors,
    Strategies,
    StrategyOptions,
    TaskName,
    TaskOptions,
    default_selectors,
)

if TYPE_CHECKING:
    from harness.running.bench import Plan
    from harness.workers.team import Crew

Protocol = Literal["latency", "throughput"]


def bench(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="A hub id, a folder, zoo/NAME, a stored run, or a plug-in.")
    ],
    task: TaskName,
    budget: Annotated[
        str | None,
        typer.Option(metavar="B", help="Per problem (latency) or per run (throughput): 60s, 2PFLOP, 4096tok."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, metavar="N", help="Completions per problem.")] = 16,
    protocol: Annotated[Protocol, typer.Option(help="One problem at a time, or all in flight.")] = "latency",
    engine: Annotated[
        str | None, typer.Option(metavar="E", help="An engine of `ttc list models`, or a plug-in.")
    ] = None,
    model_arg: Annotated[
        list[str] | None,
        typer.Option("-M", "--engine-arg", metavar="K=V", help="An option of the engine or model plug-in."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ask the server there: --engine openai -M base_url=URL (docs/endpoints.md)."),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the checkpoint run its own Python code.")
    ] = False,
    task_arg: TaskOptions = None,
    data: Data = None,
    limit: Limit = None,
    selector: Selectors = None,
    selector_arg: SelectorOptions = None,
    reward_model: RewardModels = None,
    reward_arg: RewardOptions = None,
    strategy: Strategies = None,
    strategy_arg: StrategyOptions = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="1 is off.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="0 is off.")] = 0,
    max_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Longest completion.")] = 2048,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End a completion before this text.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of every random stream.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Sample with N copies of the model on Ray (docs/scale.md).")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDR", help="The Ray cluster: auto or host:port; without it this machine.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder (several models: one inside it each).")
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Sample, grade, select, report: a model's accuracy against time from one command.

    The same command typed again goes on where it stopped.
    """
    from harness.budgets import parse_budget
    from harness.errors import UserError
    from harness.nouns import Sampling
    from harness.running.bench import Plan
    from harness.workers.team import crew_of

    if top_p <= 0:
        raise UserError(f"--top-p must lie above 0 and at most 1, got {top_p:g}; 1 is off")
    sampling = Sampling(temperature, top_p, top_k, max_tokens, tuple(stop or ()), seed)
    scope: Literal["run", "problem"] = "run" if protocol == "throughput" else "problem"
    parsed = parse_budget(budget, scope) if budget is not None else None
    judges = tuple(dict.fromkeys(reward_model or ())), tuple(reward_arg or ())
    ways = strategy or "", tuple(strategy_arg or ())
    asked = Plan(task, tuple(task_arg or ()), data, limit, protocol, parsed, samples, sampling, *judges, *ways)
    run_bench(
        models,
        engine or (None if base_url is None else "openai"),
        [
            *(model_arg or []),
            *([] if base_url is None else [f"base_url={base_url}"]),
            *(["trust_remote_code=true"] if trust_remote_code else []),
        ],
        asked,
        selector or default_selectors(bool(reward_model)),
        selector_arg or [],
        out,
        json_,
        quiet,
        crew_of(workers, ray_address),
    )


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The run's folder.")] = Path("results/demo"),
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bench the shipped teacher, students and reward models on generated problems: CPU only, offline, two minutes."""
    from harness.budgets import Budget
    from harness.nouns import Sampling
    from harness.running.bench import Plan

    sampling = Sampling(temperature=0.8, max_tokens=400)
    asked = Plan("arithmetic", (), None, 40, "latency", Budget(1.5), 16, sampling, ("zoo/orm", "zoo/prm"))
    models = ["zoo/teacher", "zoo/llamba", "zoo/mamba-in-llama"]
    run_bench(models, None, [], asked, default_selectors(True), [], out, json_, quiet)


def run_bench(
    models: list[str], engine: str | None, model_options: list[str], asked: "Plan", selectors: list[str],
    selector_options: list[str], out: Path | None, json_: bool, quiet: bool, crew: "Crew | None" = None,
) -> None:  # fmt: skip
    """Run every arm, write the report beside the runs and print what came out."""
    from harness import plugins
    from harness.analysis.summarise import check_scored, summarise_all
    from harness.inert import inert_line
    from harness.progress import chooser
    from harness.reporting import material_of, report_folder, tell, write_reports
    from harness.running.bench import arms_of, bench_arm, note_arms
    from harness.running.interrupts import stoppable
    from harness.running.overshoot import compliance_lines
    from harness.running.searching import check_strategy

    loaded = plugins.load_selectors(selectors, selector_options)
    check_scored(loaded, asked.reward_models)
    plugins.reward_options(asked.reward_models, asked.reward_options)
    check_strategy(asked)
    task = plugins.load_task(asked.task, asked.task_options, asked.data)
    arms = arms_of(models, engine, model_options, out, asked)
    show = chooser(quiet)
    if not quiet:
        for arm in arms:
            typer.echo(inert_line(f"{arm.model} on {task.name} with engine {arm.engine} → {arm.path}"), err=True)
    with stoppable():
        runs = [bench_arm(arm, asked, task, show, crew=crew) for arm in arms]
        summaries = summarise_all(runs, loaded)
        if len(runs) > 1:
            note_arms(runs, summaries)
        material = material_of(summaries, runs, loaded)
        written = write_reports(summaries, report_folder(out, runs), material)
    tell(summaries, written, runs, json_)
    for run in [] if json_ else runs:
        for line in compliance_lines(run.manifest):
            typer.echo(inert_line(f"{run.name}: {line}"))


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(bench)
    app.command()(demo)
