"""When a text that is being generated is at its end, and what of it is then shown: end tokens, stop strings, limits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.nouns import FinishReason

from . import text


class Endings:
    """The ends of one model's texts.

    Args:
        tokenizer: a transformers tokenizer.
        ends: token ids that end a text; they count as generated and are not shown.
        vocab_size: of the model's logits, V.
        device: where the tables are wanted.
    """

    def __init__(self, tokenizer: Any, ends: frozenset[int], vocab_size: int, device: torch.device) -> None:
        self.tokenizer, self.ends, self.vocab_size, self.device = tokenizer, ends, vocab_size, device
        self.is_end = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        """(V,) bool."""
        self.is_end[[token for token in ends if token < vocab_size]] = True
        self.completing: dict[tuple[str, ...], Tensor] = {}

    def may_complete(self, stop: tuple[str, ...]) -> Tensor:
        """(V,) bool, remembered: may this token complete one of the stop strings?"""
        if stop not in self.completing:
            flags = text.may_complete(self.tokenizer, stop, self.vocab_size)
            self.completing[stop] = torch.tensor(flags, device=self.device)
        return self.completing[stop]

    def table(self, stops: Sequence[tuple[str, ...]]) -> Tensor | None:
        """(stop classes, V) bool, `may_complete` of each; None where no class has a stop string."""
        return torch.stack([self.may_complete(stop) for stop in stops]) if any(stops) else None

    def reason(self, ids: Sequence[int], stop: tuple[str, ...], limit: int) -> FinishReason | None:
        """Why a text ended with its last token, or None when it goes on."""
        if ids[-1] in self.ends or text.is_stopped(self.tokenizer, ids, stop):
            return "stop"
        return "length" if len(ids) >= limit else None

    def shown(self, ids: Sequence[int], stop: tuple[str, ...], *, cut: bool) -> str:
        """The text of generated ids; at a cut, without half a character."""
        written = ids[:-1] if ids and ids[-1] in self.ends else ids
        return text.finished_text(self.tokenizer, written, stop, cut=cut)
