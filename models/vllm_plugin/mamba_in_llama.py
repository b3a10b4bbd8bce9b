"""MambaInLlama in vLLM: a Llama some of whose attention became Mamba-1 or Mamba-2 (arXiv 2408.15237, 2504.10449).

Format: JunxiongWang/* and togethercomputer/M1-*, a Llama's config.json with a mamba_config.json beside it. Their
Mamba-2 has fewer heads of x and B than of C; with those heads' rows repeated it is vLLM's own layer, exactly.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.mamba.abstract import MambaBase
from vllm.model_executor.layers.mamba.mamba_mixer2 import MambaMixer2
from vllm.model_executor.layers.mamba.mamba_utils import (
    MambaStateShapeCalculator,
)
from vllm.model_executor.models.interfaces import IsAttentionFree, IsHybrid, SupportsMambaPrefixCaching
from vllm.model_executor.models.llama import LlamaAttention
from vllm.model_executor.models.utils import maybe_prefix
from vllm.v1.kv_cache_interface import KVCacheSpec

from .backbone import Backbone, Block
from .causal_lm import StudentForCausalLM
from .loading import Piece, fill, place_mlp, repeat_heads
from .mamba1_mixer import Mamba1Mixer
from .mamba1_shape import mamba1_shape


class Mamba2Mixer(MambaMixer2):  # type: ignore[misc]
    """vLLM's Mamba-2 layer with square heads: as many heads as groups, head_dim = d_state."""

    def __init__(self, vllm_config: VllmConfig, prefix: str) -> None:
        config = vllm_config.model_config.hf_config
        ssm = config.mamba_config["ssm_cfg"]
        heads, state = ssm["ngroups"], ssm.get("d_state", 128)
        super().__init__(
            hidden_size=config.hidden_size,
            ssm_state_size=state,
            conv_kernel_size=ssm.get("d_conv", 4),
            intermediate_size=heads * state,
            use_conv_bias=ssm.get("conv_bias", True),
            use_bias=False,
            n_groups=heads,
            num_heads=heads,
            head_dim=state,
            rms_norm_eps=1e-5,
            activation="silu",
            model_config=vllm_config.model_config,
            cache_config=vllm_config.cache_config,
            quant_config=vllm_config.quant_config,
            prefix=prefix,
        )

    def forward(self, positions: Tensor, hidden: Tensor) -> Tensor:
        """(T, width) to (T, width)."""
        out: Tensor = super().forward(hidden)
        return out

    def get_kv_cache_spec(self, vllm_config: VllmConfig) -> KVCacheSpec | None:
        """What a slot holds; states are kept where a forward pass ends: no CPU kernel keeps those in its midst."""
        return MambaBase.get_kv_cache_spec(self, vllm_config)


