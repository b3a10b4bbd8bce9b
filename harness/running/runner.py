"""The measured loop: hand requests to a warm engine scope by scope, store what comes back, grade outside the clock.

Two protocols. `latency`: each problem is a scope of its own, its samples one batch. `throughput`: the run is one scope
and samples go out in waves, sample j of every problem before sample j + 1 of any.
"""

import gc
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Protocol, cast

from harness.budgets import Budget, Clock, Deadline
from harness.faults import boundary
from harness.nouns import Completion, Model, Problem
from harness.progress import Progress, ShowProgress
from harness.running.calling import Patience, every_answer
from harness.running.overshoot import ENDED, INTERRUPTED, Pace, scope_timing
from harness.running.probe import Surroundings
from harness.running.scopes import Awaited, Scope
from harness.running.scoring import NOBODY, Judging
from harness.running.watchdog import Watchdog
from harness.storage.runs import Run

FLUSH_S = 2.0
"""Seconds of finished work that may wait in memory before it is stored, in a young run."""
FLUSH_ROWS = 16384
"""Completions that may wait, however young they are."""
MOST_WAITING = 4
"""Parts of so many completions may wait while one is written."""
FLUSH_SHARE, LONGEST_FLUSH_S = 0.005, 60.0
"""In an old one that share of its age, up to so many seconds, so that the parts of a long run stay few."""
SHOW_S = 0.1
"""Seconds between two looks at the progress."""

VERDICTS_AT_ONCE = 4096
"""Verdict rows that may wait in memory; what a kill takes of them is graded again."""

Grade = Callable[[str, Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]]
"""Grades the completions of one problem; returns the rows of their verdicts."""


