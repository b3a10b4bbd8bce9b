"""`ttc compare`: who is more accurate for the same time, how sure that is, and where the lead changes."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Budgets, Json, SelectorOptions, Selectors, default_selectors

RunPaths = Annotated[
    list[Path],
    typer.Argument(metavar="RUN_A RUN_B [RUN...]", help="Runs or folders of runs; each is compared with the first."),
]
RewardModels = Annotated[
    list[str] | None,
    typer.Option("--reward-model", metavar="R", help="Only by this reward model; by all that every run has otherwise."),
]


def compare(
    runs: RunPaths,
    selector: Selectors = None,
    selector_arg: SelectorOptions = None,
    budget: Budgets = None,
    reward_model: RewardModels = None,
    json_: Json = False,
) -> None:
    """Compare runs on the same problems at equal budgets: differences, intervals, p values, crossover, speed-up.

    Runs that differ only in the seed are taken together. Without --budget the end of the range that all have in
    common, its half, quarter and eighth are shown.
    """
    import json

    from harness import plugins
    from harness.analysis.summarise import has_scores
    from harness.budgets import parse_budget
    from harness.comparisons.comparing import compare_runs
    from harness.comparisons.comparison import as_document
    from harness.comparisons.comparison_tables import tell
    from harness.storage.runs import find_runs

    budgets = [parse_budget(text) for text in budget or []]
    found = find_runs(runs)
    names = selector or default_selectors(all(has_scores(run) for run in found))
    comparison = compare_runs(found, plugins.load_selectors(names, selector_arg or []), budgets, reward_model or [])
    if json_:
        print(json.dumps(as_document(comparison)))
    else:
        tell(comparison)


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(compare)
