"""`ttc bench`: for each model a run that is made or gone on with, sampled under its budget, graded and summed up."""

import gc
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import plugins
from harness.analysis.summary import RunSummary
from harness.budgets import Budget, Clock, monotonic
from harness.errors import UserError
from harness.faults import Fault
from harness.grading import verdict_rows
from harness.nouns import Problem, Sampling, Task
from harness.progress import ShowProgress
from harness.running.finishing import finish, grade_ungraded, left_to_do
from harness.running.rescoring import judging_of, load_judges, note_judges, warm_up_judges
from harness.running.runner import render, run_scopes, warm_up
from harness.running.scopes import Scope
from harness.running.searching import searching
from harness.running.sitting import Sitting
from harness.running.validity import common_facts, differing_arms
from harness.running.watchdog import grace_wished, watchdog_of
from harness.storage.locking import writing
from harness.storage.manifest import digest
from harness.storage.runs import Run, begin_run, make_run

if TYPE_CHECKING:
    from harness.workers.team import Crew

OWN_ENGINE = "plug-in"
"""What stands for the engine of a model plug-in, which brings its own."""
LATER_WISHES = ("reward_", "strategy")
"""What the names of the plan's younger fields begin with."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one `ttc bench` asks for, the same for every model."""

    task: str
    task_options: tuple[str, ...]
    data: str | None
    limit: int | None
    protocol: str
    budget: Budget | None
    samples: int
    sampling: Sampling
    reward_models: tuple[str, ...] = ()
    reward_options: tuple[str, ...] = ()
    strategy: str = ""
    strategy_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Arm:
    """One model with the engine that runs it and the folder of its run."""

    model: str
    engine: str
    options: tuple[str, ...]
    path: Path


def slug(text: str) -> str:
    """A name that is safe as a folder: letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "run"


def short(reference: str) -> str:
    """A model or task as part of a folder's name: of a plug-in reference only the function."""
    return slug(reference.rpartition(":")[2] if plugins.is_reference(reference) else reference)


def arms_of(
    models: Sequence[str], engine: str | None, options: Sequence[str], out: Path | None, asked: Plan
) -> list[Arm]:
    """Choose each model's engine and run folder.

    With one model `out` itself is the run; with several each has a folder inside it. Without `out` the runs lie under
    `results/`, named after task, model and a digest of everything asked, so that the same command finds them again.
    """
    twice = [name for name, count in Counter(map(short, models)).items() if count > 1]
    if twice:
        raise UserError(f"two models share the name '{twice[0]}'; bench them one by one, each with its own --out")
    arms = []
    for model in models:
        own = not plugins.names_checkpoint(model)
        chosen = OWN_ENGINE if own else engine or plugins.default_engine(model)
        key = digest([model, chosen, list(options), wishes_of(asked)])[:6]
        name = "-".join(map(short, filter(None, (asked.task, model, asked.strategy))))
        path = Path("results") / f"{name}-{key}"
        if out is not None:
            path = out if len(models) == 1 else out / short(model)
        arms.append(Arm(model, chosen, tuple(options), path))
    return arms


def wishes_of(asked: Plan) -> dict[str, Any]:
    """The plan as JSON; without reward models or a strategy what it was before these, so that old runs are found."""
    return {name: value for name, value in asdict(asked).items() if value or not name.startswith(LATER_WISHES)}


def spec_of(arm: Arm, asked: Plan, task: Task) -> dict[str, Any]:
    """What identifies a run: two runs with equal specs draw the same samples."""
    return {
        "model": arm.model,
        "engine": arm.engine,
        "model_options": list(arm.options),
        "task": task.name,
        "task_plugin": asked.task,
        "task_options": list(asked.task_options),
        "data": asked.data,
        "limit": asked.limit,
        "protocol": asked.protocol,
        "budget": str(asked.budget) if asked.budget else None,
        "samples": asked.samples,
        "sampling": asdict(asked.sampling) | {"stop": list(asked.sampling.stop)},
    } | {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in wishes_of(asked).items()
        if name.startswith(LATER_WISHES)
    }


def problems_of(task: Task, limit: int | None) -> list[Problem]:
    """The task's first `limit` problems. Raises UserError when there is none, or two share an id."""
    problems = list(task.problems)[:limit]
    if not problems:
        raise UserError(f"the task {task.name} has no problems; loosen its filters")
    twice = [name for name, count in Counter(problem.id for problem in problems).items() if count > 1]
    if twice:
        raise UserError(f"the task {task.name} has two problems with the id '{twice[0]}'")
    return problems


