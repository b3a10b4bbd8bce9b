"""Runs against each other at equal budgets: paired by problem, bootstrapped over problems and seeds.

`compare_runs` is what `ttc compare` and the reports call; docs/statistics.md defines every number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from harness.analysis.summary import Axis
from harness.budgets import Budget
from harness.comparisons.arm_values import (
    ArmBank,
    check_reward_models,
    is_recorded,
    load_arm,
    range_of,
    right_or_wrong,
    samples_of,
    typical_end,
    usage_at,
    values_of_views,
    views_by_name,
)
from harness.comparisons.arms import Group, group_runs, seed_of, unfairness
from harness.comparisons.comparison import (
    ArmFacts,
    Comparison,
    FrontPlace,
    OneSample,
    Pair,
    SelectorComparison,
    TaskComparison,
    spelled,
)
from harness.comparisons.concluding import conclude
from harness.comparisons.pair_results import Frame, Side, compare_sides
from harness.errors import UserError, choices
from harness.nouns import Selector
from harness.stats.bayes import bayes_at_n, decide
from harness.stats.coverage_law import CoverageLaw, fit_coverage_law
from harness.stats.difficulty import difficulty_bins
from harness.stats.paired import holm
from harness.stats.pareto import front_frequency, on_front
from harness.stats.resampling import LEVEL, RESAMPLES, replicate_means
from harness.storage.runs import Run

GRID = 64
"""Places, evenly spaced on a log scale, at which curves are known for crossovers, speed-ups and areas."""
HALVINGS = 3
IDLE_PART = 1.1
"""How far past the median problem's last finish a budget may lie before an arm is said to idle."""
LAW_POINTS = 40
"""Values of k, evenly spaced on a log scale, behind the coverage law (as Large Language Monkeys)."""
RULE = "the end of the range that all arms have in common, and its half, quarter and eighth"
"""Which budgets are shown when none is asked for: a rule that looks at no accuracy."""


def compare_runs(
    runs: Sequence[Run], selectors: Sequence[Selector], budgets: Sequence[Budget] = (),
    reward_models: Sequence[str] = (), resamples: int = RESAMPLES,
) -> Comparison:  # fmt: skip
    """Compare the first run of each task with every other one on the same problems, under every selector.

    Runs that differ only in the seed are one arm. Score-reading selectors are shown once per reward model that scored
    all arms (of `reward_models`, unless empty), charged for its time. Raises UserError when no two runs fit, a budget
    goes past a run's own, or an axis was not recorded.
    """
    groups, left_out = group_runs(runs)
    tasks = tuple(compare_group(group, selectors, budgets, reward_models, resamples) for group in groups)
    return Comparison(tasks, tuple(left_out), resamples, LEVEL, "as asked" if budgets else RULE)


def compare_group(
    group: Group, selectors: Sequence[Selector], budgets: Sequence[Budget], reward_models: Sequence[str], resamples: int
) -> TaskComparison:
    """Compare the arms of one task."""
    banks = [load_arm(arm, group.problem_ids) for arm in group.arms]
    check_reward_models(banks, reward_models)
    notes = list(group.notes)
    found: list[list[SelectorComparison]] = [[] for _ in banks[1:]]
    front: list[FrontPlace] = []
    bins = difficulty_bins(np.mean([right_or_wrong(bank).mean(axis=1) for bank in banks], axis=0))
    for axis, amounts in amounts_of(banks, budgets).items():
        frame = frame_of(banks, axis, amounts)
        names, missing = shared_names(banks, selectors, axis, reward_models)
        notes += missing
        entries: list[Entry] = []
        for name in names:
            sides = sides_of(banks, name, selectors, frame, reward_models, resamples)
            for place, side in enumerate(sides[1:]):
                found[place].append(compare_sides(name, frame, sides[0], side, bins))
            entries += entries_of(banks, name, frame, sides)
        front += front_of(frame.axis, entries)
        notes += idle_notes(banks, frame)
    unfair = unfairness(group.arms)
    pairs = [pair_of(banks[0], bank, results) for bank, results in zip(banks[1:], found, strict=True)]
    return TaskComparison(
        group.arms[0].runs[0].spec["task"], group.arms[0].runs[0].spec["protocol"], len(group.problem_ids),
        tuple(facts_of_arm(bank) for bank in banks), tuple(unfair), tuple(dict.fromkeys(notes)),
        finished(pairs, len(group.problem_ids)), tuple(front),
    )  # fmt: skip


