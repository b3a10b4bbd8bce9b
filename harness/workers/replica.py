"""A worker's side: a loaded model in a process of its own, with its reward models, its grader and its clock.

It runs errands with the measured loop of `running.runner`, as a bench without workers does, and sends what comes of
them to the one process that writes the run. Knows nothing of the cluster it runs on.
"""

import contextlib
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from harness import plugins
from harness.budgets import Clock, monotonic
from harness.errors import UserError
from harness.grading import Job, verdict_rows
from harness.nouns import Completion, Model, Problem, Task
from harness.progress import Quiet
from harness.running.calling import Patience
from harness.running.probe import Surroundings
from harness.running.rescoring import load_judges, warm_up_judges
from harness.running.runner import Told, as_row, frozen_garbage, render, run_scope, warm_up
from harness.running.scoring import Judge, Judging
from harness.running.searching import searching
from harness.running.validity import TROUBLES
from harness.running.watchdog import watchdog_of
from harness.storage.manifest import machine
from harness.workers.errands import Errand, Parcel

if TYPE_CHECKING:
    from harness.running.bench import Arm, Plan

SEND_S = 0.25
"""Seconds between two parcels of an errand."""

Any_ = TypeVar("Any_")


@dataclass(frozen=True, slots=True)
class Order:
    """What every worker of a run is told once.

    `calls` are what its engine will be asked; `folder` is where files named in the command are looked for, `grace_s`
    what is wished of the watchdog, which ends a worker whose engine hangs. `task` is the grader, pickled, without its
    problems; None where it cannot travel.
    """

    arm: "Arm"
    asked: "Plan"
    problems: Sequence[Problem]
    calls: Sequence[Errand]
    segment: int
    folder: str
    grace_s: float | None = None
    task: bytes | None = None


