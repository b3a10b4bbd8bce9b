"""What a strategy works with: the search for the answers of one problem, on the clock of its scope.

A strategy says how a budget is spent. It is a function `(search, *, options)` that yields drafts, each a candidate as
soon as it is finished, or one of options only that returns a `Strategy`. Without a strategy samples are independent.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from harness.budgets import Deadline
from harness.errors import UserError
from harness.nouns import Completion, Model, Prompt, Request, Sampling
from harness.running.drafts import Ask, Draft
from harness.running.scoring import Asked, Judge

SPARE_TOKENS = 32
"""A reply to which a strategy has put a text may have so many tokens after it whatever its length, for an answer."""
LONGEST_ADDED = 64
"""Tokens that such texts and what is spare may come to in a reply; room for more is made inside the clock."""


class OutOfTime(Exception):
    """What is left of the budget does not suffice for the next scoring: the search is over."""


def same(drafts: Sequence[Draft]) -> list[int | None]:
    """Answer classes where no task says what an answer is: equal texts share one."""
    order: dict[str, int] = {}
    return [order.setdefault(draft.text.strip(), len(order)) for draft in drafts]


@dataclass(slots=True)
class Search:
    """One problem, the model that answers it, and what else a strategy may use.

    Attributes:
        prompt: what is asked.
        samples: how many candidates are wanted; more are not taken.
        sampling: how tokens are drawn; `max_tokens` is for a whole reply.
        deadline: of the scope; only `elapsed_s`, `expired`, `left` and `budget` are for a strategy.
        model: the engine.
        judges: the reward models of the bench, loaded.
        classes: numbers the classes of equivalent answers of some drafts, None for one that has no answer.
    """

    problem_id: str
    prompt: Prompt
    samples: int
    sampling: Sampling
    deadline: Deadline
    model: Model
    judges: Sequence[Judge] = ()
    classes: Callable[[Sequence[Draft]], list[int | None]] = same
    root: Draft = field(default_factory=Draft)
    latest: list[Draft] = field(default_factory=list)
    """What the engine wrote last, in the order in which it ended: of the latest call of `extend`."""
    streams: set[tuple[int, int]] = field(default_factory=set)
    outside_flops: list[float] = field(default_factory=list)
    """Charged to the deadline by others while the search stood still."""

    def begin(self) -> Draft:
        """The empty reply."""
        return self.root

    def on(self, model: Model) -> "Search":
        """The same search with another model; its drafts cannot go on with this one."""
        return replace(self, model=model, root=Draft(), latest=[], streams=set())

    def extend(
        self,
        drafts: Sequence[Draft],
        *,
        stop: Sequence[str] = (),
        max_tokens: int | None = None,
        streams: Sequence[int] | None = None,
    ) -> "Extension":
        """Go on with drafts side by side; those that come of it are iterated over as each ends.

        Args:
            drafts: the same one may be there several times. Those that have ended are refused.
            stop: texts at which a piece ends; they stay in it.
            max_tokens: of a piece; None leaves the whole reply's limit.
            streams: the random streams, by default the places in `drafts`; the drafts that come of it have them too.

        Breaking off the iteration gives up what is still being written.
        """
        extension = Extension(self, tuple(stop), max_tokens)
        for place, draft in enumerate(drafts):
            extension.add(draft, place if streams is None else streams[place])
        return extension

    def ask(self, draft: Draft, stream: int, stop: tuple[str, ...], max_tokens: int | None) -> Ask:
        """What the engine is asked for. Raises ValueError for a draft that cannot go on."""
        if draft.ending is not None:
            raise ValueError(f"a draft that has ended ({draft.ending}) cannot go on; add a text to it with plus()")
        step = len(draft.pieces)
        while (stream, step) in self.streams:
            step += 1
        self.streams.add((stream, step))
        left = max(self.sampling.max_tokens - draft.tokens, SPARE_TOKENS if draft.added else 1)
        piece = left if max_tokens is None else min(left, max_tokens)
        sampling = replace(self.sampling, stop=(*self.sampling.stop, *stop), max_tokens=piece)
        request = Request(self.problem_id, stream, self.prompt, sampling, step)
        return Ask(draft, request, self.sampling.stop, left, self.sampling.max_tokens + LONGEST_ADDED)

    def score(self, drafts: Sequence[Draft], aggregate: str = "last") -> list[float]:
        """One number for each draft by the bench's first reward model, minus infinity where it gives none.

        `aggregate` makes it of the steps' scores: last, min, prod or mean. Raises OutOfTime when by the cost of earlier
        calls the scoring would not end before the deadline.
        """
        if not self.judges:
            raise UserError("this strategy is guided by a reward model; add --reward-model R")
        judge, found = self.judges[0], [float("-inf")] * len(drafts)
        asked = [Asked(self.problem_id, i, self.prompt, one.text, one.tokens) for i, one in enumerate(drafts)]
        for start in range(0, len(asked), judge.max_batch_size):
            batch = asked[start : start + judge.max_batch_size]
            unit = self.deadline.budget.unit if self.deadline.budget else "seconds"
            if judge.estimate(sum(one.weight for one in batch), unit) > self.deadline.left:
                raise OutOfTime
            before = judge.flops
            rows = judge.score(batch)
            self.deadline.charge(flops=judge.flops - before)
            for row in rows:
                if row["scores"]:
                    found[row["sample_index"]] = aggregated(row["scores"], aggregate)
        return found

    @contextmanager
    def holding_back(self, share: float) -> Iterator[None]:
        """Keep this share of the budget for afterwards: within, the deadline strikes that much earlier."""
        if self.deadline.budget is not None:
            self.deadline.held_back = share * self.deadline.budget.amount
        try:
            yield
        finally:
            self.deadline.held_back = 0.0

    def stamped(self, row: Completion) -> Completion:
        """A row with what the scope has spent by now."""
        spent_flops = self.deadline.flops - sum(self.outside_flops)
        return replace(row, spent_flops=spent_flops, spent_tokens=self.deadline.tokens)

    def handed_over(self, draft: Draft, row: Completion) -> Completion:
        """The row of a draft that the strategy gives: it is available from now on, not from when it was written.

        Of one that has just been written that is the same; and when the deadline has struck, what the strategy had in
        hand was available all along.
        """
        if self.deadline.expired or (self.latest and self.latest[-1] is draft):
            return row
        return replace(self.stamped(row), finished_s=max(row.finished_s, self.deadline.elapsed_s))


class Extension:
    """Drafts that are being written; see `Search.extend`."""

    def __init__(self, search: Search, stop: tuple[str, ...], max_tokens: int | None) -> None:
        self.search, self.stop, self.max_tokens = search, stop, max_tokens
        self.waiting: deque[Ask] = deque()
        search.latest = []
        extend = getattr(search.model, "extend", None)
        if extend is None and stop:
            raise UserError(
                f"this strategy goes step by step, which the engine of '{search.model.name}' cannot; use --engine "
                "native or vllm"
            )
        self.written: Iterator[Draft] = (
            by_texts(search.model, self.waiting, search.deadline)
            if extend is None
            else extend(self.waiting, search.deadline)
        )

    def add(self, draft: Draft, stream: int | None = None, max_tokens: int | None = None) -> None:
        """Let one more draft go on beside those under way; by default on its own random stream."""
        place = draft.stream if stream is None else stream
        most = self.max_tokens if max_tokens is None else max_tokens
        self.waiting.append(self.search.ask(draft, place, self.stop, most))

    def __iter__(self) -> Iterator[Draft]:
        return self

    def __next__(self) -> Draft:
        draft = next(self.written)
        draft.pieces = (*draft.pieces[:-1], self.search.stamped(draft.pieces[-1]))
        self.search.latest.append(draft)
        return draft


def by_texts(model: Model, waiting: deque[Ask], deadline: Deadline) -> Iterator[Draft]:
    """`extend` for an engine that only answers prompts: the reply so far is put behind the prompt and read again."""
    while waiting and not deadline.expired:
        asks: dict[int, Ask] = {}
        while waiting and waiting[0].request.sample_index not in asks:
            ask = waiting.popleft()
            asks[ask.request.sample_index] = ask
        requests = [
            replace(ask.request, prompt=rendered(model, ask.request.prompt) + ask.draft.text)
            if ask.draft.text
            else ask.request
            for ask in asks.values()
        ]
        for piece in model.generate(requests, deadline):
            ask = asks[piece.sample_index]
            yield ask.longer(piece, ask.draft.text + piece.text, ended=True)


def rendered(model: Model, prompt: Prompt) -> str:
    """The exact text that the model reads."""
    if hasattr(model, "render"):
        return str(model.render(prompt))
    return prompt if isinstance(prompt, str) else "\n\n".join(message.content for message in prompt)


def aggregated(scores: Sequence[float], how: str) -> float:
    """One number of the scores of a reply's steps. Raises UserError naming the ways that exist."""
    import math

    ways: dict[str, Callable[[Sequence[float]], float]] = {
        "last": lambda each: each[-1],
        "min": min,
        "prod": math.prod,
        "mean": lambda each: sum(each) / len(each),
    }
    if how not in ways:
        raise UserError(f"scores of steps are aggregated by last, min, prod or mean, not '{how}'")
    return float(ways[how](scores))


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a budget is spent on one problem.

    `search(search)` yields finished drafts, at most `search.samples` of them, each a candidate from then on; when it
    ends earlier the samples that are left are rows without an answer. It ends soon after the deadline, having yielded
    what it has. `reads_scores` says
    that it needs a reward model. `replays` is False where the deadline is part of what it does, so that a run under a
    smaller budget would not have had what had finished by then in this one. `models` are those that it loaded beside
    the bench's own, which are warmed up, described in the manifest and closed with it.
    """

    name: str
    search: Callable[[Search], Iterator[Draft]]
    reads_scores: bool = False
    replays: bool = True
    models: Sequence[Model] = ()
