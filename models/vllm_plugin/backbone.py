"""The part that all students share: embedding, blocks of a mixer and a feed-forward layer, norm."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.models.llama import LlamaMLP
from vllm.sequence import IntermediateTensors


class Block(nn.Module):
    """h += mixer(norm(h)), then h += mlp(norm(h)), over tokens (T, width) of all requests side by side."""

    def __init__(
        self, vllm_config: VllmConfig, mixer: nn.Module, eps: float, inner: int, *, bias: bool, prefix: str
    ) -> None:
        super().__init__()
        width, quantization = vllm_config.model_config.hf_config.hidden_size, vllm_config.quant_config
        self.input_layernorm = RMSNorm(width, eps=eps)
        self.mixer = mixer
        self.post_attention_layernorm = RMSNorm(width, eps=eps)
        self.mlp = LlamaMLP(width, inner, "silu", quantization, bias=bias, prefix=f"{prefix}.mlp")

    def forward(self, positions: Tensor, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """The feed-forward layer's output and what is to be added to it."""
        if residual is None:
            hidden, residual = self.input_layernorm(hidden), hidden
        else:
            hidden, residual = self.input_layernorm(hidden, residual)
        hidden = self.mixer(positions, hidden)
        hidden, residual = self.post_attention_layernorm(hidden, residual)
        return self.mlp(hidden), residual


@support_torch_compile
class Backbone(nn.Module):
    """From token ids (T,) to the hidden states (T, width) that the head reads.

    `make_block(number, prefix)` builds a block whose layers vLLM knows by names under `prefix`.
    """

    def __init__(
        self, *, vllm_config: VllmConfig, make_block: Callable[[int, str], Block], eps: float, prefix: str = ""
    ) -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.embedding = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            make_block(number, f"{prefix}.layers.{number}") for number in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, eps=eps)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See the class; `inputs_embeds` stands for embedded ids where given."""
        hidden = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        residual = None
        for layer in self.layers:
            hidden, residual = layer(positions, hidden, residual)
        last: Tensor = self.norm(hidden, residual)[0]
        return last
