"""The states of prompts that are read once and wait for the rest of their samples."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .architectures.passes import LayerState

PromptIds = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prompt's states, one row each, and the logits (1, V) of its next token."""

    states: Sequence[LayerState]
    logits: Tensor

    @property
    def num_bytes(self) -> int:
        """What it occupies."""
        return sum(tensor.nbytes for state in self.states for tensor in state) + self.logits.nbytes


class Prefixes:
    """Prompts that have been read, kept while more of their samples wait and `max_bytes` allow it."""

    def __init__(self, prompts: Iterable[PromptIds], max_bytes: int) -> None:
        self.waiting = Counter(prompts)
        """Samples of each prompt that wait."""
        self.kept: dict[PromptIds, Prefix] = {}
        self.free_bytes = max_bytes

    def keep(self, prompt: PromptIds, states: Sequence[LayerState], logits: Tensor, row: int) -> None:
        """Keep one row of a prefilled batch if samples wait for it and there is room."""
        if not self.waiting[prompt]:
            return
        place = slice(row, row + 1)
        copies = [tuple(tensor[place].clone() for tensor in state) for state in states]
        prefix = Prefix(copies, logits[place].clone())
        if prefix.num_bytes <= self.free_bytes:
            self.kept[prompt] = prefix
            self.free_bytes -= prefix.num_bytes

    def tidy(self) -> None:
        """Forget the prompts for which nothing waits."""
        for prompt in [prompt for prompt in self.kept if not self.waiting[prompt]]:
            self.free_bytes += self.kept.pop(prompt).num_bytes
