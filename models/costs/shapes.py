"""The shape of a model, as far as its cost goes by it; read off a module, which a config alone can make.

Modules are built on torch's meta device, where they take no memory and no time, so a shape of eight billion parameters
costs milliseconds. What is here is what the engines run: there is no second description of the architectures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.errors import UserError
from harness.models.architectures.attention import Attention
from harness.models.architectures.discrete_mamba2 import DiscreteMamba2
from harness.models.architectures.mamba1 import Mamba1Mixer
from harness.models.checkpoints import Checkpoint, find_checkpoint

from .forward import ForwardFlops
from .layers import AttentionLayer, ScanLayer, SelectiveLayer, SsdLayer

if TYPE_CHECKING:
    from harness.models.architectures.blocks import Mixer
    from harness.models.architectures.causal_lm import CausalLM

REWARD_HEADS = {"ForSequenceClassification": "last", "ForTokenClassification": "every"}
"""Where the head of a reward model runs, by the ending of its architecture's name."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the cost of a model follows from.

    `parameters` counts a shared one once; `table` are those of an embedding that is no head too, of which a pass reads
    single rows; `body` and `head` are the weights that a token meets in matrix products; `outputs` are the numbers that
    the head gives.
    """

    family: str
    width: int
    outputs: int
    parameters: int
    table: int
    body: int
    head: int
    attention: tuple[AttentionLayer, ...]
    scans: tuple[ScanLayer, ...]

    @property
    def forward(self) -> ForwardFlops:
        """The FLOPs of its passes."""
        scan = sum(layer.step_flops for layer in self.scans)
        return ForwardFlops(self.body, self.head, sum(layer.width for layer in self.attention), scan)

    @property
    def kv_size(self) -> int:
        """Numbers kept per token of context: the keys and values of all layers."""
        return sum(layer.kv_size for layer in self.attention)

    @property
    def state_size(self) -> int:
        """Numbers in one row's recurrent states."""
        return sum(layer.state_size for layer in self.scans)

    @property
    def window_size(self) -> int:
        """Numbers in one row's convolution windows."""
        return sum(layer.window_size for layer in self.scans)

    @property
    def kv_sharing(self) -> float:
        """Query heads per key-value head, averaged over the keys; 0 without attention."""
        return 2 * self.forward.attention / self.kv_size if self.kv_size else 0.0

    def chunk_products(self, tokens: int, chunk: int) -> int:
        """FLOPs of the matrix products inside the chunked scans of a text; see `layers`."""
        return sum(layer.chunk_products(tokens, chunk) for layer in self.scans)


def read_shape(name: str) -> ModelShape:
    """The shape of a checkpoint, of which only the small files are read, or of a preset.

    A config whose architecture ends in ForSequenceClassification or ForTokenClassification is a reward model's: its
    head is the score, and `score` of its `forward` what reading a text costs.

    Args:
        name: a hub id, a local folder, `zoo/NAME` or `preset/NAME`.

    Raises UserError when there is no such checkpoint or preset, or no model can be made of its config.
    """
    from harness.models.architectures.presets import find_preset

    if name.startswith("preset/"):
        preset = find_preset(name.removeprefix("preset/"))
        with torch.device("meta"):
            return native_shape(preset.build(preset.config, None)[0], preset.family)
    return checkpoint_shape(find_checkpoint(name))


def shape_or_none(name: str) -> ModelShape | None:
    """The shape of what an engine calls its model; None where that is no checkpoint or no shape can be read off it."""
    try:
        return read_shape(name)
    except UserError:
        return None


def checkpoint_shape(checkpoint: Checkpoint) -> ModelShape:
    """The shape of a checkpoint that was found: our own module's where the family is ours, else transformers'."""
    from harness.models.engine_choice import NATIVE_FAMILIES
    from harness.models.native import builder

    if reward_head(checkpoint.config) or checkpoint.family not in NATIVE_FAMILIES:
        return transformers_shape(empty_transformer(checkpoint))
    try:
        with torch.device("meta"):
            return native_shape(builder(checkpoint)(checkpoint.config, None)[0], checkpoint.family)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the config of '{checkpoint.name}' is not that of a {checkpoint.family} "
            f"({type(error).__name__}: {error}); download it again"
        ) from error


def reward_head(config: Mapping[str, Any]) -> str | None:
    """Where the head of a config's reward model runs, `last` or `every`; None for a language model."""
    named = (config.get("architectures") or [""])[0]
    return next((where for ending, where in REWARD_HEADS.items() if named.endswith(ending)), None)


