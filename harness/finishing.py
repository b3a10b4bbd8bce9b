"""The end of a sitting: what is left to do, what has no verdict yet, and the verdict on the run itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.budgets import Clock
from harness.grading import known_verdicts, verdict_rows
from harness.nouns import Problem, Task
from harness.overshoot import compliance
from harness.runs import Run
from harness.scopes import Scope, Tally, plan
from harness.validity import RunFacts, faults_of, overhead_of, warnings_of

if TYPE_CHECKING:
    from harness.bench import Plan

GRADED_AT_ONCE = 65536
"""Completions that are read from disk at once to be graded."""
GRADED_COLUMNS = ("problem_id", "sample_index", "text", "finish_reason")
TIMING_COLUMNS = ("overshoot", "overshoot_s", "overshoot_steps", "elapsed_s", "outside_s")


def left_to_do(run: Run | None, problems: Sequence[Problem], asked: "Plan") -> list[Scope]:
    """The scopes that still have requests to make."""
    tally, ended = stored_of(run, problems, asked)
    return plan(problems, asked.samples, asked.sampling, asked.protocol, tally, ended)


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


def grade_ungraded(run: Run, task: Task, problems: Sequence[Problem], clock: Clock) -> None:
    """Grade every problem that has completions without a verdict, all its completions together."""
    ids = [problem.id for problem in problems]
    samples = run.spec["samples"]
    done = run.tally(ids, samples).done
    todo = (done & ~run.graded(ids, samples)).any(axis=1).nonzero()[0].tolist()
    at_once = max(1, GRADED_AT_ONCE // samples)
    for start in range(0, len(todo), at_once):
        some = [problems[number] for number in todo[start : start + at_once]]
        chosen = [problem.id for problem in some]
        completions, verdicts = run.rows_of("completions", chosen, GRADED_COLUMNS), run.rows_of("verdicts", chosen)
        fresh: list[dict[str, Any]] = []
        for problem, rows, stored in zip(some, completions, verdicts, strict=True):
            fresh += verdict_rows(task, problem.gold, rows, clock, known_verdicts(stored).get(problem.id))
        run.add_verdicts(fresh)


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
    )
    faults = faults_of(facts)
    run.manifest["compliance"] = compliance(facts.timing, facts.unit)
    run.manifest["overhead"] = overhead_of(facts)
    run.manifest["validity"] = {
        "verdict": "INVALID" if faults else "VALID",
        "reasons": [fault.reason for fault in faults],
        "mend": [fault.mend for fault in faults],
        "warnings": warnings_of(facts),
    }
    run.save()
