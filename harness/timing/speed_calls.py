"""Times of an engine read off what it says of its completions: any engine, no knowledge of what is inside.

A prompt has exactly as many tokens as wanted where the engine's tokenizer allows it; the number it came to is what is
recorded. Every call has a prompt that no earlier one had, so that nothing is found in a prefix cache.
"""

import statistics
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from harness.budgets import Budget, Clock, Deadline
from harness.nouns import Completion, Model, Request, Sampling

FITTING_CALLS = 6
"""Calls at most in search of a prompt of a wanted length."""


class Timed(NamedTuple):
    """One measurement: the context it came to, seconds of a prefill or a mean pass, seconds of a row that ends."""

    context: int
    seconds: float
    finish_s: float | None = None


@dataclass(slots=True)
class Calls:
    """Times calls of one engine's `generate`."""

    model: Model
    sampling: Sampling
    clock: Clock
    number: int = field(default=0, init=False)
    """Prompts made so far."""
    words: dict[int, int] = field(default_factory=dict, init=False)
    """By wanted tokens, the words that come nearest."""

    def prefill(self, batch: int, prompt: int, generated: int) -> Timed | None:
        """From the call to the first token of `batch` samples of one prompt; None when not all of them were begun.

        Each row asks for `generated` tokens, as it would in a bench, and a budget of one token each ends the call.
        """
        requests = self.requests(self.prompt(prompt), batch, generated)
        prepare(self.model, requests)
        rows = list(self.model.generate(requests, Budget(batch, "tokens").start(self.clock)))
        first = [row.first_token_s for row in rows if row.first_token_s is not None]
        return Timed(rows[0].prompt_tokens, max(first)) if len(first) == batch else None

    def decode(self, batch: int, context: int, passes: int) -> Timed | None:
        """A mean pass around a context; None when the engine could not run so many rows to so many tokens at once.

        Rows of `passes` + 1 tokens after a prompt that is half of them shorter than the context.
        """
        requests = self.requests(self.prompt(max(1, context - passes // 2)), batch, passes + 1)
        prepare(self.model, requests)
        rows = list(self.model.generate(requests, Deadline(None, self.clock)))
        whole = [row for row in rows if row.completion_tokens == passes + 1 and row.first_token_s is not None]
        together = statistics.fmean(row.batch_size for row in rows) > batch - 0.5 if rows else False
        if len(whole) < batch or not together:
            return None
        began = max(row.first_token_s or 0.0 for row in whole)
        ends = sorted(row.finished_s for row in whole)
        finish_s = (ends[-1] - ends[0]) / (batch - 1) if batch > 1 else None
        pass_s = (ends[0] - began - (finish_s or 0.0)) / passes  # the first row's own end is no pass
        return Timed(whole[0].prompt_tokens + passes // 2, pass_s, finish_s)

    def requests(self, prompt: str, batch: int, tokens: int) -> list[Request]:
        """`batch` samples of a prompt that asks for so many tokens each."""
        sampling = replace(self.sampling, max_tokens=tokens)
        return [Request(f"speed-{self.number}", index, prompt, sampling) for index in range(batch)]

    def prompt(self, tokens: int) -> str:
        """A new prompt of about so many tokens."""
        if tokens not in self.words:
            self.words[tokens] = self.fit(tokens)
        return self.text(self.words[tokens])

    def text(self, words: int) -> str:
        """A text of so many words that begins like no other."""
        self.number += 1
        return f"{self.number:07d}" + " a" * words

    def fit(self, tokens: int) -> int:
        """The number of words whose text comes nearest to so many tokens, by secants; texts grow evenly."""
        tried: dict[int, int] = {}
        words = tokens
        for _ in range(FITTING_CALLS):
            found = self.count(words)
            if found is None or found == tokens:
                return words
            tried[words] = found
            if len(tried) == 1:
                words = tokens // 2
            else:
                (one, few), (other, many) = list(tried.items())[-2:]
                words = max(0, words + round((tokens - found) * (other - one) / ((many - few) or 1)))
            if words in tried:
                break
        return min(tried, key=lambda each: abs(tried[each] - tokens))

    def count(self, words: int) -> int | None:
        """The tokens of a text of so many words, as the engine counts them; None when it cannot read it."""
        requests = self.requests(self.text(words), 1, 1)
        rows: list[Completion] = list(self.model.generate(requests, Deadline(None, self.clock)))
        return rows[0].prompt_tokens if rows and rows[0].finish_reason != "error" else None


def prepare(model: Model, requests: list[Request]) -> None:
    """Let an engine allocate and compile what these requests need, outside the clock."""
    if hasattr(model, "prepare"):
        model.prepare([requests])
