"""The options that several commands share, each described once."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Selectors = Annotated[
    list[str] | None,
    typer.Option(
        "--selector", metavar="S", help="A selector: a name of `ttc list selectors`, file.py:name or module:name."
    ),
]
SelectorOptions = Annotated[
    list[str] | None, typer.Option("-S", "--selector-arg", metavar="K=V", help="An option of a selector.")
]
RewardModels = Annotated[
    list[str] | None,
    typer.Option(
        "--reward-model",
        metavar="R",
        help="A reward model: a hub id, a folder, zoo/NAME, a name of `ttc list reward-models`, file.py:name or "
        "module:name.",
    ),
]
RewardOptions = Annotated[
    list[str] | None, typer.Option("-R", "--reward-arg", metavar="K=V", help="An option of a reward model.")
]
Strategies = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        metavar="NAME",
        help="How the budget is spent on a problem, instead of on independent samples: a name of `ttc list "
        "strategies`, file.py:name or module:name.",
    ),
]
StrategyOptions = Annotated[
    list[str] | None, typer.Option("-X", "--strategy-arg", metavar="K=V", help="An option of the strategy.")
]
TaskName = Annotated[
    str, typer.Option("--task", metavar="T", help="A task: a name of `ttc list tasks`, file.py:name or module:name.")
]
TaskOptions = Annotated[
    list[str] | None, typer.Option("-T", "--task-arg", metavar="K=V", help="An option of the task.")
]
Data = Annotated[str | None, typer.Option("--data", metavar="FILE", help="Read the task's problems from this file.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N problems.")]
Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="B",
        help="Show this budget, at most the run's own; the largest ends the axis: 60s, 2PFLOP, 4096tok.",
    ),
]
Timings = Annotated[
    list[Path] | None,
    typer.Option(
        "--timing",
        metavar="DIR",
        help="A timing table of `ttc speed --out DIR`: drawn, and runs of its model are shown in modelled time too.",
    ),
]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="A run's folder, or a folder of runs.")]

DEFAULT_SELECTORS = ["coverage", "majority", "first"]


def default_selectors(scored: bool) -> list[str]:
    """The selectors when none is named; those that choose by a reward model's scores only where there are scores."""
    return [*DEFAULT_SELECTORS, *(["best_of_n", "weighted_majority"] if scored else [])]
