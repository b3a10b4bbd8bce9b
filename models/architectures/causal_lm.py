"""A causal language model of any family: embedding, blocks, norm, head; and the state of the texts it is writing."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .blocks import Block, Mixer
from .passes import LayerState, Span, Step
from .rope import Rotary


class CausalLM(nn.Module):
    """Token ids in, logits out; three passes of the same weights.

    `forward` reads whole texts and is differentiable; `prefill` reads prompts and keeps the states after them; `step`
    takes the next token of every row, and its cost does not depend on how many came before in a state-space layer.

    Shapes: `b` rows, `L` tokens, `V` vocabulary. A head that is tied to the embedding shares its Parameter.
    """

    def __init__(self, embedding: nn.Embedding, blocks: Sequence[Block], norm: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.embedding = embedding
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.head = head
        self.rotary: Rotary | None = None

    def forward(self, token_ids: Tensor) -> Tensor:
        """Logits (b, L, V) of every next token, for token ids (b, L)."""
        logits: Tensor = self.head(self.norm(self.read(token_ids, None)[0]))
        return logits

    def prefill(self, token_ids: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, list[LayerState]]:
        """Read prompts that are padded on the right.

        Args:
            token_ids: (b, L); what stands in the padding does not matter.
            lengths: (b,) true lengths of at least 1; None when nothing is padded.

        Returns:
            Logits (b, V) of the token after each prompt, and every layer's state.
        """
        h, states = self.read(token_ids, lengths)
        last = h[:, -1] if lengths is None else h[torch.arange(len(h), device=h.device), lengths - 1]
        return self.head(self.norm(last)), states

    def read(self, token_ids: Tensor, lengths: Tensor | None) -> tuple[Tensor, list[LayerState]]:
        """The residual stream (b, L, width) after the last block, and every layer's state."""
        places = torch.arange(token_ids.shape[1], device=token_ids.device)
        rotation = None if self.rotary is None else self.rotary(places[None])
        real = None if lengths is None else (places < lengths[:, None])[..., None]
        span = Span(rotation, lengths, real)
        h = self.embedding(token_ids)
        states = []
        for block in self.blocks:
            h, state = block(h, span)
            states.append(state)
        return h, states

    def step(
        self,
        token_ids: Tensor,
        positions: Tensor,
        states: list[LayerState],
        columns: int,
        ragged: bool,
        sharing: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Logits (b, V) after one more token of every row.

        Args:
            token_ids: (b,).
            positions: (b,) how many tokens of the row came before.
            states: buffers of b rows, updated in place; attention's have more columns than any position.
            columns: the largest position and one.
            ragged: whether positions differ.
            sharing: rows that begin alike, see `Step`; it changes where memory is read and nothing else.
        """
        rotation = None if self.rotary is None else self.rotary(positions[:, None])
        rows = torch.arange(len(token_ids), device=token_ids.device)
        visible = None
        if ragged and not token_ids.is_cuda:  # the GPU's kernel goes by the positions
            visible = (torch.arange(columns, device=token_ids.device) <= positions[:, None])[:, None, None]
        if sharing is None:
            sharing = rows, torch.zeros_like(rows)
        step = Step(rotation, rows, positions, columns, visible, sharing)
        h = self.embedding(token_ids)
        for block, state in zip(self.blocks, states, strict=True):
            h = cast(Block, block).step(h, state, step)
        logits: Tensor = self.head(self.norm(h))
        return logits

    def empty_states(self, slots: int, columns: int, state_dtype: torch.dtype = torch.float32) -> list[LayerState]:
        """Room for `slots` rows of at most `columns` tokens; recurrent states are kept in `state_dtype`."""
        return [mixer.empty_state(slots, columns, state_dtype) for mixer in self.mixers]

    @property
    def mixers(self) -> list[Mixer]:
        """Every block's mixer, in order."""
        return [cast(Block, block).mixer for block in self.blocks]
