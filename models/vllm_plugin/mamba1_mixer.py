"""The Mamba-1 mixer of MambaInLlama with vLLM's state cache (arXiv 2408.15237).

    [z | x | B | C] = in_proj u        delta = dt_in u        x = silu(conv(repeat(x)))        B = repeat(B)
    Delta = softplus(W_dt delta + b_dt + b_dt)        h_t = exp(Delta_t A) * h_{t-1} + Delta_t x_t B_t
    y_t = <h_t, C_t> + D x_t        out = out_proj(y * silu(z))

Channel c is of group c // N, and every group has its own B and C; the published bias of dt_proj is added twice, as the
authors' code does in training. Decoding requests come first in a batch. On a GPU vLLM's kernels do the recurrence, on
a CPU `scan_on_cpu`.
"""

from typing import Any

import torch
import vllm.model_executor.layers.mamba.mamba_mixer  # noqa: F401 (the operator torch.ops.vllm.mamba_mixer)
from torch import Tensor, nn
from vllm.config import VllmConfig, get_current_vllm_config
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.mamba.abstract import MambaBase
from vllm.model_executor.layers.mamba.mamba_utils import MambaStateDtypeCalculator, is_conv_state_dim_first
from vllm.model_executor.layers.mamba.ops.causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from vllm.model_executor.layers.mamba.ops.mamba_ssm import selective_scan_fn
from vllm.model_executor.layers.mamba.ops.ssu_dispatch import selective_state_update
from vllm.model_executor.model_loader.weight_utils import composed_weight_loader, sharded_weight_loader
from vllm.model_executor.utils import set_weight_attrs
from vllm.utils.torch_utils import _encode_layer_name
from vllm.v1.attention.backends.registry import MambaAttentionBackendEnum

from .mamba1_shape import Mamba1Shape
from .scan_on_cpu import scan_prompts, step_tokens


