"""From a run on disk to its summary: the curves of the selectors asked for, the counts and the facts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.analysis.bank import items_of
from harness.analysis.curves import curves_of
from harness.analysis.recorded import Recorded, read_recorded
from harness.analysis.summary import Axis, RunSummary
from harness.budgets import Budget
from harness.errors import UserError
from harness.nouns import Selector
from harness.running.validity import ENGINE_FACTS, differing_arms
from harness.storage.records import parts
from harness.storage.runs import Run

FACTS = (*ENGINE_FACTS, "parameters")


def summarise(
    run: Run, selectors: Sequence[Selector], budgets: Sequence[Budget] = (), skip_unscored: bool = False
) -> RunSummary:
    """Compute every curve of one run; a selector that raises has none, and a fault instead.

    The axes of `budgets` end at the largest of their unit.

    Raises UserError when the run has no completions, a budget goes past what the run was given, or a selector needs a
    reward model's scores and the run has none; with `skip_unscored` such a selector is left out instead.
    """
    recorded = read_recorded(run)
    faults: dict[str, str] = {}
    made = curves_of(
        items_of(run, recorded), usable(run, recorded, selectors, skip_unscored), axis_budgets(run, budgets), faults
    )
    bare = without_curves(run)
    return replace(
        bare, curves=made, facts=dict(bare.facts) | amortised(run, recorded), counts=recorded.counts, faults=faults
    )


def without_curves(run: Run) -> RunSummary:
    """What the manifest alone says of a run: enough to decide on fairness."""
    spec, validity = run.spec, run.manifest["validity"]
    return RunSummary(
        run=run.name,
        model=label_of(spec),
        task=spec["task"],
        problems=run.manifest["problems"]["count"],
        samples=spec["samples"],
        protocol=spec["protocol"],
        budget=spec["budget"],
        curves=(),
        validity=validity["verdict"],
        reasons=tuple(validity["reasons"]),
        facts=facts_of(run),
    )


def label_of(spec: Mapping[str, Any]) -> str:
    """What a run's arm is called: the model, and the strategy by which it was asked with its options."""
    options = ", ".join(spec.get("strategy_options", ()))
    strategy = spec.get("strategy", "").rpartition(":")[2] + (f" ({options})" if options else "")
    return f"{spec['model']} + {strategy}" if strategy else str(spec["model"])


def has_scores(run: Run) -> bool:
    """Whether some reward model scored the run, or was to."""
    return bool(run.spec.get("reward_models")) or bool(parts(run.path / "scores"))


def check_scored(selectors: Sequence[Selector], reward_models: Sequence[str]) -> None:
    """Raises UserError on a selector that chooses by scores where no reward model is asked to give any."""
    lost = [selector.name for selector in selectors if selector.reads_scores]
    if lost and not reward_models:
        raise UserError(
            f"the selector {lost[0]} chooses by a reward model's scores; add --reward-model R "
            "(`ttc list reward-models` names them) or leave the selector out"
        )


def usable(run: Run, recorded: Recorded, selectors: Sequence[Selector], skip_unscored: bool) -> list[Selector]:
    """The selectors that this run has what they need for. Raises UserError on one that it has not."""
    kept = []
    for selector in selectors:
        if not selector.reads_scores or recorded.rewards:
            kept.append(selector)
        elif not skip_unscored:
            raise UserError(
                f"the selector {selector.name} chooses by a reward model's scores and '{run.name}' has none; "
                f"type: ttc score {run.path} --reward-model R (`ttc list reward-models` names them)"
            )
    return kept


def summarise_all(
    runs: Sequence[Run], selectors: Sequence[Selector], budgets: Sequence[Budget] = (), skip_unscored: bool = False
) -> list[RunSummary]:
    """Summarise several runs; those of one task whose arms differ in what must be equal are marked INVALID."""
    return marked([summarise(run, selectors, budgets, skip_unscored) for run in runs])


def marked(summaries: Sequence[RunSummary]) -> list[RunSummary]:
    """Summaries that stand beside each other: arms of one task that differ in what must be equal are INVALID."""
    summaries = list(summaries)
    for asked in {question_of(summary) for summary in summaries}:
        arms = [summary for summary in summaries if question_of(summary) == asked]
        unfair = tuple(differing_arms(arms))
        if unfair:
            summaries = [
                replace(arm, validity="INVALID", reasons=arm.reasons + unfair) if arm in arms else arm
                for arm in summaries
            ]
    return summaries


def question_of(summary: RunSummary) -> tuple[object, ...]:
    """What arms of one comparison were asked: a task with its options."""
    return summary.task, summary.facts.get("task_options")


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


def amortised(run: Run, recorded: Recorded) -> dict[str, object]:
    """Device-seconds per problem of a run that had all problems in flight; nothing for the other protocol."""
    if run.spec["protocol"] != "throughput":
        return {}
    last_s = float(recorded.numbers["finished_s"][recorded.there].max())
    devices = run.manifest.get("workers", {}).get("devices", 1)
    return {"amortised_s_per_problem": last_s * devices / run.manifest["problems"]["count"]}


def facts_of(run: Run) -> dict[str, object]:
    """Flat facts for captions: of the engine, the machine, the versions and the sampling."""
    manifest = run.manifest
    facts: dict[str, object] = {name: manifest["engine"][name] for name in FACTS if name in manifest["engine"]}
    machine, sampling = manifest["machine"], manifest["spec"].get("sampling") or {}
    facts |= {"cpu": machine["cpu"], "cores": machine["usable_cores"]}
    if workers := manifest.get("workers"):
        facts |= {"workers": workers["count"], "devices": workers["devices"]}
    if machine["gpus"]:
        facts["gpu"] = ", ".join(gpu["name"] for gpu in machine["gpus"])
    facts |= {
        name: sampling[name] for name in ("temperature", "top_p", "top_k", "max_tokens", "seed") if name in sampling
    }
    if options := manifest["spec"].get("task_options"):
        facts["task_options"] = " ".join(sorted(options))
    facts |= {"ttc": manifest["versions"]["ttc"], "python": manifest["versions"]["python"]}
    if manifest["git_commit"]:
        facts["git_commit"] = manifest["git_commit"]
    return facts
