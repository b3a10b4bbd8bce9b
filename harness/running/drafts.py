"""Replies that are not finished yet: what a strategy holds, and what an engine is asked to go on with.

An engine that can go on with a reply offers `extend(waiting, deadline)`: it takes `Ask`s off the left of `waiting`, a
deque to which more may be added meanwhile, and yields the longer drafts as each comes to an end, until nothing waits
and nothing is under way. At the deadline it yields what is under way, with the ending `deadline`; an ask that was never
begun is not yielded. A stop string ends a piece and stays in it. `forget()`, if it has one, is called between problems.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from harness.budgets import Deadline
from harness.nouns import Completion, FinishReason, Request


@dataclass(slots=True, eq=False)
class Draft:
    """A reply as far as it is written; it may be gone on with any number of times.

    `text` is all of it and `added` its end that no model has read yet. `token_ids` are those it was drawn as, which are
    never tokenised again; an engine that works on texts has none. `ending` says why it cannot go on, and is None where
    it can: at a stop string, or after as many tokens as were asked for. `pieces` are the completions it was written in;
    `state` is what the engine keeps of it, to go on without reading it again. `stream` and the number of pieces name
    its random stream.
    """

    text: str = ""
    added: str = ""
    token_ids: tuple[int, ...] = ()
    ending: FinishReason | None = None
    pieces: tuple[Completion, ...] = ()
    stream: int = 0
    state: Any = None

    @property
    def tokens(self) -> int:
        """How many the model wrote of it."""
        return sum(piece.completion_tokens for piece in self.pieces)

    @property
    def finished_s(self) -> float:
        """When its last piece came to its end, on the scope's clock."""
        return self.pieces[-1].finished_s if self.pieces else 0.0

    def plus(self, text: str) -> "Draft":
        """The same with a text at its end that the model is to read before it goes on; it may go on again."""
        added = self.added + text
        return Draft(self.text + text, added, self.token_ids, None, self.pieces, self.stream, self.state)


@dataclass(frozen=True, slots=True)
class Ask:
    """A draft to go on with, and how.

    The request has the problem's prompt, the draft's next random stream, the stop strings and the most tokens of this
    piece. `ends` are those of the stop strings that end the reply, and are no part of it; `left` is how many tokens it
    may still have, and `longest` how many it may ever come to, all that was put into it included.
    """

    draft: Draft
    request: Request
    ends: tuple[str, ...]
    left: int
    longest: int

    def longer(
        self, piece: Completion, text: str, token_ids: tuple[int, ...] = (), *, ended: bool, state: Any = None
    ) -> Draft:
        """The draft that came of it.

        Args:
            piece: what was written, with its times and costs.
            text: the whole reply.
            token_ids: the whole reply's, without an end token.
            ended: whether the reply is over, by the model's own end or one of `ends`, and not at a stop string.
            state: what the engine keeps.
        """
        ending: FinishReason | None = piece.finish_reason
        is_whole = ending == "length" and piece.completion_tokens == self.request.sampling.max_tokens < self.left
        if is_whole or (ending == "stop" and not ended):
            ending = None
        pieces = (*self.draft.pieces, piece)
        return Draft(text, "", token_ids, ending, pieces, self.request.sample_index, state)


class Extender(Protocol):
    """An engine that can go on with a reply."""

    def extend(self, waiting: deque[Ask], deadline: Deadline) -> Iterator[Draft]:
        """See this module."""
        ...


def completion_of(draft: Draft, sample_index: int, seed: int, dropped: bool = False) -> Completion:
    """A draft as one row, with the tokens and FLOPs of its own path; it has at least one piece.

    What was spent beside that path, on continuations that were given up, is in `spent_flops` and `spent_tokens`.
    """
    first, last = draft.pieces[0], draft.pieces[-1]
    tokens = draft.tokens
    logprobs = [piece.logprob for piece in draft.pieces]
    rows = sum(piece.batch_size * max(1, piece.completion_tokens) for piece in draft.pieces)
    begun = [piece.first_token_s for piece in draft.pieces if piece.first_token_s is not None]
    return Completion(
        problem_id=first.problem_id,
        sample_index=sample_index,
        text=draft.text,
        finish_reason="dropped" if dropped else draft.ending or "stop",
        prompt_tokens=first.prompt_tokens,
        completion_tokens=tokens,
        seed=seed,
        submitted_s=first.submitted_s,
        started_s=first.started_s,
        first_token_s=begun[0] if begun else None,
        finished_s=last.finished_s,
        batch_size=rows / sum(max(1, piece.completion_tokens) for piece in draft.pieces),
        prefill_flops=sum(piece.prefill_flops for piece in draft.pieces),
        decode_flops=sum(piece.decode_flops for piece in draft.pieces),
        logprob=None if None in logprobs else sum(one for one in logprobs if one is not None),
        error=last.error,
        spent_flops=last.spent_flops,
        spent_tokens=last.spent_tokens,
    )
