"""An engine that writes what a script says, every reply a character a second, and a judge of its texts."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fakes import FakeClock

from harness.budgets import Deadline
from harness.nouns import Completion, FinishReason, PlainRewardModel, Request
from harness.running.drafts import Ask, Draft
from harness.running.scoring import Judge

Script = Callable[[str, int], str]
"""What follows a text on a random stream, to the reply's end."""


def by_table(table: Mapping[tuple[str, int], str], otherwise: str = "!") -> Script:
    return lambda text, stream: table.get((text, stream), otherwise)


@dataclass
class Scripted:
    """`asked` keeps, for every piece that was begun, the text before it and its stream; the end is no character."""

    clock: FakeClock
    script: Script
    name: str = "scripted"
    flops: float = 10.0
    asked: list[tuple[str, int]] = field(default_factory=list)

    def extend(self, waiting: deque[Ask], deadline: Deadline) -> Iterator[Draft]:
        flying: list[tuple[Ask, str, list[int]]] = []
        began: dict[int, float] = {}
        while (waiting or flying) and not deadline.expired:
            while waiting:
                ask = waiting.popleft()
                self.asked.append((ask.draft.text, ask.request.sample_index))
                flying.append((ask, self.script(ask.draft.text, ask.request.sample_index), [0]))
                began[id(ask)] = deadline.elapsed_s
            self.clock.sleep(1)
            deadline.charge(tokens=len(flying), flops=self.flops * len(flying))
            for one in list(flying):
                ask, rest, count = one
                count[0] += 1
                written, sampling = rest[: count[0]], ask.request.sampling
                is_end = count[0] == len(rest)
                is_stop = any(stop in written for stop in sampling.stop)
                if is_end or is_stop or count[0] == sampling.max_tokens:
                    flying.remove(one)
                    reason: FinishReason = "stop" if is_end or is_stop else "length"
                    yield self.draft(ask, written, began[id(ask)], deadline, reason, is_end)
        for ask, rest, count in flying:
            if count[0]:
                yield self.draft(ask, rest[: count[0]], began[id(ask)], deadline, "deadline", False)

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        raise NotImplementedError

    def draft(
        self, ask: Ask, written: str, began: float, deadline: Deadline, reason: FinishReason, ended: bool
    ) -> Draft:
        request = ask.request
        piece = Completion(
            request.problem_id, request.sample_index, written, reason, 5, len(written), request.seed, began, began,
            began + 1, deadline.elapsed_s, 1.0, 0.0, self.flops * len(written), -1.0 * len(written),
        )  # fmt: skip
        return ask.longer(piece, ask.draft.text + written, ended=ended)


@dataclass
class Scorer:
    """Scores texts by a table, a second for every call; `asked` keeps the calls."""

    clock: FakeClock
    table: Mapping[str, float]
    asked: list[list[str]] = field(default_factory=list)

    def __call__(self, prompt: object, completions: Sequence[str]) -> list[list[float]]:
        self.clock.sleep(1)
        self.asked.append(list(completions))
        return [[self.table[text]] for text in completions]

    def judge(self) -> Judge:
        return Judge("table", (), PlainRewardModel("table", self), self.clock)
