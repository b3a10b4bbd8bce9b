"""An engine that takes exactly as long as formulas say, on a clock that it moves itself."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fakes import FakeClock

from harness.budgets import Deadline
from harness.nouns import Completion, FinishReason, Request

LIMIT = 64


def prefill_s(batch: int, prompt: int) -> float:
    return 0.05 + 0.001 * prompt + 0.002 * batch


def pass_s(batch: int, context: float) -> float:
    return 0.01 + 0.001 * batch + 1e-5 * context + 2e-6 * batch * context


def finish_s(batch: int) -> float:
    return 1e-3 + 1e-4 * batch


@dataclass
class Clockwork:
    """All samples of a call share its first prompt, of a token per word and one more; rows want `lengths` tokens."""

    clock: FakeClock
    lengths: Callable[[Request], int] = lambda request: 10**9
    name: str = "clockwork"
    facts: dict[str, Any] = field(default_factory=lambda: {"engine": "clockwork"})
    prompts: list[str] = field(default_factory=list)
    limit: int = LIMIT

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        began, prompt = deadline.elapsed_s, str(requests[0].prompt)
        tokens = len(prompt.split()) + 1
        self.prompts.append(prompt)
        if len(requests) > self.limit:
            return
        self.clock.sleep(prefill_s(len(requests), tokens))
        first, step = deadline.elapsed_s, 1
        deadline.charge(tokens=len(requests))
        rows = list(requests)
        while rows and not deadline.expired:
            for request in [row for row in rows if step == min(self.lengths(row), row.sampling.max_tokens)]:
                self.clock.sleep(finish_s(len(rows)))
                rows.remove(request)
                yield self.row(request, tokens, step, began, first, deadline, "length")
            if rows:
                self.clock.sleep(pass_s(len(rows), tokens + step - 1))
                deadline.charge(tokens=len(rows))
                step += 1
        for request in rows:
            yield self.row(request, tokens, step, began, first, deadline, "deadline")

    def row(
        self, request: Request, prompt: int, tokens: int, began: float, first: float, deadline: Deadline,
        why: FinishReason,
    ) -> Completion:  # fmt: skip
        return Completion(
            request.problem_id, request.sample_index, "x", why, prompt, tokens, request.seed, began, began, first,
            deadline.elapsed_s, float(self.limit),
        )  # fmt: skip
