"""An arm's samples on every axis: where its range begins and ends, its selectors' values, what had finished by when."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.bank import Item, load_bank
from harness.analysis.curves import View, values_along, values_at_k, views_of
from harness.analysis.summary import Axis
from harness.comparisons.arms import Arm
from harness.errors import UserError, choices
from harness.nouns import Selector


@dataclass(frozen=True, slots=True)
class ArmBank:
    """An arm with its items: one sequence per seed, each in the group's order of problems."""

    arm: Arm
    banks: tuple[Sequence[Item], ...]


def load_arm(arm: Arm, problem_ids: Sequence[str]) -> ArmBank:
    """Read an arm's runs. Raises UserError when one has no completions."""
    banks = []
    for run in arm.runs:
        items = {item.problem_id: item for item in load_bank(run)}
        banks.append([items[name] for name in problem_ids])
    return ArmBank(arm, tuple(banks))


def places_of(items: Sequence[Item], axis: Axis) -> list[np.ndarray]:
    """Where each problem's samples finished: infinite for those that did not, NaN for what was not recorded."""
    return [np.asarray(item.positions[axis], float) for item in items]


def samples_of(bank: ArmBank) -> int:
    """How many samples of each problem there are."""
    return min(len(item.graded) for items in bank.banks for item in items)


def is_recorded(bank: ArmBank, axis: Axis) -> bool:
    """Whether the arm knows where its samples lie on this axis."""
    if axis == "k":
        return True
    places = [np.concatenate(places_of(items, axis)) for items in bank.banks]
    return all(not np.isnan(own).any() and bool((own[np.isfinite(own)] > 0).any()) for own in places)


def range_of(bank: ArmBank, axis: Axis) -> tuple[float, float]:
    """From the arm's first finish to its end: its budget where it had one in this unit, else its last finish.

    With several seeds the end is the earliest of theirs. Along k it is from 1 to the number of samples.
    """
    if axis == "k":
        return 1.0, float(samples_of(bank))
    starts, ends = [], []
    for run, items in zip(bank.arm.runs, bank.banks, strict=True):
        places, budget = np.concatenate(places_of(items, axis)), run.budget
        spent = places[np.isfinite(places) & (places > 0)]
        starts.append(spent.min())
        ends.append(budget.amount if budget and budget.unit == axis else spent.max())
    return float(min(starts)), float(min(ends))


def views_by_name(
    bank: ArmBank, selectors: Sequence[Selector], axis: Axis, reward_models: Sequence[str]
) -> dict[str, list[View]]:
    """Each selector's view of every seed, by the selector's shown name; reward models' own cost is charged.

    `reward_models`, unless empty, names those that are wanted. A view that some seed lacks is left out.
    """
    found: dict[str, list[View]] = {}
    for items in bank.banks:
        for view in views_of(items, selectors, axis):
            wanted = view.reward_model is None or not reward_models or view.reward_model in reward_models
            if wanted and view.charged is not False:
                found.setdefault(view.selector.name, []).append(view)
    return {name: views for name, views in found.items() if len(views) == len(bank.banks)}


def check_reward_models(banks: Sequence[ArmBank], reward_models: Sequence[str]) -> None:
    """Refuse a reward model whose scores some run lacks. Raises UserError naming those that every run has."""
    scored = [set(items[0].scores) for bank in banks for items in bank.banks]
    shared = sorted(set.intersection(*scored))
    for name in reward_models:
        if name not in shared:
            raise UserError(
                f"not every run has scores by '{name}'; all have those of {choices(shared)}; "
                f"add them with `ttc score RUN --reward-model {name}`"
            )


def values_of_views(views: Sequence[View], axis: Axis, grid: np.ndarray) -> np.ndarray:
    """(seeds, problems, points) of one selector along the grid."""
    if axis == "k":
        ks = [int(k) for k in grid]
        return np.stack([values_at_k(view.selector, view.items, ks) for view in views])
    return np.stack([values_along(view.selector, view.items, axis, grid.tolist()) for view in views])


def typical_end(bank: ArmBank, axis: Axis) -> float:
    """When all samples of the median problem had finished; infinite when most problems were cut."""
    if axis == "k":
        return float(samples_of(bank))
    return float(np.median([own.max() for items in bank.banks for own in places_of(items, axis)]))


def right_or_wrong(bank: ArmBank) -> np.ndarray:
    """Correctness of every sample: (problems, seeds x samples) of 0 and 1."""
    samples = samples_of(bank)
    per_seed = [np.array([np.asarray(item.graded.correct)[:samples] for item in items]) for items in bank.banks]
    return np.concatenate(per_seed, axis=1).astype(int)


@dataclass(frozen=True, slots=True)
class Usage:
    """At each budget shown, (budgets,): mean samples finished, share of problems in which all had, and spending.

    `spent` (budgets,) is the mean over problems of what had been spent, at most the budget.
    """

    finished: np.ndarray
    idle: np.ndarray
    spent: np.ndarray


def usage_at(bank: ArmBank, axis: Axis, budgets: np.ndarray) -> Usage:
    """What the arm made of each budget; under the throughput protocol its seconds are shared by all problems."""
    if axis == "k":
        done = (budgets >= samples_of(bank)).astype(float)
        return Usage(budgets.astype(float), done, budgets.astype(float))
    seeds = [usage_of(items, axis, budgets) for items in bank.banks]
    finished, idle, spent = (np.mean([getattr(own, name) for own in seeds], axis=0) for name in Usage.__slots__)
    return Usage(finished, idle, spent)


def usage_of(items: Sequence[Item], axis: Axis, budgets: np.ndarray) -> Usage:
    """The same of one seed."""
    places = places_of(items, axis)
    last = np.array([own.max() for own in places])
    finished = np.array([np.mean([(own <= x).sum() for own in places]) for x in budgets])
    idle = (last[:, None] <= budgets).mean(axis=0)
    if items[0].shared_clock:
        return Usage(finished, idle, np.minimum(last.max(), budgets) / len(items))
    return Usage(finished, idle, np.minimum(last[:, None], budgets).mean(axis=0))
