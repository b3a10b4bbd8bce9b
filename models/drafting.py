"""From asks to rows and from rows that have ended to drafts: what the engines that go on with replies share."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.budgets import Deadline
from harness.nouns import Completion, Prompt
from harness.running.drafts import Ask, Draft

from . import text
from .rows import Row, new_row, refused

Key = tuple[int, int]


@dataclass(slots=True)
class Tally:
    """Tokens of the texts that were gone on with, for the manifest.

    `read` were read as a prompt is, `stepped` one by one from a kept state, `reused` not at all; a text that several
    rows go on with at once counts once.
    """

    read: int = 0
    stepped: int = 0
    reused: int = 0


@dataclass(slots=True)
class Landed:
    """What a row had written when it came to its end, and what the engine keeps of it."""

    token_ids: Sequence[int]
    state: Any


class Drafting:
    """One call of an engine's `extend`.

    Args:
        waiting: asks, to which more may be added at any time.
        tokenizer: the engine's.
        ends: token ids that end a reply.
        context: the model's longest text in tokens, None where there is none.
    """

    def __init__(self, waiting: deque[Ask], tokenizer: Any, ends: frozenset[int], context: int | None) -> None:
        self.waiting, self.tokenizer, self.ends, self.context = waiting, tokenizer, ends, context
        self.asks: dict[Key, Ask] = {}
        self.rows_of: dict[Key, Row] = {}
        self.prompts: dict[Prompt, tuple[int, ...]] = {}
        self.landed: dict[Key, Landed] = {}
        self.refusals: list[Row] = []
        self.later: list[Row] = []
        """Rows for which the batch in flight is not made."""

    def take(self, deadline: Deadline) -> list[Row]:
        """Rows for everything that waits; one that the context has no room for is put aside."""
        rows, self.later = self.later, []
        while self.waiting:
            row = self.row(self.waiting.popleft(), deadline.elapsed_s)
            (rows if row.limit > 0 else self.refusals).append(row)
        return rows

    def row(self, ask: Ask, now: float) -> Row:
        """The ask as a row whose prompt is everything before what is to be written."""
        prompt = self.prompt_ids(ask.request.prompt)
        added = self.tokenizer(ask.draft.added, add_special_tokens=False)["input_ids"] if ask.draft.added else ()
        row = new_row(ask.request, (*prompt, *ask.draft.token_ids, *added), self.context, now)
        room = len(prompt) + ask.longest
        row.room = min(room, self.context) if self.context else room
        row.fork = ask.draft.state
        key = ask.request.sample_index, row.seed
        self.asks[key], self.rows_of[key] = ask, row
        return row

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a problem's prompt, remembered."""
        if prompt not in self.prompts:
            self.prompts[prompt] = text.encode(self.tokenizer, prompt)
        return self.prompts[prompt]

    def note_state(self, row: Row, state: Any) -> None:
        """Keep with a draft what its text was read to, for whoever goes on with it again."""
        self.asks[row.request.sample_index, row.seed].draft.state = state

    def land(self, row: Row, token_ids: Sequence[int], state: Any) -> None:
        """Take what a row has written; its completion follows."""
        self.landed[row.request.sample_index, row.seed] = Landed(token_ids, state)

    def draft(self, completion: Completion) -> Draft:
        """The draft that a completion makes."""
        key = completion.sample_index, completion.seed
        ask, row = self.asks.pop(key), self.rows_of.pop(key)
        landed = self.landed.pop(key, Landed((), None))
        ids = list(landed.token_ids)
        ended = bool(ids) and ids[-1] in self.ends
        written = ids[:-1] if ended else ids
        reply = (*row.prompt_ids[len(self.prompt_ids(ask.request.prompt)) :], *written)
        piece = text.decode(self.tokenizer, written)
        whole = text.decode(self.tokenizer, reply)
        place = text.find_stop(piece, ask.ends) if ask.ends else -1
        if place >= 0:
            whole, ended = whole[: len(whole) - len(piece) + place], True
        if completion.finish_reason in ("length", "deadline"):
            whole = whole.rstrip(text.REPLACEMENT)
        return ask.longer(replace(completion, text=piece), whole, reply, ended=ended, state=landed.state)

    def refused(self, deadline: Deadline) -> Iterator[Draft]:
        """What could not be served."""
        refusals, self.refusals = self.refusals, []
        for row in refusals:
            yield self.draft(refused(row, self.context, deadline))
