"""Discrete Mamba-2, Llamba's mixer, on vLLM's Mamba-2 kernels (arXiv 2408.10189, 2502.14458).

    [z | x | B | C | a] = in_proj u        [x | B | C] = conv(...)        Delta_t = softplus(a_t)
    h_t = exp(-Delta_t) h_{t-1} + x_t B_t^T        y_t = h_t C_t + D x_t        out = out_proj(y * silu(z + z_bias))

The kernels compute h_t = exp(Delta_t A) h_{t-1} + Delta_t x_t B_t^T, so they are given A = -1 and x / Delta, and D x is
added by hand. vLLM holds the convolution's last columns and the states; decoding requests come first in a batch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus
from vllm.config import VllmConfig
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.mamba.abstract import MambaBase
from vllm.model_executor.layers.mamba.mamba_mixer2 import MambaMixer2
from vllm.model_executor.layers.mamba.mamba_utils import is_conv_state_dim_first
from vllm.model_executor.layers.mamba.ops.causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from vllm.model_executor.layers.mamba.ops.ssd_combined import mamba_chunk_scan_combined_varlen
from vllm.model_executor.layers.mamba.ops.ssu_dispatch import selective_state_update
from vllm.model_executor.model_loader.weight_utils import sharded_weight_loader
from vllm.model_executor.utils import set_weight_attrs
from vllm.utils.torch_utils import _encode_layer_name
from vllm.v1.kv_cache_interface import KVCacheSpec

LEAST_STEP = 1e-30
"""Below it x / Delta would overflow; a token with so small a step forgets nothing anyway."""


class DiscreteMamba2Mixer(MambaMixer2):  # type: ignore[misc]
    """vLLM's Mamba-2 layer with another recurrence; tensor parallelism, state cache and graphs are its own.

    `ssm` holds every field of a Llamba's `ssm_cfg`. Raises ValueError in float16, whose range x / Delta leaves.
    """

    def __init__(self, vllm_config: VllmConfig, ssm: dict[str, Any], prefix: str) -> None:
        width = vllm_config.model_config.hf_config.hidden_size
        inner = ssm["expand"] * width
        if vllm_config.model_config.dtype == torch.float16:
            raise ValueError("a Llamba does not run in float16, whose range is too small for it; use bfloat16")
        super().__init__(
            hidden_size=width,
            ssm_state_size=ssm["d_state"],
            conv_kernel_size=ssm["d_conv"],
            intermediate_size=inner,
            use_conv_bias=ssm.get("conv_bias", True),
            use_bias=ssm.get("bias", False),
            n_groups=ssm["n_qk_heads"],
            num_heads=ssm["n_v_heads"],
            head_dim=inner // ssm["n_v_heads"],
            activation="silu" if ssm.get("activation") in ("silu", "swish") else None,
            use_rms_norm=False,
            model_config=vllm_config.model_config,
            cache_config=vllm_config.cache_config,
            quant_config=vllm_config.quant_config,
            prefix=prefix,
        )
        heads = self.tped_dt_size
        del self.A, self.dt_bias
        self.register_buffer("A", -torch.ones(heads, dtype=torch.float32), persistent=False)
        self.register_buffer("zeros", torch.zeros(heads, dtype=torch.float32), persistent=False)
        self.D = sharded(torch.ones(heads, dtype=torch.float32))
        # Where in_proj has a bias, the gate's is part of it.
        self.z_bias = None if ssm.get("bias") else sharded(torch.zeros(self.tped_intermediate_size))

    def forward(self, positions: Tensor, hidden: Tensor) -> Tensor:
        """(T, width) to (T, width)."""
        projected, _ = self.in_proj(hidden)
        y = torch.empty_like(projected[..., : self.tped_intermediate_size])
        torch.ops.vllm.mamba_mixer2(projected, y, _encode_layer_name(self.prefix))
        z = projected[..., : self.tped_intermediate_size].float()
        gate = silu(z if self.z_bias is None else z + self.z_bias)
        out: Tensor = self.out_proj((y * gate).to(hidden.dtype))[0]
        return out

    def conv_ssm_forward(self, projected_states: Tensor, output: Tensor) -> None:
        """Fill `output` (T, inner) from the projections (T, 2 inner + 2 G N + H); vLLM's operator calls it."""
        widths = (self.tped_intermediate_size, self.tped_conv_size, self.tped_dt_size)
        _, columns, a = projected_states.split(widths, dim=-1)
        metadata = get_forward_context().attn_metadata
        if metadata is None:  # vLLM measures memory
            output.zero_()
            return
        metadata = metadata[self.prefix]
        decoding, end = metadata.num_decode_tokens, metadata.num_decode_tokens + metadata.num_prefill_tokens
        if metadata.num_prefill_tokens:
            rows = slice(decoding, end)
            self.read(columns[rows], a[rows], output[rows], metadata)
        if decoding:
            self.step(columns[:decoding], a[:decoding], output[:decoding], metadata.state_indices_tensor_d)

    def read(self, columns: Tensor, a: Tensor, output: Tensor, metadata: Any) -> None:
        """Prompts, or pieces of prompts, one after the other: (T, channels) and (T, H) to `output` (T, inner)."""
        slots, is_continued = metadata.state_indices_tensor_p, metadata.has_initial_states_p
        window, states = self.caches()
        convolved = causal_conv1d_fn(
            columns.transpose(0, 1),
            self.conv_weights,
            self.conv1d.bias,
            activation=self.activation,
            conv_states=window,
            has_initial_state=is_continued,
            cache_indices=slots,
            query_start_loc=metadata.query_start_loc_p,
            metadata=metadata,
        ).transpose(0, 1)[: len(columns)]
        x, B, C, delta = self.heads(convolved, a)
        begun = None
        if metadata.prep_initial_states:
            begun = torch.where(is_continued[:, None, None, None], states[slots], 0)
        y = output.view(x.shape)
        ends = mamba_chunk_scan_combined_varlen(
            (x / delta[..., None]).to(x.dtype),
            delta,
            self.A,
            B,
            C,
            chunk_size=metadata.chunk_size,
            cu_seqlens=metadata.query_start_loc_p,
            cu_chunk_seqlens=metadata.cu_chunk_seqlen_p,
            last_chunk_indices=metadata.last_chunk_indices_p,
            seq_idx=metadata.seq_idx_p,
            out=y,
            initial_states=begun,
            state_dtype=states.dtype,
        )
        states[slots] = ends
        y += self.D[:, None] * x

    def step(self, columns: Tensor, a: Tensor, output: Tensor, slots: Tensor) -> None:
        """One token of each decoding request: (T, channels) and (T, H) to `output` (T, inner)."""
        window, states = self.caches()
        convolved = causal_conv1d_update(
            columns, window, self.conv_weights, self.conv1d.bias, self.activation, conv_state_indices=slots
        )
        x, B, C, delta = self.heads(convolved, a)
        y = output.view(x.shape)
        # Views that repeat one number per head, by which the kernels know that they need to load it only once.
        per_channel = (-1, self.head_dim)
        selective_state_update(
            states,
            (x / delta[..., None]).to(x.dtype),
            delta[..., None].expand(-1, *per_channel),
            self.A[:, None, None].expand(*per_channel, self.ssm_state_size),
            B,
            C,
            self.zeros[:, None].expand(per_channel),
            self.zeros[:, None].expand(per_channel),
            state_batch_indices=slots,
            dst_state_batch_indices=slots,
            out=y,
        )
        y += self.D[:, None] * x

    def heads(self, convolved: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """X (T, H, P), B and C (T, G, N), and Delta (T, H) in float32."""
        x, B, C = self.split_hidden_states_B_C_fn(convolved)
        states = (-1, self.ssm_state_size)
        delta = softplus(a.float()).clamp(min=LEAST_STEP)
        return x.unflatten(-1, (-1, self.head_dim)), B.unflatten(-1, states), C.unflatten(-1, states), delta

    def caches(self) -> tuple[Tensor, Tensor]:
        """The slots: the convolution's last columns (slots, channels, K - 1) and the states (slots, H, P, N)."""
        window, states = self.kv_cache
        return window if is_conv_state_dim_first() else window.transpose(-1, -2), states

    def get_kv_cache_spec(self, vllm_config: VllmConfig) -> KVCacheSpec | None:
        """What a slot holds; states are kept where a forward pass ends, not in the midst of one."""
        return MambaBase.get_kv_cache_spec(self, vllm_config)


def sharded(values: Tensor) -> nn.Parameter:
    """A parameter of which each tensor-parallel process holds its own rows."""
    parameter = nn.Parameter(values, requires_grad=False)
    set_weight_attrs(parameter, {"weight_loader": sharded_weight_loader(0)})
    return parameter
