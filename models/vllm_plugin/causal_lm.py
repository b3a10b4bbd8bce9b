"""The shell that vLLM wants around a backbone: embedding, forward, logits."""

from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.mamba.mamba_utils import (
    MambaStateCopyFunc,
    MambaStateCopyFuncCalculator,
    MambaStateDtypeCalculator,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.interfaces import HasInnerState
from vllm.model_executor.models.utils import maybe_prefix

from .backbone import Backbone


class StudentForCausalLM(nn.Module, HasInnerState):  # type: ignore[misc]
    """A backbone with its head, which is the embedding where the config ties them."""

    def __init__(self, vllm_config: VllmConfig, backbone: Backbone, prefix: str, *, head_bias: bool = False) -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.config = config
        self.model = backbone
        self.lm_head = ParallelLMHead(
            config.vocab_size,
            config.hidden_size,
            quant_config=vllm_config.quant_config,
            prefix=maybe_prefix(prefix, "lm_head"),
        )
        if config.tie_word_embeddings:
            self.lm_head = self.lm_head.tie_weights(backbone.embedding)
        self.head_bias = nn.Parameter(self.lm_head.weight.new_zeros(config.vocab_size)) if head_bias else None
        self.logits_processor = LogitsProcessor(config.vocab_size)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """(T,) to (T, width)."""
        embedded: Tensor = self.model.embedding(input_ids)
        return embedded

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Hidden states (T, width) of tokens (T,) at positions (T,)."""
        hidden: Tensor = self.model(input_ids, positions, intermediate_tensors, inputs_embeds)
        return hidden

    def compute_logits(self, hidden: Tensor) -> Tensor | None:
        """(rows, width) to (rows, V), on the first of several tensor-parallel processes."""
        logits: Tensor | None = self.logits_processor(self.lm_head, hidden)
        return logits if logits is None or self.head_bias is None else logits + self.head_bias

    @classmethod
    def get_mamba_state_dtype_from_config(cls, vllm_config: VllmConfig) -> tuple[torch.dtype, ...]:
        """Of the convolution's window and of the states."""
        cache = vllm_config.cache_config
        dtypes: tuple[torch.dtype, ...] = MambaStateDtypeCalculator.mamba2_state_dtype(
            vllm_config.model_config.dtype, cache.mamba_cache_dtype, cache.mamba_ssm_cache_dtype
        )
        return dtypes

    @classmethod
    def get_mamba_state_copy_func(cls) -> tuple[MambaStateCopyFunc, ...]:
        """How vLLM copies a slot when prefixes are cached."""
        copies: tuple[MambaStateCopyFunc, ...] = MambaStateCopyFuncCalculator.mamba2_state_copy_func()
        return copies