def amounts_of(banks: Sequence[ArmBank], budgets: Sequence[Budget]) -> dict[Axis, list[float]]:
    """The axes to compare along, with the budgets asked for on each.

    Without budgets it is the first of seconds, FLOPs and tokens that every arm recorded, else k. Raises UserError on
    an axis that was not recorded, or a budget past what a run was given.
    """
    if not budgets:
        axes: tuple[Axis, ...] = ("seconds", "flops", "tokens", "k")
        return {next(axis for axis in axes if all(is_recorded(bank, axis) for bank in banks)): []}
    amounts: dict[Axis, list[float]] = {}
    for budget in budgets:
        for bank in banks:
            check_budget(bank, budget)
        amounts.setdefault(budget.unit, []).append(budget.amount)
    return amounts


def check_budget(bank: ArmBank, budget: Budget) -> None:
    """Refuse a budget that an arm cannot be looked at under. Raises UserError."""
    if not is_recorded(bank, budget.unit):
        raise UserError(
            f"'{bank.arm.runs[0].name}' did not record {budget.unit}, so it has no accuracy at the budget {budget}; "
            "leave out --budget to compare at equal numbers of samples"
        )
    for run in bank.arm.runs:
        if run.budget and run.budget.unit == budget.unit and budget.amount > run.budget.amount:
            raise UserError(
                f"the budget {budget} goes past the {run.budget} that '{run.name}' was given; "
                "ask for at most that, or bench again with more"
            )


def frame_of(banks: Sequence[ArmBank], axis: Axis, amounts: Sequence[float]) -> Frame:
    """The grid of an axis: its range and the budgets, those of `RULE` when none is asked for."""
    ranges = [range_of(bank, axis) for bank in banks]
    start, end = min(low for low, _ in ranges), min(high for _, high in ranges)
    shown = list(amounts) or [end / 2**step for step in range(HALVINGS + 1) if end / 2**step >= start]
    spread = np.geomspace(start, end, GRID) if start < end else np.array([end])
    if axis == "k":
        spread, shown = np.unique(np.round(spread)), [np.floor(k) for k in shown]
    spread[-1] = end
    grid = np.unique([*spread, *shown])
    inside = np.flatnonzero((grid >= min(start, end)) & (grid <= end))
    return Frame(axis, grid, inside, np.flatnonzero(np.isin(grid, shown)))