def bench_arm(
    arm: Arm, asked: Plan, task: Task, show: ShowProgress, clock: Clock = monotonic, crew: "Crew | None" = None
) -> Run:
    """Make or go on with one model's run until it is complete, and grade it; with a crew on the workers of a cluster.

    Raises UserError for what the user can mend; on KeyboardInterrupt or an engine's failure what is whole stays stored.
    """
    problems = problems_of(task, asked.limit)
    spec = spec_of(arm, asked, task)
    with writing(arm.path):
        run = begin_run(arm.path, spec)
        scopes = left_to_do(run, problems, asked)
        if scopes or run is None:
            sampled = sampler(crew)
            run = sampled(arm, asked, task, problems, run, spec, scopes, show, clock)
        grade_ungraded(run, task, problems, clock)
        finish(run, problems, asked)
        return run


def sampler(crew: "Crew | None") -> Callable[..., Run]:
    """What samples: this process, or workers."""
    if crew is None:
        return sample
    from harness.workers.crew import sample_with

    return partial(sample_with, crew)


def sample(
    arm: Arm, asked: Plan, task: Task, problems: Sequence[Problem], run: Run | None, spec: Mapping[str, Any],
    scopes: Sequence[Scope], show: ShowProgress, clock: Clock,
) -> Run:  # fmt: skip
    """Load and warm the model, make the run if it is new, and run the scopes as one segment."""
    # Before the engine, which goes by the memory that is free then.
    judges = load_judges(asked.reward_models, asked.reward_options, clock)
    grace = grace_wished()
    began = clock()
    model = searching(plugins.load_model(arm.model, arm.engine, arm.options), asked, judges, task)
    close = getattr(model, "close", None)
    with closing(model) if close else nullcontext():  # type: ignore[type-var]
        load_s = clock() - began
        rows = [
            {"problem_id": one.id, "prompt": render(model, one), "gold": one.gold, "meta": one.meta} for one in problems
        ]
        run = check_prompts(run, rows) if run else make_run(arm.path, spec, rows)
        judging, scopes = judging_of(run, judges, problems, scopes)
        warmup_s = warm_up(model, scopes, asked.samples if asked.protocol == "latency" else 1, clock)
        warm_up_judges(judges, problems[0].prompt)
        sitting = Sitting(run, model, load_s, warmup_s, clock)
        verdicts = Verdicts(task, {problem.id: problem.gold for problem in problems}, clock)
        watchdog = watchdog_of(sitting.hung, grace)
        try:
            run_scopes(
                model, run, scopes, sitting.number, asked.budget, clock, verdicts.grade, show, sitting.surroundings,
                judging, watchdog,
            )  # fmt: skip
            sitting.status = "finished"
        except Fault as fault:
            sitting.segment["error"] = str(fault)
            raise
        except KeyboardInterrupt:
            sitting.status = "interrupted"
            raise
        finally:
            note_judges(run, judges, sitting=sitting.number)
            sitting.close(verdicts.grade_s)
            for judge in judges:
                judge.close()
    gc.collect()
    return run


class Verdicts:
    """Grades problems as their scopes end, outside the clock, and keeps count of the time."""

    def __init__(self, task: Task, golds: Mapping[str, str], clock: Clock) -> None:
        self.task, self.golds, self.clock = task, golds, clock
        self.grade_s = 0.0

    def grade(self, problem_id: str, completions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Grade the completions of one problem: the rows of their verdicts."""
        began = self.clock()
        rows = verdict_rows(self.task, self.golds[problem_id], completions, self.clock)
        self.grade_s += self.clock() - began
        return rows


def check_prompts(run: Run, rows: Sequence[Mapping[str, Any]]) -> Run:
    """Refuse to go on with a run whose problems are not the stored ones to the letter."""
    stored = run.problems()
    fresh = [dict(row) | {"meta": json.loads(json.dumps(dict(row["meta"]), default=str))} for row in rows]
    if stored != fresh:
        raise UserError(
            f"the problems of '{run.path}' are not those the task gives now (other data, prompt or chat template); "
            "choose another --out"
        )
    return run


def note_arms(runs: Sequence[Run], summaries: Sequence[RunSummary]) -> None:
    """Write into each manifest which runs were arms of one command, what was equal between them and what was not."""
    told = {
        "runs": [run.name for run in runs],
        "equal": common_facts(summaries),
        "unlike": differing_arms(summaries),
    }
    for run in runs:
        with writing(run.path):
            run.manifest["arms"] = told
            run.save()