class HybridForCausalLM(StudentForCausalLM, SupportsMambaPrefixCaching):  # type: ignore[misc]
    """What both kinds of checkpoint share: those that keep some attention and those that keep none."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        config = vllm_config.model_config.hf_config
        mamba = config.mamba_config
        kept = set(mamba.get("attn_layers", []))

        def make_block(number: int, name: str) -> Block:
            # The blocks that keep attention are Llama's own; the others have their norms from mamba_config.json.
            eps = config.rms_norm_eps if number in kept else mamba.get("rms_norm_eps", 1e-5)
            mixer = make_mixer(vllm_config, number in kept, f"{name}.mixer")
            return Block(vllm_config, mixer, eps, config.intermediate_size, bias=False, prefix=name)

        backbone = Backbone(
            vllm_config=vllm_config,
            make_block=make_block,
            eps=config.rms_norm_eps,
            prefix=maybe_prefix(prefix, "model"),
        )
        super().__init__(vllm_config, backbone, prefix)

    @classmethod
    def get_mamba_state_shape_from_config(cls, vllm_config: VllmConfig) -> tuple[tuple[int, ...], ...]:
        """Of the convolution's window and of the states, for one request on one device."""
        config, processes = vllm_config.model_config.hf_config, vllm_config.parallel_config.tensor_parallel_size
        ssm = config.mamba_config.get("ssm_cfg", {})
        if "ngroups" not in ssm:
            return mamba1_shape(config.hidden_size, config.mamba_config).state_shapes(processes)
        heads, state = ssm["ngroups"], ssm.get("d_state", 128)
        shapes: tuple[tuple[int, ...], ...] = MambaStateShapeCalculator.mamba2_state_shape(
            tp_world_size=processes,
            intermediate_size=heads * state,
            n_groups=heads,
            num_heads=heads,
            head_dim=state,
            state_size=state,
            conv_kernel=ssm.get("d_conv", 4),
        )
        return shapes

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load a published checkpoint of either form; returns the parameters that were filled.

        Raises ValueError for unknown keys.
        """
        return fill(self, weights, self.place)

    def place(self, key: str, tensor: Tensor) -> Iterator[Piece]:
        """Where a published weight belongs."""
        whole = {"model.embed_tokens.weight": "model.embedding.weight", "model.norm.weight": "model.norm.weight"}
        if key == "lm_head.weight":
            if not self.config.tie_word_embeddings:  # a file may repeat a tied head
                yield Piece(key, tensor)
            return
        if key in whole:
            yield Piece(whole[key], tensor)
            return
        found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", key)
        if found is None:
            raise KeyError(key)
        block, rest = f"model.layers.{found[1]}", found[2]
        if rest.startswith("mlp."):
            yield from place_mlp(block, rest, tensor)
        elif rest.startswith(("self_attn.", "mha.")):
            yield from self.place_attention(f"{block}.mixer", rest, tensor)
        elif rest.startswith("mamba."):
            name = rest.removeprefix("mamba.")
            is_mamba2 = "ngroups" in self.config.mamba_config.get("ssm_cfg", {})
            place = self.place_mamba2 if is_mamba2 else self.place_mamba1
            yield from place(f"{block}.mixer", name, tensor)
        else:
            yield Piece(f"{block}.{rest}", tensor)

    def place_attention(self, mixer: str, rest: str, tensor: Tensor) -> Iterator[Piece]:
        """`self_attn.{q,k,v,o}_proj` or the fused `mha.{in,out}_proj`."""
        name = rest.split(".")[1]
        if name in ("o_proj", "out_proj"):
            yield Piece(f"{mixer}.o_proj.weight", tensor)
        elif name == "in_proj":
            head, config = self.config.head_dim, self.config
            keys = config.num_key_value_heads * head
            parts = tensor.split((config.num_attention_heads * head, keys, keys))
            for shard, rows in zip("qkv", parts, strict=True):
                yield Piece(f"{mixer}.qkv_proj.weight", rows, shard)
        elif name != "rotary_emb":
            yield Piece(f"{mixer}.qkv_proj.weight", tensor, {"q_proj": "q", "k_proj": "k", "v_proj": "v"}[name])

    def place_mamba1(self, mixer: str, name: str, tensor: Tensor) -> Iterator[Piece]:
        """The projections in one piece or in five, and the rest."""
        shards = {"in_proj_z": 0, "in_proj_x": 1, "B_proj": 2, "C_proj": 3}
        stem = name.split(".")[0]
        if stem == "in_proj":
            shape = mamba1_shape(self.config.hidden_size, self.config.mamba_config)
            *parts, down = tensor.split((shape.inner, shape.narrow, shape.narrow, shape.inner, shape.rank))
            for shard, rows in enumerate(parts):
                yield Piece(f"{mixer}.in_proj.weight", rows, shard)
            yield Piece(f"{mixer}.dt_in.weight", down)
        elif stem in shards:
            yield Piece(f"{mixer}.in_proj.weight", tensor, shards[stem])
        else:
            names = {"dt_proj_down.weight": "dt_in.weight", "dt_proj.bias": "dt_bias", "A_log": "A"}
            yield Piece(f"{mixer}.{names.get(name, name)}", tensor)

    def place_mamba2(self, mixer: str, name: str, tensor: Tensor) -> Iterator[Piece]:
        """Every parameter by its own name; the rows of x and B once for each head that reads them."""
        if name == "in_proj.weight":
            inner, heads = self.inner(), self.config.mamba_config["ssm_cfg"]["ngroups"]
            z, columns, dt = tensor.split((inner, len(tensor) - inner - heads, heads))
            yield Piece(f"{mixer}.{name}", torch.cat([z, self.repeat(columns), dt]))
        elif name.startswith("conv1d."):
            yield Piece(f"{mixer}.{name}", self.repeat(tensor))
        else:
            yield Piece(f"{mixer}.{'A' if name == 'A_log' else name}", tensor)

    def repeat(self, columns: Tensor) -> Tensor:
        """Rows [x | B | C], of which x and B are narrow, as rows that are all of C's width."""
        narrow, state = self.config.mamba_config.get("d_xb", 2560), self.config.mamba_config["ssm_cfg"]["d_state"]
        x, B, C = columns.split((narrow, narrow, self.inner()))
        times = self.inner() // narrow
        return torch.cat([repeat_heads(x, state, times), repeat_heads(B, state, times), C])

    def inner(self) -> int:
        """Channels of the Mamba-2 mixers."""
        ssm = self.config.mamba_config["ssm_cfg"]
        channels: int = ssm["ngroups"] * ssm.get("d_state", 128)
        return channels


class MambaInLlamaForCausalLM(HybridForCausalLM, IsHybrid):  # type: ignore[misc]
    """A checkpoint that keeps attention in some layers."""


class PureMambaInLlamaForCausalLM(HybridForCausalLM, IsAttentionFree):  # type: ignore[misc]
    """A checkpoint in which every attention layer was replaced."""


def make_mixer(vllm_config: VllmConfig, is_attention: bool, prefix: str) -> nn.Module:
    """The mixer of one layer. Raises ValueError for a mamba_config.json that no released checkpoint has."""
    config: Any = vllm_config.model_config.hf_config
    mamba = config.mamba_config
    ssm = mamba.get("ssm_cfg", {})
    if is_attention:
        attention: nn.Module = LlamaAttention(
            config,
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.max_position_embeddings,
            vllm_config.quant_config,
            cache_config=vllm_config.cache_config,
            prefix=prefix,
        )
        return attention
    if "ngroups" not in ssm:
        return Mamba1Mixer(vllm_config, mamba1_shape(config.hidden_size, mamba), prefix)
    inner = mamba.get("d_inner") or int(ssm.get("expand", 1) * config.hidden_size)
    if ssm["ngroups"] * ssm.get("d_state", 128) != inner or ssm.get("repeat_kv_before_conv"):
        raise ValueError("this mamba_config.json has heads that are not square or sets repeat_kv_before_conv")
    return Mamba2Mixer(vllm_config, prefix)
