"""The end of a sitting: what is left to do, what has no verdict yet, and the verdict on the run itself."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.budgets import Clock
from harness.errors import UserError
from harness.grading import Job, known_verdicts, verdict_rows
from harness.nouns import Problem, Task
from harness.running.overshoot import ENDED, compliance
from harness.running.scopes import Scope, Tally, plan
from harness.running.scoring import FINISHED
from harness.running.validity import RunFacts, faults_of, overhead_of, warnings_of
from harness.storage.records import VERDICTS, each_part
from harness.storage.runs import Run

if TYPE_CHECKING:
    from harness.running.bench import Plan

GRADED_AT_ONCE = 65536
"""Completions that are read from disk at once to be graded."""
GRADED_COLUMNS = ("problem_id", "sample_index", "text", "finish_reason")
GradeAll = Callable[[Iterable[Job]], Iterable[Sequence[dict[str, Any]]]]
"""Gives the verdict rows of every job, in any order."""
TIMING_COLUMNS = ("overshoot", "overshoot_s", "overshoot_steps", "elapsed_s", "outside_s")


def left_to_do(run: Run | None, problems: Sequence[Problem], asked: "Plan") -> list[Scope]:
    """The scopes that still have requests to make, or completions that nobody came to score.

    Raises UserError when the run has verdicts or scores of completions that it has not.
    """
    tally, ended = stored_of(run, problems, asked)
    owing: set[str | None] = set()
    if run is not None and tally is not None:
        check_companions(run, tally)
        owing = owing_scopes(run, tally.problem_ids, asked)
    return plan(problems, asked.samples, asked.sampling, asked.protocol, tally, ended, owing)


def check_companions(run: Run, tally: Tally) -> None:
    """Refuse to sample again what verdicts or scores are of already: they would be taken for those of other texts."""
    for kind in ("verdicts", "scores"):
        strays = run.marked(kind, tally.problem_ids, tally.done.shape[1]) & ~tally.done
        if strays.any():
            raise UserError(
                f"'{run.path}' has {kind} of {int(strays.sum())} completions that are not there any more; "
                f"`ttc doctor {run.path} --repair DIR` makes a new run of what is whole, to go on with under --out DIR"
            )


def owing_scopes(run: Run, problem_ids: Sequence[str], asked: "Plan") -> set[str | None]:
    """The scopes that a sitting was killed in while it scored: some reward model has not seen a completion of theirs.

    What a scope that ended left unscored, for want of time or because the reward model failed, stays so.
    """
    import numpy as np
    import pyarrow.compute as pc

    if not asked.reward_models:
        return set()
    timing = run.timing_table()
    ended = set(timing.filter(pc.equal(timing["phase"], ENDED))["problem_id"].to_pylist())
    if None in ended:
        return set()
    finished = run.marked("completions", problem_ids, asked.samples, finish_reason=FINISHED)
    seen = [run.marked("scores", problem_ids, asked.samples, reward_model=[name]) for name in asked.reward_models]
    owes = (finished & ~np.logical_and.reduce(seen)).any(axis=1)
    if asked.protocol == "throughput":
        return {None} if owes.any() else set()
    owing: set[str | None] = {name for name, owes_some in zip(problem_ids, owes.tolist(), strict=True) if owes_some}
    return owing - ended


def stored_of(run: Run | None, problems: Sequence[Problem], asked: "Plan") -> tuple[Tally | None, set[str | None]]:
    """What a run holds already, and the scopes whose budget is used up."""
    if run is None:
        return None, set()
    ended: set[str | None] = set()
    if asked.budget:
        import pyarrow.compute as pc

        timing = run.timing_table()
        ended.update(timing.filter(pc.greater_equal(timing["spent"], asked.budget.amount))["problem_id"].to_pylist())
    return run.tally([problem.id for problem in problems], asked.samples), ended


def grade_ungraded(
    run: Run, task: Task, problems: Sequence[Problem], clock: Clock, grade_all: GradeAll | None = None
) -> None:
    """Grade every problem that has completions without a verdict, all its completions together.

    `grade_all` may spread the work; without it one problem after the other is graded here.
    """

    def here(jobs: Iterable[Job]) -> Iterable[Sequence[dict[str, Any]]]:
        return (verdict_rows(task, job.gold, job.completions, clock, job.known) for job in jobs)

    ids = [problem.id for problem in problems]
    samples = run.spec["samples"]
    done = run.tally(ids, samples).done
    todo = (done & ~run.graded(ids, samples)).any(axis=1).nonzero()[0].tolist()
    at_once = max(1, GRADED_AT_ONCE // samples)
    for start in range(0, len(todo), at_once):
        some = [problems[number] for number in todo[start : start + at_once]]
        chosen = [problem.id for problem in some]
        completions, verdicts = run.rows_of("completions", chosen, GRADED_COLUMNS), run.rows_of("verdicts", chosen)
        jobs = (
            Job(problem.gold, rows, known_verdicts(stored).get(problem.id))
            for problem, rows, stored in zip(some, completions, verdicts, strict=True)
        )
        run.add_verdicts([row for rows in (grade_all or here)(jobs) for row in rows])


def task_faults(run: Run) -> int:
    """How many of the stored verdicts are an exception of the task (`harness.grading.verdict_of`)."""
    import pyarrow.compute as pc

    mark = f"task {run.spec['task']} raised "
    parts = each_part(run.path / "verdicts", VERDICTS, ["reason"])
    return sum(pc.sum(pc.starts_with(part["reason"], mark)).as_py() or 0 for part in parts)


def finish(run: Run, problems: Sequence[Problem], asked: "Plan") -> None:
    """Write the verdict on the run itself: VALID, or INVALID with the reasons and the mends."""
    run.fold_timing()
    tally, ended = stored_of(run, problems, asked)
    left = plan(problems, asked.samples, asked.sampling, asked.protocol, tally, ended)
    facts = RunFacts(
        timing=run.timing_table().select(TIMING_COLUMNS).to_pydict(),
        unit=asked.budget.unit if asked.budget else "seconds",
        scopes=len(problems) if asked.protocol == "latency" else 1,
        finish_reasons=tally.reasons if tally else {},
        missing=sum(len(scope.requests) for scope in left),
        segments=run.manifest["segments"],
        engine=run.manifest["engine"],
        task_faults=task_faults(run),
    )
    faults = faults_of(facts)
    run.manifest["missing"] = facts.missing
    run.manifest["compliance"] = compliance(facts.timing, facts.unit)
    run.manifest["overhead"] = overhead_of(facts)
    run.manifest["validity"] = {
        "verdict": "INVALID" if faults else "VALID",
        "reasons": [fault.reason for fault in faults],
        "mend": [fault.mend for fault in faults],
        "warnings": warnings_of(facts),
    }
    run.save()