class Sender:
    """Takes what the measured loop gives to a writer, until it is sent off by another thread."""

    def __init__(self, segment: int) -> None:
        self.segment = segment
        self.completions: deque[Completion] = deque()
        self.scores: deque[dict[str, Any]] = deque()
        self.timings: deque[dict[str, Any]] = deque()
        self.verdicts: list[dict[str, Any]] = []
        self.grade_s = 0.0

    def add(self, completion: Completion, now: float) -> None:
        """Take one completion."""
        self.completions.append(completion)

    def score(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take scores of completions that were taken before."""
        self.scores.extend(rows)

    def time(self, row: dict[str, Any]) -> None:
        """Take the timing of a finished scope."""
        self.timings.append(row)

    def parcel(self) -> Parcel:
        """What has come since the last one; a score never without its completion."""
        scores = drained(self.scores)
        return Parcel(drained(self.completions), scores)

    def last_parcel(self, facts: Mapping[str, Any]) -> Parcel:
        """The rest, when nothing more will come."""
        return Parcel(*self.parcel()[:2], drained(self.timings), self.verdicts, self.grade_s, facts)


def drained(queue: "deque[Any_]") -> list[Any_]:
    """Take out what is in a queue now; another thread may go on adding."""
    return [queue.popleft() for _ in range(len(queue))]


@dataclass(slots=True)
class Replica:
    """One worker. Everything of the model happens in one thread; its results are sent from another."""

    order: Order
    clock: Clock = monotonic
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    model: Model | None = None
    judges: list[Judge] = field(default_factory=list)
    surroundings: Surroundings | None = None
    before: dict[str, Any] = field(default_factory=dict)
    patience: Patience = field(default_factory=lambda: Patience(1))
    task: Task | None = None

    def load(self) -> dict[str, Any]:
        """Load and warm everything; the worker's record for the manifest. Raises UserError."""
        return self.in_thread(self.load_here)

    def in_thread(self, work: Callable[[], Any_]) -> Any_:
        """Do something where the model lives."""
        return self.thread.submit(work).result()

    def load_here(self) -> dict[str, Any]:
        """`load`, in the model's thread."""
        order = self.order
        with contextlib.suppress(OSError):
            os.chdir(order.folder)
        # One that cannot be read here hinders only a strategy: what is not graded here is graded where the run is
        # written.
        with contextlib.suppress(Exception):
            self.task = pickle.loads(order.task) if order.task else None
        if order.asked.strategy and self.task is None:
            raise UserError(
                f"the strategy {order.asked.strategy} needs the task's grader, which cannot be sent to workers; leave "
                "--workers out"
            )
        self.patience = Patience(len(order.calls), watchdog_of(lambda _: None, order.grace_s))
        arm, asked = order.arm, order.asked
        self.judges = load_judges(asked.reward_models, asked.reward_options, self.clock)
        began = self.clock()
        engine = plugins.load_model(arm.model, arm.engine, arm.options)
        self.model = searching(engine, asked, self.judges, self.task) if self.task else engine
        load_s = self.clock() - began
        scopes = [call.scope(order.problems, asked.sampling) for call in order.calls]
        warmup_s = warm_up(self.model, scopes, asked.samples if asked.protocol == "latency" else 1, self.clock)
        warm_up_judges(self.judges, order.problems[0].prompt)
        self.before = self.engine_facts()
        self.surroundings = Surroundings(self.clock)
        self.surroundings.probe()
        return {"machine": machine(), "load_s": load_s, "warmup_s": warmup_s, **self.facts()}

    def name_and_prompts(self) -> tuple[str, list[str]]:
        """The model's name, and the exact text that it reads for each problem."""
        model = self.loaded
        return model.name, [render(model, problem) for problem in self.order.problems]

    @property
    def loaded(self) -> Model:
        """The model; only after `load`."""
        assert self.model is not None
        return self.model

    def run(self, errand: Errand) -> Iterator[Parcel]:
        """Go on an errand: parcels of what has come, the last with the worker's facts.

        Raises whatever the engine raises, after a parcel with what was whole.
        """
        sender = Sender(self.order.segment)
        working = self.thread.submit(self.run_here, errand, sender)
        while not is_done(working):
            parcel = sender.parcel()
            if parcel.completions or parcel.scores:
                yield parcel
        yield sender.last_parcel(self.facts())
        working.result()

    def run_here(self, errand: Errand, sender: Sender) -> None:
        """Run one scope, grade it if it is a problem's, and look around."""
        order = self.order
        prompts = {problem.id: problem.prompt for problem in order.problems} if self.judges else {}
        judging = Judging(self.judges, prompts, {errand.problem_id: errand.owed})
        scope = errand.scope(order.problems, order.asked.sampling)
        told = Told(Quiet(), self.clock)
        watchdog = self.patience.watchdog
        rescue = partial(Event().wait, 2 * SEND_S)
        on_duty = watchdog.on_duty(rescue, errand.budget) if watchdog else contextlib.nullcontext()
        with frozen_garbage(), on_duty:
            rows = run_scope(self.loaded, scope, errand.budget, self.clock, sender, told, judging, self.patience)
        if self.task is not None and errand.problem_id is not None and scope.fresh:
            began = self.clock()
            gold = order.problems[int(errand.places[0]) % len(order.problems)].gold
            sender.verdicts += verdict_rows(self.task, gold, [as_row(row) for row in rows], self.clock)
            sender.grade_s += self.clock() - began
        if self.surroundings is not None:
            self.surroundings.between_scopes()

    def grade(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Verdict rows of some problems' completions, none without a grader."""
        task = self.task
        if task is None:
            return []
        return [row for job in jobs for row in verdict_rows(task, job.gold, job.completions, self.clock, job.known)]

    def engine_facts(self) -> dict[str, Any]:
        """What the model tells of itself now."""
        return dict(getattr(self.model, "facts", {}))

    def facts(self) -> dict[str, Any]:
        """The worker's part of the manifest: engine, reward models, what befell it."""
        engine = self.engine_facts()
        around = self.surroundings.facts() if self.surroundings else {}
        return {
            "engine": engine,
            "troubles": {name: engine[name] - self.before.get(name, 0) for name in TROUBLES if name in engine},
            "judges": [judge.facts() for judge in self.judges],
            **around,
        }

    def close(self) -> dict[str, Any]:
        """Take a last look around and free everything; the facts."""

        def free() -> dict[str, Any]:
            if self.surroundings is not None:
                self.surroundings.probe()
            facts = self.facts()
            for one in (self.model, *self.judges):
                if close := getattr(one, "close", None):
                    close()
            return facts

        return self.in_thread(free)


def is_done(working: "Future[None]") -> bool:
    """Wait for a while; whether it has ended by then."""
    return bool(wait([working], SEND_S).done)
