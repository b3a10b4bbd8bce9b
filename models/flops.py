"""Floating-point operations of a causal language model, counted from the loaded module and its config.

What is counted: every weight of a linear layer once per token as a multiply and an add; attention's two products over
the causal context; the recurrence and the short convolution of Mamba-2 layers. What is not: normalisation, activations,
rotary embedding, softmax, a mixture's router, sampling. In prefill
the output head runs on the last position only.

Conventions: attention is causal, so a prompt of T tokens has T(T+1)/2 query-key pairs (an operation counter that sees
the kernel multiply full matrices counts T*T); a sliding window is not subtracted; state-space prefill is counted as the
recurrence, a lower bound of the chunked algorithm's work. Of a mixture's experts those that a token visits are counted.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from .architectures.causal_lm import CausalLM


@dataclass(frozen=True, slots=True)
class ForwardFlops:
    """Cost of a model's forward pass.

    `body` and `head` are the weights that one token meets in matrix products, without and in the output head;
    `attention` is heads * head_dim summed over the attention layers; `scan` is the other FLOPs of state-space layers
    per token.
    """

    body: int
    head: int
    attention: int
    scan: int = 0

    def prefill(self, tokens: int) -> float:
        """FLOPs of reading a prompt of `tokens` tokens, with logits for the last one."""
        return float(tokens * (2 * self.body + self.scan) + 2 * self.head + 2 * self.attention * tokens * (tokens + 1))

    def decode(self, tokens: int, contexts: int) -> float:
        """FLOPs of `tokens` single-token passes whose context lengths, the token itself included, sum to `contexts`."""
        return float(tokens * (2 * (self.body + self.head) + self.scan) + 4 * self.attention * contexts)

    def decode_row(self, prompt_tokens: int, passes: int) -> float:
        """FLOPs of `passes` consecutive single-token passes of one row after its prompt."""
        return self.decode(passes, passes * prompt_tokens + passes * (passes + 1) // 2)


def count_flops(model: Any) -> ForwardFlops:
    """Read the cost of a transformers causal LM off its modules and its config."""
    from transformers import DynamicCache
    from transformers.pytorch_utils import Conv1D

    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    body = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    )
    attention_layers = sum(hasattr(layer, "keys") for layer in DynamicCache(config=config).layers)
    heads = getattr(config, "num_attention_heads", 0)
    head_dim = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    return ForwardFlops(
        body=body + visited_expert_weights(model, config),
        head=head.weight.numel(),
        attention=attention_layers * heads * head_dim if attention_layers else 0,
        scan=mamba2_scan(config) if config.model_type == "mamba2" else 0,
    )


def count_native_flops(model: "CausalLM") -> ForwardFlops:
    """Read the cost of one of our own models off its modules."""
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    head = model.head.weight.numel()
    return ForwardFlops(
        body=weights - head,
        head=head,
        attention=sum(mixer.attention_width for mixer in model.mixers),
        scan=sum(mixer.scan_flops for mixer in model.mixers),
    )


def visited_expert_weights(model: nn.Module, config: Any) -> int:
    """Weights of the experts that one token visits; mixtures keep them stacked as (experts, out, in)."""
    visited = getattr(config, "num_experts_per_tok", None) or 0
    return sum(
        parameter.numel() // parameter.shape[0] * visited
        for name, parameter in model.named_parameters()
        if parameter.ndim == 3 and ".experts." in name
    )


def mamba2_scan(config: Any) -> int:
    """FLOPs per token of Mamba-2's recurrence: 5 per state element, 2 per convolution tap, 2 per channel for D."""
    inner = config.num_heads * config.head_dim
    channels = inner + 2 * config.n_groups * config.state_size
    per_layer = 5 * inner * config.state_size + 2 * config.conv_kernel * channels + 2 * inner
    return int(config.num_hidden_layers * per_layer)
