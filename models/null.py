"""The model plug-in `null`: generates nothing, on a schedule that is known beforehand.

It stands in for a model where the harness itself is measured: what a run of it costs beyond its schedule is the
harness's own, and a completion's true finish time is a number of steps times the length of a step.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

from harness.budgets import Deadline
from harness.errors import UserError, choices
from harness.nouns import Completion, Facts, FinishReason, Model, Request

Lengths = Literal["geometric", "uniform", "fixed"]

LENGTHS = ("geometric", "uniform", "fixed")
FILLER = "and so on " * 4096
CHARACTERS_PER_TOKEN = 4


def null(
    *,
    tokens: int = 64,
    lengths: Lengths = "geometric",
    seconds_per_step: float = 0.0,
    batch_size: int = 128,
    flops_per_token: float = 1e6,
    seed: int = 0,
) -> Model:
    """A model that only keeps time, to measure the harness itself.

    Args:
        tokens: mean length of a completion.
        lengths: how they are spread: `geometric`, `uniform` from 1 to twice the mean less 1, or `fixed`.
        seconds_per_step: how long a step of the whole batch takes; 0 waits for nothing.
        batch_size: rows in flight at most.
        flops_per_token: charged for each token that is generated.
        seed: of the lengths, beside each completion's own.

    Raises UserError when a setting means nothing.
    """
    if lengths not in LENGTHS:
        raise UserError(f"there is no spread of lengths '{lengths}'; write one of {choices(list(LENGTHS))}")
    for name, value, least in (("tokens", tokens, 1), ("batch_size", batch_size, 1)):
        if value < least:
            raise UserError(f"{name} must be at least {least}, got {value}; write for example 64")
    if not (0 <= seconds_per_step < math.inf and 0 <= flops_per_token < math.inf):
        raise UserError(
            f"seconds_per_step and flops_per_token must not be negative, got {seconds_per_step} and {flops_per_token}"
        )
    return Null(tokens, lengths, seconds_per_step, batch_size, flops_per_token, seed)


class Null:
    """A `harness.nouns.Model` whose rows step together and enter, in the order of the requests, as others leave.

    Each step charges a token for every row in flight, then waits for its end on the schedule, then yields the rows that
    end with it. Prompts are taken to have one token and to be read in no time.
    """

    def __init__(
        self, tokens: int, lengths: Lengths, seconds_per_step: float, batch_size: int, flops_per_token: float, seed: int
    ) -> None:
        self.name = "null"
        self.tokens, self.lengths, self.step_s = tokens, lengths, seconds_per_step
        self.batch_size, self.flops_per_token, self.seed = batch_size, flops_per_token, seed

    @property
    def facts(self) -> Facts:
        """What the manifest records of this engine."""
        return {
            "engine": "null",
            "tokens": self.tokens,
            "lengths": self.lengths,
            "seconds_per_step": self.step_s,
            "max_batch_size": self.batch_size,
        }

    def length(self, request: Request) -> int:
        """How many tokens a completion has, from its own seed alone."""
        mixed = (request.seed ^ (self.seed * 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9
        share = (mixed >> 11 & ((1 << 52) - 1)) * 2.0**-52
        if self.lengths == "fixed" or self.tokens == 1:
            drawn = self.tokens
        elif self.lengths == "uniform":
            drawn = 1 + int(share * (2 * self.tokens - 1))
        else:
            drawn = 1 + int(math.log1p(-share) / math.log1p(-1 / self.tokens))
        return drawn

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        """Yield each completion at its time; see `harness.nouns.Model`."""
        began = deadline.elapsed_s
        waiting = iter(requests)
        flying: dict[int, deque[tuple[Request, int, int]]] = {}
        """Rows by the step they end with: the request, its length, the step before its first."""
        rows = step = 0
        while not deadline.expired:
            while rows < self.batch_size and (request := next(waiting, None)) is not None:
                length = self.length(request)
                end = step + min(length, request.sampling.max_tokens)
                flying.setdefault(end, deque()).append((request, length, step))
                rows += 1
            if not rows:
                return
            step += 1
            deadline.charge(tokens=rows, flops=rows * self.flops_per_token)
            while self.step_s and deadline.elapsed_s < began + step * self.step_s:
                pass  # sleeping would end late by more than what is measured
            ended = flying.pop(step, ())
            yield from [self.completion(*row, step, began, deadline.elapsed_s, rows) for row in ended]
            rows -= len(ended)
        stopped_s = deadline.elapsed_s
        for cut in flying.values():
            yield from [self.completion(*row, step, began, stopped_s, rows) for row in cut if row[2] < step]

    def completion(
        self, request: Request, length: int, entered: int, step: int, began: float, now: float, rows: int
    ) -> Completion:
        """A row as it stands after a step."""
        tokens = step - entered
        reason: FinishReason = "deadline"
        if tokens == min(length, request.sampling.max_tokens):
            reason = "stop" if tokens == length else "length"
        text = FILLER[: CHARACTERS_PER_TOKEN * tokens]
        if reason == "stop":
            text += f"The answer is {request.seed % 10}."
        entered_s = began + entered * self.step_s if self.step_s else began
        return Completion(
            problem_id=request.problem_id,
            sample_index=request.sample_index,
            text=text,
            finish_reason=reason,
            prompt_tokens=1,
            completion_tokens=tokens,
            seed=request.seed,
            submitted_s=began,
            started_s=entered_s,
            first_token_s=min(now, entered_s + self.step_s),
            finished_s=now,
            batch_size=float(rows),
            prefill_flops=0.0,
            decode_flops=tokens * self.flops_per_token,
        )
