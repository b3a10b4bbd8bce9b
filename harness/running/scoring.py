"""Reward models at work: finished completions are scored in batches, and what it takes is charged and recorded.

In a bench a scope's completions are scored while it samples, on the scope's clock: the engine waits, as both share one
device. Afterwards (`ttc score`) the same rows come about outside every clock.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

from harness.budgets import Clock, Deadline
from harness.nouns import Completion, Prompt, RewardModel
from harness.running.scopes import Scope

MAX_BATCH_SIZE = 32
"""Completions that go at once to a reward model that does not say how many it takes."""
FINISHED = ("stop", "length")
"""How a completion ended that is scored; one that the deadline cut, or that failed, is not."""
REMEMBERED = 8
"""Calls whose cost tells what the next one may cost."""
MARGIN = 1.2
"""By how much a batch may be dearer than expected and still end before the deadline."""
SHOWN = 3
"""Kinds of error that the manifest names."""

Row = dict[str, Any]


class Asked(NamedTuple):
    """A completion that waits to be scored; `tokens` are those it took to write, which share out a batch's cost."""

    problem_id: str
    sample_index: int
    prompt: Prompt
    text: str
    tokens: int

    @property
    def weight(self) -> int:
        """Its part of a batch's cost."""
        return max(1, self.tokens)


class Judge:
    """A loaded reward model under the name that the user wrote, with what it has done and cost so far."""

    def __init__(self, name: str, options: Sequence[str], model: RewardModel, clock: Clock) -> None:
        self.name, self.options, self.model, self.clock = name, list(options), model, clock
        self.load_s = self.warmup_s = self.score_s = self.flops = 0.0
        self.scored = self.unscored = self.late = self.failed = 0
        self.errors: Counter[str] = Counter()
        self.costs: list[tuple[int, float, float]] = []
        """Tokens, seconds and FLOPs of the latest calls."""

    @property
    def max_batch_size(self) -> int:
        """Completions that it takes at once."""
        return int(getattr(self.model, "max_batch_size", MAX_BATCH_SIZE))

    def score(self, batch: Sequence[Asked]) -> list[Row]:
        """Rows of scores for a batch, in any order; an exception is counted, and what it struck has no row."""
        rows = [row for group in self.calls(batch) for row in self.call(group)]
        self.scored += sum(bool(row["scores"]) for row in rows)
        self.unscored += sum(not row["scores"] for row in rows)
        return rows

    def calls(self, batch: Sequence[Asked]) -> list[list[Asked]]:
        """What goes into one call: everything, or prompt by prompt where the model takes one at a time."""
        if hasattr(self.model, "score_all"):
            return [list(batch)] if batch else []
        groups: dict[Prompt, list[Asked]] = {}
        for one in batch:
            groups.setdefault(one.prompt, []).append(one)
        return list(groups.values())

    def call(self, group: Sequence[Asked]) -> list[Row]:
        """Score one call's completions and share out its seconds and FLOPs by their tokens."""
        began, before = self.clock(), self.counted()
        try:
            found = check_scores(ask(self.model, group), len(group))
        except Exception as error:
            self.failed += len(group)
            self.errors[f"{type(error).__name__}: {error}"[:300]] += 1
            found = None
        seconds, flops = self.clock() - began, self.counted() - before
        self.score_s, self.flops = self.score_s + seconds, self.flops + flops
        total = sum(one.weight for one in group)
        # Scores that were remembered cost nothing, which would make the next ones look cheap.
        if getattr(self.model, "fresh", True):
            self.costs = [*self.costs, (total, seconds, flops)][-REMEMBERED:]
        return [
            {
                "problem_id": one.problem_id,
                "sample_index": one.sample_index,
                "reward_model": self.name,
                "scores": scores,
                "scored_s": None,
                "reward_s": seconds * one.weight / total,
                "reward_flops": flops * one.weight / total,
            }
            for one, scores in zip(group, found or (), strict=False)
        ]

    def counted(self) -> float:
        """The FLOPs that the model has counted of itself; 0 for one that counts none."""
        return float(getattr(self.model, "flops", 0.0))

    def estimate(self, tokens: int, unit: str) -> float:
        """What scoring so many tokens may take in a budget's unit, 0 where nothing is known.

        By each remembered call, more tokens take at most in proportion more and fewer at most the same; the tightest of
        these bounds is taken, with a margin for what varies.
        """
        place = {"seconds": 1, "flops": 2}.get(unit)
        if place is None:
            return 0.0
        return MARGIN * min((call[place] * max(1.0, tokens / call[0]) for call in self.costs), default=0.0)

    def warm_up(self, batch: Sequence[Asked]) -> None:
        """Score something, outside every budget; what it cost tells how long a first batch may take."""
        began = self.clock()
        self.score(batch)
        self.score_s = self.flops = 0.0
        self.scored = self.unscored = self.failed = 0
        self.errors.clear()
        self.warmup_s = self.clock() - began

    def again(self) -> "Judge":
        """The same reward model with nothing done yet: for the next run."""
        fresh = Judge(self.name, self.options, self.model, self.clock)
        fresh.costs = self.costs
        return fresh

    def facts(self) -> dict[str, Any]:
        """For the manifest: what the model says of itself, and what it did and cost in this sitting."""
        own = dict(getattr(self.model, "facts", {}))
        counts = {name: getattr(self, name) for name in ("scored", "unscored", "late", "failed")}
        costs = {name: getattr(self, name) for name in ("load_s", "warmup_s", "score_s", "flops")}
        return {
            "name": self.name,
            "options": self.options,
            "model": own,
            **counts,
            **costs,
            "errors": dict(self.errors.most_common(SHOWN)),
        }

    def close(self) -> None:
        """Free the model."""
        if close := getattr(self.model, "close", None):
            close()


