"""From a run on disk to its summary: the curves of the selectors asked for, the counts and the facts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.bank import load_bank
from harness.budgets import Budget
from harness.curves import curves_of
from harness.errors import UserError
from harness.nouns import Selector
from harness.runs import Run
from harness.summary import Axis, RunSummary
from harness.validity import differing_arms

FACTS = ("engine", "engine_version", "torch", "dtype", "device", "threads", "parameters")


def summarise(run: Run, selectors: Sequence[Selector], budgets: Sequence[Budget] = ()) -> RunSummary:
    """Compute every curve of one run. The axes of `budgets` end at the largest of their unit.

    Raises UserError when the run has no completions, or a budget goes past what the run was given.
    """
    completions = run.completions()
    if not completions:
        raise UserError(f"'{run.path}' has no completions yet; run the command that made it again")
    spec = run.spec
    shown = axis_budgets(run, budgets)
    verdicts = Counter(row["verdict"] for row in run.verdicts())
    reasons = Counter(row["finish_reason"] for row in completions)
    validity = run.manifest["validity"]
    return RunSummary(
        run=run.name,
        model=spec["model"],
        task=spec["task"],
        problems=run.manifest["problems"]["count"],
        samples=spec["samples"],
        protocol=spec["protocol"],
        budget=spec["budget"],
        curves=curves_of(load_bank(run), selectors, shown),
        validity=validity["verdict"],
        reasons=tuple(validity["reasons"]),
        facts=facts_of(run) | amortised(run, completions),
        counts=dict(verdicts) | {f"finish_{name}": count for name, count in reasons.items()},
    )


def summarise_all(
    runs: Sequence[Run], selectors: Sequence[Selector], budgets: Sequence[Budget] = ()
) -> list[RunSummary]:
    """Summarise several runs; those of one task whose arms differ in what must be equal are marked INVALID."""
    summaries = [summarise(run, selectors, budgets) for run in runs]
    for task in {summary.task for summary in summaries}:
        arms = [summary for summary in summaries if summary.task == task]
        unfair = tuple(differing_arms(arms))
        if unfair:
            summaries = [
                replace(arm, validity="INVALID", reasons=arm.reasons + unfair) if arm in arms else arm
                for arm in summaries
            ]
    return summaries


def axis_budgets(run: Run, budgets: Sequence[Budget]) -> dict[Axis, list[float]]:
    """The budgets that each spent axis shows: those asked for, else the run's own, else none.

    Raises UserError on a budget that goes past what the run was given.
    """
    own = run.budget
    shown: dict[Axis, list[float]] = {"seconds": [], "flops": [], "tokens": []}
    for budget in budgets:
        if own is not None and own.unit == budget.unit and budget.amount > own.amount:
            raise UserError(
                f"the budget {budget} goes past the {own} that '{run.name}' was given; "
                "ask for at most that, or bench again with more"
            )
        shown[budget.unit].append(budget.amount)
    if own is not None and not shown[own.unit]:
        shown[own.unit] = [own.amount]
    return shown


def amortised(run: Run, completions: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Seconds per problem of a run that had all problems in flight; nothing for the other protocol."""
    if run.spec["protocol"] != "throughput":
        return {}
    return {
        "amortised_s_per_problem": max(row["finished_s"] for row in completions) / run.manifest["problems"]["count"]
    }


def facts_of(run: Run) -> dict[str, object]:
    """Flat facts for captions: of the engine, the machine, the versions and the sampling."""
    manifest = run.manifest
    facts: dict[str, object] = {name: manifest["engine"][name] for name in FACTS if name in manifest["engine"]}
    machine, sampling = manifest["machine"], manifest["spec"].get("sampling") or {}
    facts |= {"cpu": machine["cpu"], "cores": machine["usable_cores"]}
    if machine["gpus"]:
        facts["gpu"] = ", ".join(gpu["name"] for gpu in machine["gpus"])
    facts |= {
        name: sampling[name] for name in ("temperature", "top_p", "top_k", "max_tokens", "seed") if name in sampling
    }
    facts |= {"ttc": manifest["versions"]["ttc"], "python": manifest["versions"]["python"]}
    if manifest["git_commit"]:
        facts["git_commit"] = manifest["git_commit"]
    return facts