class Mamba1Mixer(nn.Module, MambaBase):  # type: ignore[misc]
    """`shape` are the mixer's sizes before tensor parallelism, which shares the groups among the processes."""

    def __init__(self, vllm_config: VllmConfig, shape: Mamba1Shape, prefix: str) -> None:
        super().__init__()
        self.shape, self.prefix = shape, prefix
        self.dtypes: tuple[torch.dtype, ...] = MambaStateDtypeCalculator.mamba1_state_dtype(
            vllm_config.model_config.dtype,
            vllm_config.cache_config.mamba_cache_dtype,
            vllm_config.cache_config.mamba_ssm_cache_dtype,
        )
        processes = get_tensor_model_parallel_world_size()
        self.inner, self.narrow = shape.inner // processes, shape.narrow // processes
        self.channels = shape.channels // processes
        quantization = vllm_config.quant_config
        widths = [shape.inner, shape.narrow, shape.narrow, shape.inner]
        self.in_proj = MergedColumnParallelLinear(
            shape.width, widths, bias=False, quant_config=quantization, prefix=f"{prefix}.in_proj"
        )
        self.dt_in = ReplicatedLinear(shape.width, shape.rank, bias=False, prefix=f"{prefix}.dt_in")
        self.dt_proj = ColumnParallelLinear(shape.rank, shape.inner, bias=False, prefix=f"{prefix}.dt_proj")
        self.dt_bias = sharded(torch.zeros(self.inner, dtype=torch.float32), lambda bias: 2 * bias)
        self.conv1d = ColumnParallelLinear(
            shape.taps, shape.channels, bias=shape.has_conv_bias, prefix=f"{prefix}.conv1d"
        )
        self.conv1d.weight.data = self.conv1d.weight.data.unsqueeze(1)  # the form of the files
        # On a CPU vLLM packs the weights of linear layers, of which this is none, once they are loaded.
        self.register_buffer("taps", self.conv1d.weight.data.squeeze(1), persistent=False)
        self.A = sharded(torch.zeros(self.inner, shape.state, dtype=torch.float32), lambda log: -torch.exp(log.float()))
        self.D = sharded(torch.ones(self.inner, dtype=torch.float32))
        self.out_proj = RowParallelLinear(
            shape.inner, shape.width, bias=False, quant_config=quantization, prefix=f"{prefix}.out_proj"
        )
        self.kv_cache = (torch.tensor([]), torch.tensor([]))
        layers = get_current_vllm_config().compilation_config.static_forward_context
        if prefix in layers:
            raise ValueError(f"there are two layers named '{prefix}'")
        layers[prefix] = self

    def forward(self, positions: Tensor, hidden: Tensor) -> Tensor:
        """(T, width) to (T, width)."""
        out = torch.empty_like(hidden)
        torch.ops.vllm.mamba_mixer(hidden, out, _encode_layer_name(self.prefix))
        return out

    def forward_impl(self, hidden_states: Tensor, output: Tensor) -> None:
        """Fill `output` (T, width); vLLM's operator calls it."""
        metadata = get_forward_context().attn_metadata
        projected, _ = self.in_proj(hidden_states)
        z, x, B, C = projected.split((self.inner, self.narrow, self.narrow, self.inner), dim=-1)
        step = self.dt_proj(self.dt_in(hidden_states)[0])[0]
        x, B, C = self.widen(x), self.repeat(B), self.grouped(C)
        if metadata is None:  # vLLM measures memory
            output.copy_(self.out_proj(z)[0])
            return
        metadata = metadata[self.prefix]
        decoding, end = metadata.num_decode_tokens, metadata.num_decode_tokens + metadata.num_prefill_tokens
        y = torch.empty_like(z[:end])
        if metadata.num_prefill_tokens:
            rows = slice(decoding, end)
            self.read(x[rows], step[rows], B[rows], C[rows], z[rows], y[rows], metadata)
        if decoding:
            rows = slice(0, decoding)
            slots = metadata.state_indices_tensor_d
            self.decode(x[rows], step[rows], B[rows], C[rows], z[rows], y[rows], slots)
        output[:end] = self.out_proj(y)[0]

    def read(self, x: Tensor, step: Tensor, B: Tensor, C: Tensor, z: Tensor, y: Tensor, metadata: Any) -> None:
        """Prompts, or pieces of prompts, one after the other: fill y (T, inner)."""
        window, states = self.caches()
        convolved = causal_conv1d_fn(
            x.transpose(0, 1),
            self.taps,
            self.conv1d.bias,
            activation="silu",
            conv_states=window,
            has_initial_state=metadata.has_initial_states_p,
            cache_indices=metadata.state_indices_tensor_p,
            query_start_loc=metadata.query_start_loc_p,
            metadata=metadata,
        ).transpose(0, 1)[: len(x)]
        x = self.after_conv(convolved)
        if x.device.type == "cpu":
            scan_prompts(self, x, step, B, C, z, y, states, metadata)
            return
        y.copy_(
            selective_scan_fn(
                x.transpose(0, 1).contiguous(),
                states,
                step.transpose(0, 1).contiguous(),
                self.A,
                B.permute(1, 2, 0).contiguous(),
                C.permute(1, 2, 0).contiguous(),
                self.D,
                z.transpose(0, 1).contiguous(),
                self.dt_bias,
                delta_softplus=True,
                cache_indices=metadata.state_indices_tensor_p,
                has_initial_state=metadata.has_initial_states_p,
                query_start_loc=metadata.query_start_loc_p,
                cu_chunk_seqlen=metadata.cu_chunk_seqlen_p,
                last_chunk_indices=metadata.last_chunk_indices_p,
            ).transpose(0, 1)
        )

    def decode(self, x: Tensor, step: Tensor, B: Tensor, C: Tensor, z: Tensor, y: Tensor, slots: Tensor) -> None:
        """One token of each decoding request: fill y (T, inner). A group is to the kernel what a head is to Mamba-2."""
        window, states = self.caches()
        convolved = causal_conv1d_update(x, window, self.taps, self.conv1d.bias, "silu", conv_state_indices=slots)
        x = self.after_conv(convolved)
        if x.device.type == "cpu":
            step_tokens(self, x, step, B, C, z, y, states, slots)
            return
        by_group = (-1, self.shape.state)
        selective_state_update(
            states.unflatten(1, by_group),
            x.unflatten(-1, by_group),
            step.unflatten(-1, by_group),
            self.A.unflatten(0, by_group),
            B,
            C,
            self.D.view(by_group),
            self.dt_bias.view(by_group),
            z=z.unflatten(-1, by_group),
            dt_softplus=True,
            state_batch_indices=slots,
            dst_state_batch_indices=slots,
            out=y.unflatten(-1, by_group),
        )

    def grouped(self, wide: Tensor) -> Tensor:
        """(T, inner) to (T, G, N)."""
        groups: Tensor = wide.unflatten(-1, (-1, self.shape.state))
        return groups

    def repeat(self, narrow: Tensor) -> Tensor:
        """(T, narrow) to (T, G, N): every chunk of N channels as often as a key-value head serves a group."""
        return self.grouped(narrow).repeat_interleave(self.inner // self.narrow, dim=-2)

    def widen(self, x: Tensor) -> Tensor:
        """The convolution's input."""
        return self.repeat(x).flatten(-2) if self.shape.repeats_before_conv else x

    def after_conv(self, x: Tensor) -> Tensor:
        """The convolution's output as (T, inner)."""
        return x if self.shape.repeats_before_conv else self.repeat(x).flatten(-2)

    def caches(self) -> tuple[Tensor, Tensor]:
        """The slots: the convolution's last columns (slots, channels, K - 1) and the states (slots, inner, N)."""
        window, states = self.kv_cache
        return window if is_conv_state_dim_first() else window.transpose(-1, -2), states

    def get_state_shape(self) -> tuple[tuple[int, ...], ...]:
        """Of the window and of the states of one request."""
        return self.shape.state_shapes(get_tensor_model_parallel_world_size())

    def get_state_dtype(self) -> tuple[torch.dtype, ...]:
        """Of the window and of the states."""
        return self.dtypes

    @property
    def mamba_type(self) -> MambaAttentionBackendEnum:
        """Which of vLLM's metadata the layer wants."""
        return MambaAttentionBackendEnum.MAMBA1


def sharded(values: Tensor, change: Any = None) -> nn.Parameter:
    """A parameter of which each tensor-parallel process holds its own rows, changed as they are loaded."""
    parameter = nn.Parameter(values, requires_grad=False)
    load = sharded_weight_loader(0)
    set_weight_attrs(parameter, {"weight_loader": composed_weight_loader(load, change) if change else load})
    return parameter