def ask(model: RewardModel, group: Sequence[Asked]) -> Sequence[Any]:
    """The model's word on completions, of one prompt unless it takes several."""
    if hasattr(model, "score_all"):
        found: Sequence[Any] = model.score_all([(one.prompt, one.text) for one in group])
        return found
    return model.score(group[0].prompt, [one.text for one in group])


def check_scores(found: Sequence[Any], wanted: int) -> list[list[float]]:
    """Scores as lists of finite numbers; a single number is an outcome's. Raises ValueError for anything else."""
    import math

    rows = [[float(s) for s in one] if hasattr(one, "__iter__") else [float(one)] for one in found]
    if len(rows) != wanted:
        raise ValueError(f"it gave {len(rows)} scores for {wanted} completions")
    if not all(math.isfinite(score) for row in rows for score in row):
        raise ValueError("it gave a score that is no finite number")
    return rows


class ScopeScoring:
    """Scores one scope's completions as they finish, inside its deadline.

    A batch is scored as soon as `max_batch_size` completions wait, or as many as are still being written, and what is
    left when all are finished. So in the thick of sampling batches are full, which is the cheapest way to score and
    lets the engine write in between; near the end, where a straggler may hold out until the deadline, at most half of
    what could be scored is unscored at any time, for a number of batches that grows with the logarithm. Nothing is
    begun that by the cost of earlier batches would not end before the deadline; a batch that the deadline strikes in
    spite of that has no scores, and what was not scored by then stays so.
    """

    def __init__(
        self, judges: Sequence[Judge], prompts: Mapping[str, Prompt], deadline: Deadline, requests: int,
        store: Callable[[Sequence[Row]], None], waiting: Iterable[Asked] = (),
    ) -> None:  # fmt: skip
        self.judges, self.prompts, self.deadline = judges, prompts, deadline
        self.outstanding, self.store, self.waiting = requests, store, list(waiting)
        self.rows = min((judge.max_batch_size for judge in judges), default=MAX_BATCH_SIZE)

    def take(self, completion: Completion) -> None:
        """Take a completion that has come out of the engine; score a batch if it is time."""
        if not self.judges:
            return
        self.outstanding -= 1
        if completion.finish_reason in FINISHED:
            prompt = self.prompts[completion.problem_id]
            tokens = completion.completion_tokens
            self.waiting.append(Asked(completion.problem_id, completion.sample_index, prompt, completion.text, tokens))
        while len(self.waiting) >= max(1, min(self.rows, self.outstanding)) and self.score_some():
            pass

    def finish(self) -> None:
        """Score what waits when nothing more is written."""
        while self.judges and self.waiting and self.score_some():
            pass

    def score_some(self) -> bool:
        """Score as many as fit into a batch and before the deadline; False when not even one does."""
        batch = list(self.fitting(self.waiting[: self.rows]))
        if not batch:
            return False
        self.waiting = self.waiting[len(batch) :]
        for judge in self.judges:
            self.score_batch(judge, batch)
        return True

    def fitting(self, batch: Sequence[Asked]) -> Sequence[Asked]:
        """The first of a batch that can be scored before the deadline, as far as can be told."""
        deadline = self.deadline
        if deadline.expired:
            return []
        if deadline.budget is None:
            return batch
        left, unit = deadline.left, deadline.budget.unit
        totals = list(accumulate(one.weight for one in batch))
        fits = [sum(judge.estimate(total, unit) for judge in self.judges) <= left for total in totals]
        return batch[: fits.count(True)]

    def score_batch(self, judge: Judge, batch: Sequence[Asked]) -> None:
        """Score a batch with one reward model, charge it, and keep what was there in time."""
        if self.deadline.expired:
            judge.late += len(batch)
            return
        before = judge.flops
        rows = judge.score(batch)
        self.deadline.charge(flops=judge.flops - before)
        budget, now = self.deadline.budget, self.deadline.elapsed_s
        if budget is not None and self.deadline.spent > budget.amount:
            judge.late += len(rows)
            judge.scored -= sum(bool(row["scores"]) for row in rows)
            judge.unscored -= sum(not row["scores"] for row in rows)
            return
        self.store([row | {"scored_s": now} for row in rows])


@dataclass(frozen=True, slots=True)
class Judging:
    """The reward models of a sitting, what they need of its problems, and what earlier sittings left unscored.

    `owed` is by problem id, or under None for the scope of a whole run.
    """

    judges: Sequence[Judge] = ()
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    owed: Mapping[str | None, Sequence[Asked]] = field(default_factory=dict)

    def begin(self, scope: Scope, deadline: Deadline, store: Callable[[Sequence[Row]], None]) -> ScopeScoring:
        """The scoring of one scope; `store` takes rows of scores."""
        waiting = self.owed.get(scope.problem_id, ())
        return ScopeScoring(self.judges, self.prompts, deadline, len(scope.requests), store, waiting)


NOBODY = Judging()
"""No reward model."""