def shared_names(
    banks: Sequence[ArmBank], selectors: Sequence[Selector], axis: Axis, reward_models: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The selectors that every arm has, and a note on those that only some have.

    Raises UserError when none is left.
    """
    seen = [views_by_name(bank, selectors, axis, reward_models) for bank in banks]
    union = list(dict.fromkeys(name for views in seen for name in views))
    shared = [name for name in union if all(name in views for views in seen)]
    if not shared:
        raise UserError(
            f"no selector among {choices([selector.name for selector in selectors])} can be evaluated on every run; "
            "add scores with `ttc score RUN --reward-model R`"
        )
    return shared, [f"{name} is not compared: not every run has its scores" for name in union if name not in shared]


def sides_of(
    banks: Sequence[ArmBank], name: str, selectors: Sequence[Selector], frame: Frame,
    reward_models: Sequence[str], resamples: int,
) -> list[Side]:  # fmt: skip
    """Every arm's values, replicates and usage under one selector; all arms are drawn together."""
    views = [views_by_name(bank, selectors, frame.axis, reward_models)[name] for bank in banks]
    values = [values_of_views(own, frame.axis, frame.grid) for own in views]
    replicates = replicate_means(values, resamples)
    shown = frame.grid[frame.shown]
    return [
        Side(seen[0].selector, own, drawn, usage_at(bank, frame.axis, shown))
        for bank, own, drawn, seen in zip(banks, values, replicates, views, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Entry:
    """A configuration that may be on the front, with its bootstrap replicates (resamples,)."""

    arm: str
    selector: str
    x: float
    accuracy: float
    replicates: np.ndarray


def entries_of(banks: Sequence[ArmBank], name: str, frame: Frame, sides: Sequence[Side]) -> list[Entry]:
    """Every arm at the budgets shown; none for a bound that needs the truth, which no one could use."""
    if sides[0].selector.select is None:
        return []
    return [
        Entry(
            bank.arm.name, name, float(frame.grid[place]), float(side.values[:, :, place].mean()),
            side.replicates[:, place].copy(),
        )
        for bank, side in zip(banks, sides, strict=True)
        for place in frame.shown
    ]  # fmt: skip


def front_of(axis: Axis, entries: Sequence[Entry]) -> list[FrontPlace]:
    """Each configuration with whether it is on the front, and in how many replicates."""
    if not entries:
        return []
    costs = np.array([entry.x for entry in entries])
    front = on_front(costs, np.array([[entry.accuracy for entry in entries]]))[0]
    frequency = front_frequency(costs, np.stack([entry.replicates for entry in entries], axis=1))
    return [
        FrontPlace(entry.arm, entry.selector, axis, entry.x, entry.accuracy, bool(on), float(often))
        for entry, on, often in zip(entries, front, frequency, strict=True)
    ]


def facts_of_arm(bank: ArmBank) -> ArmFacts:
    """What a reader must know of an arm."""
    runs = bank.arm.runs
    reasons = [f"{run.name}: {why}" for run in runs for why in run.manifest["validity"]["reasons"]]
    invalid = any(run.manifest["validity"]["verdict"] != "VALID" for run in runs)
    within = [run.manifest.get("compliance", {}).get("within_budget") for run in runs]
    known = [share for share in within if share is not None]
    return ArmFacts(
        bank.arm.name, runs[0].spec["model"], tuple(run.name for run in runs), tuple(seed_of(run) for run in runs),
        samples_of(bank), "INVALID" if invalid else "VALID", tuple(reasons), float(np.mean(known)) if known else None,
        law_of(bank),
    )  # fmt: skip


def law_of(bank: ArmBank) -> CoverageLaw | None:
    """The coverage law of one arm, fitted where k is at most a quarter of its samples."""
    right = right_or_wrong(bank)
    n = right.shape[1]
    ks = np.unique(np.geomspace(1, n, LAW_POINTS).round().astype(int))
    coverage = 1 - stats.hypergeom.pmf(0, n, right.sum(axis=1)[:, None], ks).mean(axis=0)
    return fit_coverage_law(ks, coverage, n / 4)


def idle_notes(banks: Sequence[ArmBank], frame: Frame) -> list[str]:
    """A note on each arm that had long finished all its samples at the largest budget: more might have raised it."""
    found = []
    largest = float(frame.grid[frame.shown[-1]])
    for bank in banks:
        done = typical_end(bank, frame.axis)
        if largest > IDLE_PART * done:
            found.append(
                f"{bank.arm.name} had finished all its {samples_of(bank)} samples on half of the problems by "
                f"{spelled(frame.axis, done)}: with more time it idles, and more samples might raise it"
            )
    return found


def pair_of(a: ArmBank, b: ArmBank, results: Sequence[SelectorComparison]) -> Pair:
    """A pair with the posteriors of one sample of each arm."""
    weights = np.array([0.0, 1.0])
    one, other = bayes_at_n(right_or_wrong(a), weights), bayes_at_n(right_or_wrong(b), weights)
    sure = decide(one, other)
    sample = OneSample(one.mean, other.mean, one.deviation, other.deviation, sure.z, sure.probability)
    return Pair(a.arm.name, b.arm.name, sample, tuple(results))


def finished(pairs: Sequence[Pair], problems: int) -> tuple[Pair, ...]:
    """The pairs with p values adjusted for all tests of the task, and each selector's conclusion in words."""
    cells = [cell for pair in pairs for result in pair.selectors for cell in result.budgets]
    adjusted = iter(holm(np.array([cell.p_value for cell in cells])))
    done = []
    for pair in pairs:
        results = []
        for result in pair.selectors:
            budgets = tuple(replace(cell, p_holm=float(next(adjusted))) for cell in result.budgets)
            told = replace(result, budgets=budgets)
            results.append(replace(told, sentence=conclude(pair.a, pair.b, told, problems)))
        done.append(replace(pair, selectors=tuple(results)))
    return tuple(done)
