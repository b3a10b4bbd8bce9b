"""States that are kept of texts, and how decoding goes on from them: copies of keys and values, or of a small state.

A fork is the state after some tokens of a text. Going on means reading the tokens after them, few as they are, one by
one in decode passes, side by side for all texts that go on together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakSet

import torch
from torch import Tensor

from .architectures.causal_lm import CausalLM
from .architectures.passes import LayerState
from .flops import ForwardFlops
from .prefixes import Prefix, PromptIds
from .slots import Slots


@dataclass(frozen=True, eq=False)
class Fork:
    """One row of states after `token_ids`, and the logits (1, V) of the next token where they were computed."""

    token_ids: PromptIds
    states: Sequence[LayerState]
    logits: Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """What it occupies."""
        return sum(tensor.nbytes for state in self.states for tensor in state)

    def leads_to(self, token_ids: PromptIds) -> bool:
        """Whether a text that begins with its tokens is this one, and something is left to read or its logits are."""
        read = len(self.token_ids)
        return self.token_ids == token_ids[:read] and (read < len(token_ids) or self.logits is not None)


class Forks:
    """The forks of one engine that somebody still holds; they may occupy `max_bytes`.

    `dropped` counts those for which there was no room, whose texts are read again.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.dropped = max_bytes, 0
        self.alive: WeakSet[Fork] = WeakSet()

    def admit(self, fork: Fork) -> Fork | None:
        """The fork if there is room for it."""
        if fork.num_bytes + sum(one.num_bytes for one in self.alive) > self.max_bytes:
            self.dropped += 1
            return None
        self.alive.add(fork)
        return fork

    def of_slot(self, token_ids: PromptIds, slots: Slots, place: int) -> Fork | None:
        """A copy of the state of a row in flight, which is that after `token_ids`."""
        return self.admit(Fork(token_ids, copied(slots.states, place, slots.grows, len(token_ids))))

    def of_prefix(self, token_ids: PromptIds, prefix: Prefix, row: int, grows: Sequence[bool]) -> Fork | None:
        """A copy of one row of texts that have just been read."""
        states = copied(prefix.states, row, grows, len(token_ids))
        return self.admit(Fork(token_ids, states, prefix.logits[row : row + 1].clone()))


def copied(states: Sequence[LayerState], row: int, grows: Sequence[bool], columns: int) -> list[LayerState]:
    """One row of states, of keys and values as many columns as are filled."""
    one = slice(row, row + 1)
    return [
        tuple((tensor[one, :, :columns] if grow else tensor[one]).clone() for tensor in state)
        for state, grow in zip(states, grows, strict=True)
    ]


@torch.inference_mode()
def go_on(
    model: CausalLM,
    slots: Slots,
    forks: Sequence[Fork],
    texts: Sequence[PromptIds],
    may_pass: Callable[[int, int], bool],
) -> Prefix | None:
    """The states and next logits of texts that begin with forks, one row each; None when it was broken off.

    Args:
        model: reads what is left of the texts.
        slots: whose dtypes the states get.
        forks: where each text goes on from; it leads to the text.
        texts: token ids.
        may_pass: told before each pass how many rows it has and the sum of their contexts, its own tokens included;
            says whether there is time for it.
    """
    order = sorted(range(len(texts)), key=lambda place: len(forks[place].token_ids) - len(texts[place]))
    states = side_by_side([forks[place] for place in order], slots, max(map(len, texts)))
    rest = [texts[place][len(forks[place].token_ids) :] for place in order]
    known = [forks[place].logits for place in order]
    rows: list[Tensor | None] = [None if left else one for one, left in zip(known, rest, strict=True)]
    device = slots.rows.device
    for step in range(len(rest[0])):
        # Those with more to read stand first.
        count = sum(step < len(left) for left in rest)
        befores = [len(forks[order[row]].token_ids) + step for row in range(count)]
        if not may_pass(count, sum(befores) + count):
            return None
        logits = model.step(
            torch.tensor([left[step] for left in rest[:count]], device=device),
            torch.tensor(befores, device=device),
            [tuple(tensor[:count] for tensor in state) for state in states],
            max(befores) + 1,
            ragged=max(befores) > min(befores),
        )
        for row in range(count):
            if step == len(rest[row]) - 1:
                rows[row] = logits[row : row + 1].clone()
    back = torch.tensor([order.index(place) for place in range(len(order))], device=device)
    ordered = torch.cat([row for row in rows if row is not None])
    return Prefix([tuple(tensor[back] for tensor in state) for state in states], ordered[back])


def side_by_side(forks: Sequence[Fork], slots: Slots, columns: int) -> list[LayerState]:
    """The forks' states as rows of common tensors, with room for `columns` tokens where they grow with the text."""
    joined = []
    for layer, (buffers, grows) in enumerate(zip(slots.states, slots.grows, strict=True)):
        tensors = []
        for part, buffer in enumerate(buffers):
            shape = [len(forks), *buffer.shape[1:]]
            if grows:
                shape[2] = columns
            tensor = buffer.new_zeros(shape)
            for row, fork in enumerate(forks):
                own = fork.states[layer][part]
                tensor[row : row + 1, :, : own.shape[2]] = own
            tensors.append(tensor)
        joined.append(tuple(tensors))
    return joined


def flops_of(cost: ForwardFlops, fork: Fork, text: PromptIds) -> float:
    """FLOPs of reading what a fork leaves of a text."""
    return cost.decode_row(len(fork.token_ids), len(text) - len(fork.token_ids))
