"""Grouped-query causal attention with rotary positions, over whole texts or one token at a time."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .kernels import cpu
from .passes import LayerState, Span, Step
from .rope import Rotation, rotate


class Attention(nn.Module):
    """Rows of `in_proj` are [q | k | v], heads contiguous; `out_proj` joins the heads.

    `n_heads` query heads share `n_kv_heads` key and value heads (arXiv 2305.13245), head h using h // (n_heads /
    n_kv_heads); scores are scaled by head_dim^-1/2.
    """

    def __init__(self, width: int, n_heads: int, n_kv_heads: int, head_dim: int, *, bias: bool, out_bias: bool) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, head_dim
        self.attention_width, self.scan_flops = n_heads * head_dim, 0
        self.in_proj = nn.Linear(width, (n_heads + 2 * n_kv_heads) * head_dim, bias=bias)
        self.out_proj = nn.Linear(n_heads * head_dim, width, bias=out_bias)

    def split(self, projected: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (b, L, n_heads, head_dim), keys and values (b, L, n_kv_heads, head_dim), the positions in them."""
        heads = projected.unflatten(-1, (-1, self.head_dim))
        turned, values = heads.split((self.n_heads + self.n_kv_heads, self.n_kv_heads), dim=2)
        if rotation is not None:
            turned = rotate(turned, rotation)
        queries, keys = turned.split((self.n_heads, self.n_kv_heads), dim=2)
        return queries, keys, values

    def forward(self, u: Tensor, span: Span) -> tuple[Tensor, LayerState]:
        """(b, L, width) to (b, L, width); keys and values (b, n_kv_heads, L, head_dim) with the positions in them."""
        queries, keys, values = (heads.transpose(1, 2) for heads in self.split(self.in_proj(u), span.rotation))
        y = scaled_dot_product_attention(
            queries, keys, values, is_causal=True, enable_gqa=self.n_heads != self.n_kv_heads
        )
        return self.out_proj(y.transpose(1, 2).flatten(2)), (keys, values)

    def step(self, u: Tensor, state: LayerState, step: Step) -> Tensor:
        """(b, width) to (b, width); the new keys and values are written into the state."""
        projected, (keys, values) = self.in_proj(u), state
        y = None
        if not keys.is_cuda:
            y = cpu.attention_step(projected, step.rotation, keys, values, step.positions, step.sharing, self.n_heads)
        if y is None:
            y = self.attend(projected, keys, values, step)
        out: Tensor = self.out_proj(y)
        return out

    def attend(self, projected: Tensor, keys: Tensor, values: Tensor, step: Step) -> Tensor:
        """What stands between the projections in `step`: (b, (n_heads + 2 n_kv_heads) * head_dim) to (b, heads)."""
        heads = self.split(projected[:, None], step.rotation)
        queries, new_keys, new_values = (part.squeeze(1) for part in heads)
        if keys.is_cuda:
            from .kernels.decode_attention import decode_attention, write_columns

            write_columns(keys, values, new_keys, new_values, step.positions)
            return decode_attention(queries, keys, values, step.positions + 1, self.head_dim**-0.5).flatten(1)
        keys[step.rows, :, step.positions] = new_keys
        values[step.rows, :, step.positions] = new_values
        # The query heads of a group stand side by side as if they were tokens, so that their keys are read once.
        grouped = queries.unflatten(1, (self.n_kv_heads, -1))
        keys, values = keys[:, :, : step.columns], values[:, :, : step.columns]
        if step.visible is not None:
            # Columns that a row has not written may hold anything, and not even a weight of 0 hides a NaN.
            keys, values = (tensor.where(step.visible.mT, 0) for tensor in (keys, values))
        return scaled_dot_product_attention(grouped, keys, values, attn_mask=step.visible).flatten(1)

    def empty_state(self, slots: int, columns: int, state_dtype: torch.dtype) -> LayerState:
        """Room for `columns` tokens in each of `slots` rows, in the model's dtype."""
        weight = self.in_proj.weight
        shape = (slots, self.n_kv_heads, columns, self.head_dim)
        return weight.new_empty(shape), weight.new_empty(shape)
