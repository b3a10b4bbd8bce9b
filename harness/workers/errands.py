"""What workers are sent to do, and what is left when one of them does not come back.

In the latency protocol an errand is one problem. In the throughput protocol it is a share of the waves: every so
manieth of the requests that come next, so that all workers go through the waves side by side. Knows nothing of where
workers run; a request is named by its place, sample index times problems plus the problem's number.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.budgets import Budget, Deadline
from harness.nouns import Completion, Problem, Prompt, Sampling
from harness.running.scopes import Requests, Scope
from harness.running.scoring import FINISHED, Asked

if TYPE_CHECKING:
    import numpy as np

LEAST = 8
"""Requests per worker below which what is left is no longer halved but given out evenly."""


@dataclass(frozen=True, slots=True, eq=False)
class Errand:
    """One call of a worker: a scope, or its share of one, with the budget that holds for it and what is used of it."""

    problem_id: str | None
    places: "np.ndarray"
    budget: Budget | None
    used_s: float = 0.0
    used_flops: float = 0.0
    used_tokens: int = 0
    fresh: bool = True
    owed: tuple[Asked, ...] = ()
    """Completions of an earlier worker or sitting that are still to be scored."""
    deaths: int = 0
    """How many workers have died on it."""

    def scope(self, problems: Sequence[Problem], sampling: Sampling) -> Scope:
        """The scope that the worker runs."""
        wanted = Requests(problems, self.places, sampling)
        return Scope(self.problem_id, wanted, self.used_s, self.used_flops, self.used_tokens, self.fresh)


class Parcel(NamedTuple):
    """What a worker sends while it is on an errand; `facts` come with the last one."""

    completions: Sequence[Completion] = ()
    scores: Sequence[dict[str, Any]] = ()
    timings: Sequence[dict[str, Any]] = ()
    verdicts: Sequence[dict[str, Any]] = ()
    grade_s: float = 0.0
    facts: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Out:
    """An errand that somebody is on, and what has come of it so far."""

    errand: Errand
    answered: set[int] = field(default_factory=set)
    used_s: float = 0.0
    used_flops: float = 0.0
    used_tokens: int = 0
    spent: float = 0.0
    """In the budget's unit, by the worker's own account; 0 until it is back."""
    is_cut: bool = False
    unscored: dict[tuple[str, int], Asked] = field(default_factory=dict)

    def rest(self) -> Errand:
        """What another worker has still to do, on a clock that goes on where this one's last whole work ended."""
        import numpy as np

        left = ~np.isin(self.errand.places, list(self.answered))
        return replace(
            self.errand,
            places=self.errand.places[left],
            used_s=max(self.errand.used_s, self.used_s),
            used_flops=self.errand.used_flops + self.used_flops,
            used_tokens=self.errand.used_tokens + self.used_tokens,
            fresh=self.errand.fresh and not self.answered,
            owed=tuple(self.unscored.values()),
            deaths=self.errand.deaths + 1,
        )


