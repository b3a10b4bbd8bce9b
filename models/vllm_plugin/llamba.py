"""Llamba in vLLM. Format: cartesia-ai/Llamba-*, config.json and one safetensors file (arXiv 2502.14458)."""

import re
from collections.abc import Iterable, Iterator

from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.layers.mamba.mamba_utils import (
    MambaStateShapeCalculator,
)
from vllm.model_executor.models.interfaces import IsAttentionFree, SupportsMambaPrefixCaching
from vllm.model_executor.models.utils import maybe_prefix

from .backbone import Backbone, Block
from .causal_lm import StudentForCausalLM
from .discrete_mamba2_mixer import DiscreteMamba2Mixer
from .loading import Piece, fill, place_mlp, reorder

BLOCK_EPS = 1e-5
"""Of the norms inside the blocks, whatever the config says."""


class LlambaForCausalLM(StudentForCausalLM, IsAttentionFree, SupportsMambaPrefixCaching):  # type: ignore[misc]
    """Discrete Mamba-2 mixers in Llama's blocks."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        config = vllm_config.model_config.hf_config
        mlp = config.mlp_cfg
        if mlp["act_fn"] not in ("silu", "swish"):
            raise ValueError(f"there is no gate '{mlp['act_fn']}' for Llamba's feed-forward layers, only silu")

        def make_block(number: int, name: str) -> Block:
            mixer = DiscreteMamba2Mixer(vllm_config, config.ssm_cfg, f"{name}.mixer")
            return Block(vllm_config, mixer, BLOCK_EPS, mlp["intermediate_size"], bias=mlp["bias"], prefix=name)

        eps = getattr(config, "norm_epsilon", BLOCK_EPS)
        backbone = Backbone(
            vllm_config=vllm_config, make_block=make_block, eps=eps, prefix=maybe_prefix(prefix, "model")
        )
        super().__init__(vllm_config, backbone, prefix, head_bias=getattr(config, "lm_head_bias", False))

    @classmethod
    def get_mamba_state_shape_from_config(cls, vllm_config: VllmConfig) -> tuple[tuple[int, ...], ...]:
        """Of the convolution's window and of the states, for one request on one device."""
        config = vllm_config.model_config.hf_config
        ssm = config.ssm_cfg
        inner = ssm["expand"] * config.hidden_size
        shapes: tuple[tuple[int, ...], ...] = MambaStateShapeCalculator.mamba2_state_shape(
            tp_world_size=vllm_config.parallel_config.tensor_parallel_size,
            intermediate_size=inner,
            n_groups=ssm["n_qk_heads"],
            num_heads=ssm["n_v_heads"],
            head_dim=inner // ssm["n_v_heads"],
            state_size=ssm["d_state"],
            conv_kernel=ssm["d_conv"],
        )
        return shapes

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load a published checkpoint; returns the parameters that were filled. Raises ValueError for unknown keys."""
        return fill(self, weights, self.place)

    def place(self, key: str, tensor: Tensor) -> Iterator[Piece]:
        """Where a published weight belongs."""
        whole = {
            "backbone.embedding.weight": "model.embedding.weight",
            "backbone.final_layernorm.weight": "model.norm.weight",
            "lm_head.weight": "lm_head.weight",
            "lm_head.bias": "head_bias",
        }
        if key in whole:
            yield Piece(whole[key], tensor)
            return
        found = re.fullmatch(r"backbone\.layers\.(\d+)\.(.+)", key)
        if found is None:
            raise KeyError(key)
        block, rest = f"model.layers.{found[1]}", found[2]
        if rest.startswith("mlp."):
            yield from place_mlp(block, rest, tensor)
        elif rest.startswith("mixer.in_proj."):
            yield Piece(f"{block}.{rest}", self.stock_order(tensor))
        else:
            yield Piece(f"{block}.{rest}", tensor)

    def stock_order(self, rows: Tensor) -> Tensor:
        """The published [x B C | z | a] as vLLM's [z | x B C | a]."""
        ssm = self.config.ssm_cfg
        inner, maps = ssm["expand"] * self.config.hidden_size, 2 * ssm["n_qk_heads"] * ssm["d_state"]
        return reorder(rows, (inner + maps, inner, ssm["n_v_heads"]), (1, 0, 2))