def empty_transformer(checkpoint: Checkpoint) -> Any:
    """Transformers' module of a config, without memory. Raises UserError when the library has none."""
    import transformers

    classes = {
        None: transformers.AutoModelForCausalLM,
        "last": transformers.AutoModelForSequenceClassification,
        "every": transformers.AutoModelForTokenClassification,
    }
    try:
        config = transformers.AutoConfig.for_model(**dict(checkpoint.config))
        with torch.device("meta"):
            return classes[reward_head(checkpoint.config)].from_config(config)
    except (ImportError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"the cost of '{checkpoint.name}' is not known: transformers has no model of the family "
            f"'{checkpoint.family}' for its config ({type(error).__name__})"
        ) from error


def native_shape(model: "CausalLM", family: str = "") -> ModelShape:
    """The shape of one of our own models."""
    layers = [layer_of(mixer) for mixer in model.mixers]
    tied = model.head.weight is model.embedding.weight
    head = model.head.weight.numel()
    return ModelShape(
        family=family,
        width=model.embedding.embedding_dim,
        outputs=model.head.out_features,
        parameters=count_parameters(model),
        table=0 if tied else model.embedding.weight.numel(),
        body=linear_weights(model, (nn.Linear,)) - head,
        head=head,
        attention=tuple(layer for layer in layers if isinstance(layer, AttentionLayer)),
        scans=tuple(layer for layer in layers if not isinstance(layer, AttentionLayer)),
    )


def layer_of(mixer: "Mixer") -> AttentionLayer | ScanLayer:
    """The cost-bearing shape of one of our mixers."""
    if isinstance(mixer, Attention):
        return AttentionLayer(mixer.n_heads, mixer.n_kv_heads, mixer.head_dim)
    taps = mixer.conv1d.weight.shape[2]
    if isinstance(mixer, Mamba1Mixer):
        return SelectiveLayer(mixer.d_inner, mixer.d_state, mixer.channels, taps)
    groups = mixer.groups if isinstance(mixer, DiscreteMamba2) else mixer.c_groups
    return SsdLayer(mixer.heads, mixer.head_dim, mixer.d_state, groups, mixer.channels, taps)


def transformers_shape(model: Any) -> ModelShape:
    """The shape of a transformers causal LM, or of its classifier of texts or tokens, from its modules and config."""
    from transformers import DynamicCache
    from transformers.pytorch_utils import Conv1D

    config = model.config.get_text_config()
    head = model.get_output_embeddings() or model.score
    table = model.get_input_embeddings().weight
    attention = sum(hasattr(layer, "keys") for layer in DynamicCache(config=config).layers)
    return ModelShape(
        family=config.model_type,
        width=config.hidden_size,
        outputs=head.weight.shape[0],
        parameters=count_parameters(model),
        table=0 if head.weight is table else table.numel(),
        body=linear_weights(model, (nn.Linear, Conv1D)) - head.weight.numel() + visited_expert_weights(model, config),
        head=head.weight.numel(),
        attention=(attention_layer(config),) * attention if getattr(config, "num_attention_heads", 0) else (),
        scans=(mamba2_layer(config),) * config.num_hidden_layers if config.model_type == "mamba2" else (),
    )


def attention_layer(config: Any) -> AttentionLayer:
    """Attention as a transformers config describes it."""
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return AttentionLayer(heads, kv_heads, getattr(config, "head_dim", None) or config.hidden_size // heads)


def mamba2_layer(config: Any) -> SsdLayer:
    """The mixer of a transformers Mamba2Config."""
    channels = config.num_heads * config.head_dim + 2 * config.n_groups * config.state_size
    return SsdLayer(config.num_heads, config.head_dim, config.state_size, config.n_groups, channels, config.conv_kernel)


def count_parameters(model: nn.Module) -> int:
    """Parameters, a shared one once."""
    return sum(parameter.numel() for parameter in model.parameters())


def linear_weights(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> int:
    """Weights of the layers of these kinds, a shared one as often as it is used."""
    weights: list[Any] = [module.weight for module in model.modules() if isinstance(module, kinds)]
    return sum(weight.numel() for weight in weights)


def visited_expert_weights(model: nn.Module, config: Any) -> int:
    """Weights of the experts that one token visits; mixtures keep them stacked as (experts, out, in)."""
    visited = getattr(config, "num_experts_per_tok", None) or 0
    return sum(
        parameter.numel() // parameter.shape[0] * visited
        for name, parameter in model.named_parameters()
        if parameter.ndim == 3 and ".experts." in name
    )