class Deal:
    """Hands out the scopes of a run and takes back what was not finished.

    Args:
        scopes: those that are left: of problems, or a single one with all the waves.
        problems: the run's, in task order.
        budget: of each scope. Seconds of a run are the same for all workers; its FLOPs or tokens are shared out
            evenly among them, so that none waits for the others' count.
        workers: how many are wanted.
        judges: names of the reward models.
        owed: what earlier sittings left unscored, by scope.
    """

    def __init__(
        self, scopes: Sequence[Scope], problems: Sequence[Problem], budget: Budget | None, workers: int,
        judges: Sequence[str] = (), owed: Mapping[str | None, Sequence[Asked]] | None = None,
    ) -> None:  # fmt: skip
        self.numbers = {problem.id: number for number, problem in enumerate(problems)}
        self.prompts: dict[str, Prompt] = {problem.id: problem.prompt for problem in problems} if judges else {}
        self.workers, self.judges = workers, judges
        whole = [self.errand(scope, budget, (owed or {}).get(scope.problem_id, ())) for scope in scopes]
        self.waves = whole.pop() if whole and whole[0].problem_id is None else None
        self.waiting = deque(whole)
        self.spent: dict[int, float] = {}
        """Of a run's FLOPs or tokens, by worker."""

    def errand(self, scope: Scope, budget: Budget | None, owed: Sequence[Asked]) -> Errand:
        """A whole scope with its requests by place."""
        import numpy as np

        requests = scope.requests
        if isinstance(requests, Requests) and scope.problem_id is not None:
            places = requests.places * len(self.numbers) + self.numbers[scope.problem_id]
        elif isinstance(requests, Requests):
            places = requests.places
        else:
            places = np.array([self.place(one.problem_id, one.sample_index) for one in requests], np.int64)
        used = scope.used_s, scope.used_flops, scope.used_tokens
        return Errand(scope.problem_id, places, budget, *used, scope.fresh, tuple(owed))

    def place(self, problem_id: str, sample_index: int) -> int:
        """Where a request stands among all."""
        return sample_index * len(self.numbers) + self.numbers[problem_id]

    def calls(self) -> list[Errand]:
        """What the engine of a worker will be asked, as far as can be said beforehand: what it is prepared for."""
        if self.waves is None:
            return list(self.waiting)
        return [replace(self.waves, places=self.waves.places[:: self.workers])]

    def next(self, worker: int, deadline: Deadline) -> Errand | None:
        """The next errand of a worker, None when there is none for it; `deadline` is the run's."""
        if self.waves is None:
            return self.waiting.popleft() if self.waiting else None
        if not self.left or deadline.expired:
            return None
        waves, budget = self.waves, self.waves.budget
        if budget is not None and budget.unit != "seconds":
            used = waves.used_flops if budget.unit == "flops" else waves.used_tokens
            budget, spent = replace(budget, amount=(budget.amount - used) / self.workers), self.spent.get(worker, 0.0)
            if spent >= budget.amount:
                return None
        else:
            spent = 0.0
        mine, rest = shared(waves.places, self.workers)
        self.waves = replace(waves, places=rest, owed=())
        return Errand(None, mine, budget, deadline.elapsed_s, spent, int(spent), waves.fresh, waves.owed)

    def take(self, out: Out, parcel: Parcel) -> None:
        """Cross off what has come."""
        for row in parcel.completions:
            out.answered.add(self.place(row.problem_id, row.sample_index))
            out.used_s = max(out.used_s, row.finished_s)
            # Where a strategy counted what the scope had spent, that is the whole and not a part of it.
            out.used_flops = max(out.used_flops + row.prefill_flops + row.decode_flops, row.spent_flops or 0.0)
            out.used_tokens = max(out.used_tokens + row.completion_tokens, row.spent_tokens or 0)
            out.is_cut = out.is_cut or row.finish_reason == "deadline"
            if self.judges and row.finish_reason in FINISHED:
                key = row.problem_id, row.sample_index
                out.unscored[key] = Asked(*key, self.prompts[row.problem_id], row.text, row.completion_tokens)
        out.spent = max([out.spent, *(row["spent"] for row in parcel.timings)])
        for score in parcel.scores:
            out.used_s = max(out.used_s, score["scored_s"])
            out.used_flops += score["reward_flops"]
            if score["reward_model"] == self.judges[-1]:
                out.unscored.pop((score["problem_id"], score["sample_index"]), None)

    def end(self, worker: int, out: Out, died: bool = False) -> None:
        """A worker is back from its errand, or has died on it; what others can still do is there for the next one."""
        import numpy as np

        rest = out.rest()
        if self.waves is None:
            if died and (len(rest.places) or rest.owed) and not out.is_cut:
                self.waiting.appendleft(rest)
            return
        used_up = self.charge(worker, out)
        if died or used_up:
            places = np.sort(np.concatenate([rest.places, self.waves.places]))
            self.waves = replace(self.waves, places=places, owed=(*self.waves.owed, *(rest.owed if died else ())))

    def charge(self, worker: int, out: Out) -> bool:
        """Note what a worker has spent of its part of a run's FLOPs or tokens; True when that is used up."""
        budget = out.errand.budget
        if budget is None or budget.unit == "seconds":
            return False
        used = out.used_flops if budget.unit == "flops" else out.used_tokens
        self.spent[worker] = max(self.spent.get(worker, 0.0) + used, out.spent)
        return self.spent[worker] >= budget.amount

    @property
    def left(self) -> int:
        """How many errands, or requests and completions to be scored, nobody is on."""
        return len(self.waiting) if self.waves is None else len(self.waves.places) + len(self.waves.owed)


def shared(places: "np.ndarray", workers: int) -> tuple["np.ndarray", "np.ndarray"]:
    """One worker's next share of the waves, and what remains.

    A share is half of what would be the worker's part of all: large at first, so that its engine stays full for long,
    and small in the end, so that all workers end together. A single worker is given everything.
    """
    import numpy as np

    size = max(LEAST, -(-len(places) // (2 * workers))) if workers > 1 else len(places)
    mine = np.zeros(len(places), bool)
    mine[: size * workers : workers] = True
    return places[mine], places[~mine]
