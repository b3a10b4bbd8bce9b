"""The measured loop: hand requests to a warm engine scope by scope, store what comes back, grade outside the clock.

Two protocols. `latency`: each problem is a scope of its own, its samples one batch. `throughput`: the run is one scope
and samples go out in waves, sample j of every problem before sample j + 1 of any.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, cast

from harness.budgets import Budget, Clock, Deadline
from harness.nouns import Completion, Model, Problem, Request, Sampling
from harness.overshoot import scope_timing
from harness.progress import ShowProgress
from harness.runs import Run

FLUSH_S = 2.0
"""Seconds of finished work that may wait in memory before it is stored."""

Grade = Callable[[str, Sequence[Mapping[str, Any]]], int]
"""Grades and stores the completions of one problem; returns how many are correct."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What one deadline covers: the requests still to make, and what earlier sittings used of the budget."""

    problem_id: str | None
    requests: tuple[Request, ...]
    used_s: float = 0.0
    used_flops: float = 0.0
    used_tokens: int = 0

    def start(self, budget: Budget | None, clock: Clock) -> Deadline:
        """Start the scope's clock where the earlier sittings left it."""
        deadline = Deadline(budget, clock, self.used_s)
        deadline.charge(flops=self.used_flops, tokens=self.used_tokens)
        return deadline


def plan(
    problems: Sequence[Problem], samples: int, sampling: Sampling, protocol: str,
    stored: Sequence[Mapping[str, Any]] = (), ended: Collection[str | None] = (),
) -> list[Scope]:  # fmt: skip
    """The scopes that are left to run, given the completions already stored and the scopes whose budget is used up.

    A scope in which a row was cut by the deadline has used its budget too. Any other's missing samples are asked for on
    a clock that starts where the stored ones ended, so that the outage is not charged and no budget is given twice.
    `ended` holds problem ids, or None for the scope of a whole run.
    """
    done = {(row["problem_id"], row["sample_index"]) for row in stored}

    def requests(problem: Problem, index: int) -> list[Request]:
        return [] if (problem.id, index) in done else [Request(problem.id, index, problem.prompt, sampling)]

    if protocol == "throughput":
        waves = [request for index in range(samples) for problem in problems for request in requests(problem, index)]
        scopes: list[tuple[str | None, list[Request], list[Mapping[str, Any]]]] = [(None, waves, list(stored))]
    else:
        rows_of: dict[str, list[Mapping[str, Any]]] = {problem.id: [] for problem in problems}
        for row in stored:
            rows_of[row["problem_id"]].append(row)
        scopes = [
            (problem.id, [one for index in range(samples) for one in requests(problem, index)], rows_of[problem.id])
            for problem in problems
        ]
    return [
        Scope(
            problem_id,
            tuple(wanted),
            max((row["finished_s"] for row in rows), default=0.0),
            sum(row["prefill_flops"] + row["decode_flops"] for row in rows),
            sum(row["completion_tokens"] for row in rows),
        )
        for problem_id, wanted, rows in scopes
        if wanted and problem_id not in ended and not any(row["finish_reason"] == "deadline" for row in rows)
    ]


def run_scopes(
    model: Model, run: Run, scopes: Sequence[Scope], segment: int, budget: Budget | None, clock: Clock, grade: Grade,
    show: ShowProgress,
) -> None:  # fmt: skip
    """Run every scope and store its completions and its timing.

    Raises whatever the engine raises, and KeyboardInterrupt, after storing the whole completions it has.
    """
    writer = Writer(run, clock)
    done, correct, graded = 0, 0, 0
    total = sum(len(scope.requests) for scope in scopes)
    with show(f"sampling {model.name}", total) as progress, closing(writer):
        for scope in scopes:
            rows: list[Completion] = []
            deadline = scope.start(budget, clock)
            try:
                for completion in stream(model, scope, deadline, segment):
                    rows.append(completion)
                    writer.add(completion)
                    progress.update(done + len(rows), note(deadline, correct, graded))
            finally:
                spent_s = deadline.elapsed_s - scope.used_s
                writer.time(scope_timing(scope.problem_id, rows, deadline, spent_s, segment))
            if scope.problem_id is not None:
                correct += grade(scope.problem_id, [as_row(row) for row in rows])
                graded += len(rows)
            done += len(scope.requests)
            progress.update(done, note(deadline, correct, graded))