class Taker(Protocol):
    """Takes what comes of a scope: stores it, or sends it to the process that does."""

    segment: int

    def add(self, completion: Completion, now: float) -> None:
        """Take one completion."""
        ...

    def score(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take scores of completions that were taken before."""
        ...

    def time(self, row: dict[str, Any]) -> None:
        """Take the timing of a finished scope."""
        ...


def run_scopes(
    model: Model, run: Run, scopes: Sequence[Scope], segment: int, budget: Budget | None, clock: Clock, grade: Grade,
    show: ShowProgress, surroundings: Surroundings, judging: Judging = NOBODY, watchdog: Watchdog | None = None,
) -> None:  # fmt: skip
    """Run every scope and store its completions, verdicts and timing; what the model raises is stored as rows.

    A problem some of whose completions were stored before is not graded here: its answers' classes want all of them.
    Raises Fault when that was too much (`running.calling`), UserError, and KeyboardInterrupt, after storing the whole
    completions it has.
    """
    writer = Writer(run, clock, segment)
    patience = Patience(len(scopes), watchdog)
    on_duty = watchdog.on_duty(writer.rescue, budget) if watchdog else nullcontext()
    total = sum(len(scope.requests) for scope in scopes)
    with show(f"sampling {model.name}", total) as progress, closing(writer), frozen_garbage(), on_duty:
        told = Told(progress, clock)
        for scope in scopes:
            rows = run_scope(model, scope, budget, clock, writer, told, judging, patience)
            if scope.problem_id is not None and scope.fresh:
                verdicts = grade(scope.problem_id, [as_row(row) for row in rows])
                writer.grade(verdicts)
                told.correct += sum(row["verdict"] == "correct" for row in verdicts)
                told.graded += len(rows)
            told.end_scope(len(scope.requests))
            surroundings.between_scopes()


def run_scope(
    model: Model, scope: Scope, budget: Budget | None, clock: Clock, writer: Taker, told: "Told",
    judging: Judging = NOBODY, patience: Patience | None = None,
) -> list[Completion]:  # fmt: skip
    """Run one scope under its deadline; its completions, if it is a problem's and they are to be graded.

    The time in which the engine waits for this loop is counted, and kept short: what is slow happens in the writer's
    thread or after the scope.
    """
    rows: list[Completion] = []
    pace, awaited, outside_s, phase = Pace(budget), Awaited(scope.requests), 0.0, INTERRUPTED
    deadline = scope.start(budget, clock)
    scoring = judging.begin(scope, deadline, writer.score)
    patience = patience or Patience(1)
    try:
        with patience.watching(scope, deadline):
            for completion in every_answer(model, scope, deadline, awaited, patience):
                received = clock()
                pace.add(completion)
                if scope.problem_id is not None:
                    rows.append(completion)
                writer.add(completion, received)
                told.of(deadline, pace.completions, received)
                outside_s += clock() - received
                scoring.take(completion)
            scoring.finish()
        phase = ENDED
    finally:
        elapsed_s = deadline.elapsed_s - scope.used_s
        writer.time(scope_timing(scope.problem_id, pace, deadline, elapsed_s, outside_s, writer.segment, phase))
    return rows


@contextmanager
def frozen_garbage() -> Iterator[None]:
    """Keep what is alive now out of the garbage collector's sight, which would stop a decode step to look at it all."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Told:
    """What the progress display is told, now and then."""

    def __init__(self, progress: Progress, clock: Clock) -> None:
        self.progress, self.told_at = progress, clock()
        self.done = self.correct = self.graded = 0
        self.deadline: Deadline | None = None

    def of(self, deadline: Deadline, completions: int, now: float) -> None:
        """So many completions of the present scope are there."""
        self.deadline = deadline
        if now - self.told_at >= SHOW_S:
            self.progress.update(self.done + completions, note(deadline, self.correct, self.graded))
            self.told_at = now

    def end_scope(self, requests: int) -> None:
        """A scope of so many requests is over and graded."""
        self.done += requests
        if self.deadline is not None:
            self.progress.update(self.done, note(self.deadline, self.correct, self.graded))


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
    """Stores completions in parts, a part every few seconds, so that a kill loses little and files stay few.

    It writes in a thread of its own, one part at a time; an error there is raised by the next call.
    """

    def __init__(self, run: Run, clock: Clock, segment: int) -> None:
        self.run, self.clock, self.segment = run, clock, segment
        self.waiting: list[Completion] = []
        self.scores: list[dict[str, Any]] = []
        self.verdicts: list[Mapping[str, Any]] = []
        self.timings: list[dict[str, Any]] = []
        self.began = self.stored_at = clock()
        self.thread = ThreadPoolExecutor(1)
        self.storing: Future[None] | None = None
        self.taking = threading.Lock()

    def add(self, completion: Completion, now: float) -> None:
        """Take one completion; store all that wait when it is time. A scope's cut rows arrive together and stay so."""
        self.waiting.append(completion)
        if completion.finish_reason != "deadline":
            self.flush_when_due(now)

    def score(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take scores of completions that were taken before."""
        self.scores.extend(rows)

    def grade(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take verdicts on completions that were taken before."""
        self.verdicts.extend(rows)

    def time(self, row: dict[str, Any]) -> None:
        """Take the timing of a finished scope."""
        self.timings.append(row)
        self.flush_when_due(self.clock())

    def flush_when_due(self, now: float) -> None:
        """Store what waits if it is much or has waited long, and the last part is written.

        When parts are written more slowly than completions come, sampling waits rather than fill the memory.
        """
        wait_s = max(FLUSH_S, min(LONGEST_FLUSH_S, FLUSH_SHARE * (now - self.began)))
        is_due = now - self.stored_at >= wait_s or len(self.waiting) >= FLUSH_ROWS
        is_free = self.storing is None or self.storing.done()
        if is_due and (is_free or len(self.waiting) >= MOST_WAITING * FLUSH_ROWS):
            self.flush()

    def flush(self, every_verdict: bool = False) -> None:
        """Begin to store what waits, once the part before is stored. Raises UserError if that could not be written."""
        with self.taking:
            if self.storing is not None:
                self.storing.result()
            waiting, self.waiting = self.waiting, []
            scores, self.scores = self.scores, []
            timings, self.timings = self.timings, []
            verdicts: list[Mapping[str, Any]] = []
            if every_verdict or len(self.verdicts) >= VERDICTS_AT_ONCE:
                verdicts, self.verdicts = self.verdicts, []
            self.storing = self.thread.submit(self.store, waiting, verdicts, scores, timings)
            self.stored_at = self.clock()

    def rescue(self) -> None:
        """Store what waits, called by another thread than the one that samples, and wait until it is stored."""
        self.flush()
        if self.storing is not None:
            self.storing.result()

    def store(
        self, completions: Sequence[Completion], verdicts: Sequence[Mapping[str, Any]],
        scores: Sequence[Mapping[str, Any]], timings: Sequence[Mapping[str, Any]],
    ) -> None:  # fmt: skip
        """Write one part of each, what is said of completions after them.

        The timing is last, so that a scope with a timing has its completions and its scores.
        """
        self.run.add_completions(completions, self.segment)
        self.run.add_verdicts(verdicts)
        self.run.add_scores(scores)
        self.run.add_timing(timings)

    def close(self) -> None:
        """Store the rest, and wait until it is stored."""
        try:
            self.flush(every_verdict=True)
        finally:
            self.thread.shutdown()
        assert self.storing is not None
        self.storing.result()


def warm_up(model: Model, scopes: Sequence[Scope], samples: int, clock: Clock) -> float:
    """Get a model ready for these scopes, outside every budget; returns the seconds it took.

    The model may prepare itself; then it generates a few tokens for `samples` rows of the first prompt. Raises Fault
    when it raises. Where nothing is left to sample there is nothing to get ready for.
    """
    began = clock()
    scopes = [scope for scope in scopes if len(scope.requests)]
    if not scopes:
        return 0.0
    first = scopes[0].requests[0]
    brief = replace(first, sampling=replace(first.sampling, max_tokens=4))
    with boundary(f"model {model.name}, while it was warmed up,"):
        if hasattr(model, "prepare"):
            model.prepare([scope.requests for scope in scopes])
        requests = [replace(brief, sample_index=index) for index in range(samples)]
        for _ in model.generate(requests, Deadline(None, clock)):
            pass
    return clock() - began


def render(model: Model, problem: Problem) -> str:
    """The exact text that the model reads for a problem."""
    if hasattr(model, "render"):
        with boundary(f"model {model.name}"):
            return cast(str, model.render(problem.prompt))
    if isinstance(problem.prompt, str):
        return problem.prompt
    return "\n\n".join(message.content for message in problem.prompt)
