"""Which runs can be compared, and which are one arm: pairing by problem, pooling over seeds, refusing what differs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.summarise import label_of, without_curves
from harness.errors import UserError
from harness.running.validity import differing_arms
from harness.storage.manifest import digest
from harness.storage.runs import Run

Problems = dict[str, dict[str, Any]]
"""The rows of problems.parquet by id."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Runs of one spec that differ only in the seed."""

    name: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Arms that answered the same problems of one task: `problem_ids` are those that all have, in task order."""

    arms: tuple[Arm, ...]
    problem_ids: tuple[str, ...]
    notes: tuple[str, ...]


def seed_of(run: Run) -> int | None:
    """The sampling seed, None for a run that records none."""
    return (run.spec.get("sampling") or {}).get("seed")


def without_seed(run: Run) -> str:
    """A digest of everything that was asked for except the seed."""
    sampling = {name: value for name, value in (run.spec.get("sampling") or {}).items() if name != "seed"}
    return digest(run.spec | {"sampling": sampling})


def group_runs(runs: Sequence[Run]) -> tuple[list[Group], list[str]]:
    """Sort runs into groups that can be compared; also a sentence for each run that is in none.

    A run joins the first group whose first run it fits. Raises UserError when no group has two arms.
    """
    check_distinct(runs)
    problems = {run.path: {row["problem_id"]: row for row in run.problems()} for run in runs}
    families: list[list[Run]] = []
    obstacles: dict[str, str] = {}
    for run in runs:
        for family in families:
            obstacle = misfit(family[0], run, problems[family[0].path], problems[run.path])
            if obstacle is None:
                family.append(run)
                break
            obstacles.setdefault(run.name, f"'{run.name}' cannot be compared with '{family[0].name}': {obstacle}")
        else:
            families.append([run])
    pooled = [pool(family) for family in families]
    groups = [group_of(arms, problems) for arms in pooled if len(arms) > 1]
    alone = [arms[0] for arms in pooled if len(arms) == 1]
    left_out = [lonely(arm, obstacles) for arm in alone]
    if not groups:
        raise UserError(
            f"nothing to compare: {'; '.join(left_out)}; give two runs that answered the same problems of one task"
        )
    return groups, left_out


def check_distinct(runs: Sequence[Run]) -> None:
    """Refuse one run given twice. Raises UserError."""
    seen = set()
    for run in runs:
        if run.path.resolve() in seen:
            raise UserError(f"the run '{run.path}' is given twice; name each run once")
        seen.add(run.path.resolve())


def lonely(arm: Arm, obstacles: dict[str, str]) -> str:
    """Why an arm has none beside it."""
    if len(arm.runs) > 1:
        return f"{', '.join(run.name for run in arm.runs)} are one arm, {arm.name}: they differ only in the seed"
    run = arm.runs[0]
    return obstacles.get(run.name, f"'{run.name}' is the only run on its problems of {run.spec['task']}")


def misfit(one: Run, other: Run, ones: Problems, others: Problems) -> str | None:
    """Why two runs cannot be paired problem by problem, None when they can."""
    for name in ("task", "protocol"):
        if one.spec[name] != other.spec[name]:
            return f"{name} {other.spec[name]} against {one.spec[name]}"
    shared = [name for name in ones if name in others]
    if not shared:
        return "they have no problem in common"
    if one.spec["protocol"] == "throughput" and len(shared) < max(len(ones), len(others)):
        return (
            f"under the throughput protocol a budget is for all problems, and they have {len(others)} and {len(ones)}"
        )
    differing = next((name for name in shared if ones[name]["gold"] != others[name]["gold"]), None)
    if differing is not None:
        return f"the gold answer of problem '{differing}' differs"
    if asked_alike(one, other):
        return None
    differing = next((name for name in shared if prompts_differ(ones[name], others[name])), None)
    return None if differing is None else f"the prompt of problem '{differing}' differs"


def asked_alike(one: Run, other: Run) -> bool:
    """True when both were benched on the same task in the same way: their prompts differ only by chat template."""
    same = all(one.spec.get(name) == other.spec.get(name) for name in ("task_plugin", "task_options", "data"))
    return same and "recorded" not in (one.spec.get("engine"), other.spec.get("engine"))


def prompts_differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two recorded prompts differ; a prompt that was not recorded differs from none."""
    return bool(one["prompt"] and other["prompt"] and one["prompt"] != other["prompt"])


def pool(runs: Sequence[Run]) -> list[Arm]:
    """Runs that differ only in the seed become one arm; where two of them share a seed each stays an arm of its own."""
    families: dict[str, list[Run]] = {}
    for run in runs:
        families.setdefault(without_seed(run), []).append(run)
    pooled: list[tuple[Run, ...]] = []
    for family in families.values():
        seeds = {seed_of(run) for run in family}
        pooled += [tuple(family)] if len(seeds) == len(family) else [(run,) for run in family]
    models = [label_of(members[0].spec) for members in pooled]
    return [
        Arm(model if models.count(model) == 1 else name_of(members), members)
        for model, members in zip(models, pooled, strict=True)
    ]


def name_of(members: Sequence[Run]) -> str:
    """What to call an arm whose model other arms have too."""
    return members[0].name if len(members) == 1 else f"{members[0].name} ({len(members)} seeds)"


def group_of(arms: Sequence[Arm], problems: dict[Any, Problems]) -> Group:
    """Arms with the problems that all their runs have, and notes on what they do not share."""
    runs = [run for arm in arms for run in arm.runs]
    first = problems[runs[0].path]
    shared = tuple(name for name in first if all(name in problems[run.path] for run in runs))
    most = max(len(problems[run.path]) for run in runs)
    notes = []
    if len(shared) < most:
        notes.append(f"{len(shared)} problems are in every run and are compared; up to {most - len(shared)} are not")
    if any(prompts_differ(first[name], problems[run.path][name]) for run in runs for name in shared):
        notes.append("the prompts differ by each model's chat template")
    return Group(tuple(arms), shared, tuple(notes))


def unfairness(arms: Sequence[Arm]) -> list[str]:
    """Why the arms' times may not be compared: runs that are INVALID, and facts that differ but must be equal."""
    runs = [run for arm in arms for run in arm.runs]
    invalid = [
        f"'{run.name}' is INVALID: {'; '.join(run.manifest['validity']['reasons'])}"
        for run in runs
        if run.manifest["validity"]["verdict"] != "VALID"
    ]
    return invalid + differing_arms([without_curves(run) for run in runs])