def stream(model: Model, scope: Scope, deadline: Deadline, segment: int) -> Iterator[Completion]:
    """The scope's completions as they finish. Raises ValueError on one that was not asked for, or comes twice."""
    asked = {(request.problem_id, request.sample_index) for request in scope.requests}
    for completion in model.generate(scope.requests, deadline):
        key = (completion.problem_id, completion.sample_index)
        if key not in asked:
            raise ValueError(f"{model.name} returned a completion that was not asked for, or twice: {key}")
        asked.remove(key)
        yield replace(completion, segment=segment)


def as_row(completion: Completion) -> dict[str, Any]:
    """The columns of a completion that grading reads."""
    names = ("problem_id", "sample_index", "text", "finish_reason")
    return {name: getattr(completion, name) for name in names}


def note(deadline: Deadline, correct: int, graded: int) -> str:
    """What the progress display says beside the count."""
    parts = []
    if deadline.elapsed_s > 0 and deadline.tokens:
        parts.append(f"{deadline.tokens / max(deadline.elapsed_s, 1e-9):,.0f} tok/s")
    if deadline.budget is not None:
        unit = {"seconds": "s", "flops": " FLOP", "tokens": " tok"}[deadline.budget.unit]
        parts.append(f"{deadline.left:.3g}{unit} left")
    if graded:
        parts.append(f"{correct / graded:.0%} correct")
    return " · ".join(parts)


class Writer:
    """Stores completions in parts, a part every few seconds, so that a kill loses little and files stay few."""

    def __init__(self, run: Run, clock: Clock) -> None:
        self.run, self.clock = run, clock
        self.waiting: list[Completion] = []
        self.timings: list[dict[str, Any]] = []
        self.stored_at = clock()

    def add(self, completion: Completion) -> None:
        """Take one completion; store all that wait when it is time. A scope's cut rows arrive together and stay so."""
        self.waiting.append(completion)
        if completion.finish_reason != "deadline" and self.clock() - self.stored_at >= FLUSH_S:
            self.flush()

    def time(self, row: dict[str, Any]) -> None:
        """Take the timing of a finished scope."""
        self.timings.append(row)
        if self.clock() - self.stored_at >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Store what waits."""
        waiting, self.waiting = self.waiting, []
        timings, self.timings = self.timings, []
        self.run.add_completions(waiting)
        if timings:
            self.run.add_timing(timings)
        self.stored_at = self.clock()

    def close(self) -> None:
        """Store the rest."""
        self.flush()


def warm_up(model: Model, scopes: Sequence[Scope], samples: int, clock: Clock) -> float:
    """Get a model ready for these scopes, outside every budget; returns the seconds it took.

    The model may prepare itself; then it generates a few tokens for `samples` rows of the first prompt.
    """
    began = clock()
    if hasattr(model, "prepare"):
        model.prepare([scope.requests for scope in scopes])
    first = scopes[0].requests[0]
    brief = replace(first, sampling=replace(first.sampling, max_tokens=4))
    for _ in model.generate([replace(brief, sample_index=index) for index in range(samples)], Deadline(None, clock)):
        pass
    return clock() - began


def render(model: Model, problem: Problem) -> str:
    """The exact text that the model reads for a problem."""
    if hasattr(model, "render"):
        return cast(str, model.render(problem.prompt))
    if isinstance(problem.prompt, str):
        return problem.prompt
    return "\n\n".join(message.content for message in problem.prompt)
