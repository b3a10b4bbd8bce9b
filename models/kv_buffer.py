"""A key-value cache that grows in blocks, for the stepwise engine.

Transformers' own dynamic cache copies all keys and values at every step to append one column; on a CPU the fresh memory
that this takes can cost more than the model.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

BLOCK = 64
"""Columns by which a buffer grows."""


class BufferedLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one attention layer, each a view on the filled columns of a larger buffer.

    The class that the library's attention layers expect; of its operations only `update` and `reorder_cache` keep the
    buffers, and a stepwise engine uses no other. Shapes: (B, KV heads, columns, head_dim).
    """

    buffers: tuple[Tensor, Tensor]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append columns; all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = key_states[:, :, :0], value_states[:, :, :0]
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if end > self.buffers[0].shape[2]:
            keys, values = self.buffers
            self.buffers = enlarged(keys, start, end + BLOCK), enlarged(values, start, end + BLOCK)
        self.buffers[0][:, :, start:end] = key_states
        self.buffers[1][:, :, start:end] = value_states
        return self.show(end)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make row i a copy of row `beam_idx[i]`: fans out, drops and permutes rows."""
        keys, values = self.buffers
        self.buffers = keys.index_select(0, beam_idx), values.index_select(0, beam_idx)
        self.show(self.get_seq_length())

    def show(self, columns: int) -> tuple[Tensor, Tensor]:
        """Set and return the views on the filled columns."""
        self.keys, self.values = self.buffers[0][:, :, :columns], self.buffers[1][:, :, :columns]
        return self.keys, self.values


def enlarged(buffer: Tensor, filled: int, columns: int) -> Tensor:
    """A buffer of `columns` columns that begins with the first `filled` ones of `buffer`."""
    rows, heads, _, width = buffer.shape
    larger = torch.empty(rows, heads, columns, width, dtype=buffer.dtype, device=buffer.device)
    larger[:, :, :filled] = buffer[:, :, :filled]
    return larger


def new_cache(config: Any) -> Any:
    """An empty cache for a model's text config: buffered for plain attention layers, the library's own for others."""
    cache = DynamicCache(config=config)
    cache.layers = [BufferedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
