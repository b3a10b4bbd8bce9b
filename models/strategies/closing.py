"""Making a thought end: what the strategies that force an answer have in common."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.errors import UserError
from harness.running.drafts import Draft
from harness.running.strategies import SPARE_TOKENS, Search

from .guiding import unescaped


@dataclass(frozen=True, slots=True)
class Closing:
    """How a thought is closed: `text` is put behind it, and what follows up to `until` is the answer.

    `tokens` are the most that an answer may have, `reserve` is the share of the budget that is kept for it.
    """

    text: str
    until: str
    tokens: int
    reserve: float

    def answers(self, search: Search, thoughts: Sequence[Draft]) -> Iterator[Draft]:
        """The thoughts with the answers that they led to, as far as the deadline lets them have any."""
        if not thoughts or search.deadline.expired:
            return iter(())
        closed = [thought.plus(self.text) for thought in thoughts]
        streams = [thought.stream for thought in thoughts]
        return search.extend(closed, stop=(self.until,), max_tokens=self.tokens, streams=streams)


def closing_of(close: str, until: str, answer_tokens: int, reserve: float) -> Closing:
    """A closing from options. Raises UserError for those that mean nothing."""
    if not close or not until:
        raise UserError("close and until must not be empty: the text before an answer and the one that ends it")
    if not 1 <= answer_tokens <= SPARE_TOKENS:
        raise UserError(f"answer_tokens must be 1 to {SPARE_TOKENS}, got {answer_tokens}")
    if not 0 <= reserve < 1:
        raise UserError(f"reserve is the share of the budget that is kept for answers, 0 to below 1, got {reserve:g}")
    return Closing(unescaped(close), unescaped(until), answer_tokens, reserve)
