"""Llamba: Llama's feed-forward layers around discrete Mamba-2 mixers (arXiv 2502.14458).

Format: cartesia-ai/Llamba-*, config.json and one safetensors file. No positions, no attention; the norms inside the
blocks have eps 1e-5 whatever the config says, only the last one reads `norm_epsilon`.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from harness.errors import UserError

from .blocks import SequentialBlock
from .causal_lm import CausalLM
from .discrete_mamba2 import DiscreteMamba2
from .layout import Layout, Place
from .mlps import GatedMLP
from .norms import RMSNorm

BLOCK_EPS = 1e-5


def build(config: Mapping[str, Any], keys: Collection[str] | None = None) -> tuple[CausalLM, Layout]:
    """The model of a config.json, uninitialised, and where the keys of its weight files belong.

    Args:
        config: the parsed config.json.
        keys: what the weight files hold; None for the published form. Without an `lm_head.weight` the head is tied.

    Raises KeyError for a missing field and UserError for one that this engine does not know how to honour.
    """
    width, mlp = config["d_model"], {"intermediate_size": 14336, "bias": False, "act_fn": "silu"} | config["mlp_cfg"]
    if mlp["act_fn"] not in ("silu", "swish"):
        raise UserError(f"the native engine has no gate '{mlp['act_fn']}' for Llamba's feed-forward layers, only silu")
    blocks = [
        SequentialBlock(
            RMSNorm(width, BLOCK_EPS),
            make_mixer(width, config["ssm_cfg"]),
            RMSNorm(width, BLOCK_EPS),
            GatedMLP(width, mlp["intermediate_size"], bias=mlp["bias"]),
        )
        for _ in range(config.get("n_layer", 32))
    ]
    vocabulary = rounded_up(config["vocab_size"], config.get("pad_vocab_size_multiple", 8))
    head = nn.Linear(width, vocabulary, bias=config.get("lm_head_bias", False))
    model = CausalLM(
        nn.Embedding(vocabulary, width), blocks, RMSNorm(width, config.get("norm_epsilon", BLOCK_EPS)), head
    )
    layout: dict[str, Place | None] = {
        "backbone.embedding.weight": Place("embedding.weight"),
        "backbone.final_layernorm.weight": Place("norm.weight"),
    }
    if config.get("tie_embeddings", False) if keys is None else "lm_head.weight" not in keys:
        head.weight = model.embedding.weight
    else:
        layout["lm_head.weight"] = Place("head.weight")
    if head.bias is not None:
        layout["lm_head.bias"] = Place("head.bias")
    for number, block in enumerate(blocks):
        layout |= block_layout(block, number, mlp["intermediate_size"])
    return model, layout


def make_mixer(width: int, ssm_cfg: Mapping[str, Any]) -> DiscreteMamba2:
    """The mixer of an `ssm_cfg`. Raises UserError for a field that the mixer does not have."""
    check_fields("ssm_cfg", ssm_cfg, MIXER_FIELDS)
    return DiscreteMamba2(width, **{"d_state": 64, "n_v_heads": 32, "n_qk_heads": 32, **ssm_cfg})


MIXER_FIELDS = [
    "d_state",
    "n_v_heads",
    "n_qk_heads",
    "expand",
    "chunk_size",
    "activation",
    "bias",
    "d_conv",
    "conv_bias",
]  # of every released model


def check_fields(name: str, config: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises UserError for fields whose meaning is not known, because leaving them out would change the model."""
    unknown = sorted(config.keys() - set(known))
    if unknown:
        raise UserError(f"the {name} of this checkpoint has fields that are not known here: {', '.join(unknown)}")


def block_layout(block: SequentialBlock, number: int, inner: int) -> dict[str, Place | None]:
    """Every key of one block, under `backbone.layers.{number}.`."""
    source, target = f"backbone.layers.{number}.", f"blocks.{number}."
    layout: dict[str, Place | None] = {
        f"{source}input_layernorm.weight": Place(f"{target}mixer_norm.weight"),
        f"{source}post_attention_layernorm.weight": Place(f"{target}mlp_norm.weight"),
    }
    layout |= mixer_layout(block.mixer, f"{source}mixer.", f"{target}mixer.")
    for name, _ in block.mlp.down_proj.named_parameters():
        layout |= {
            f"{source}mlp.gate_proj.{name}": Place(f"{target}mlp.gate_up_proj.{name}"),
            f"{source}mlp.up_proj.{name}": Place(f"{target}mlp.gate_up_proj.{name}", inner),
            f"{source}mlp.down_proj.{name}": Place(f"{target}mlp.down_proj.{name}"),
        }
    return layout


def mixer_layout(mixer: nn.Module, source: str, target: str) -> dict[str, Place | None]:
    """A mixer whose parameters have the names that they have in the file."""
    return {source + name: Place(target + name) for name, _ in mixer.named_parameters()}


def rounded_up(size: int, multiple: int) -> int:
    """The smallest multiple that is not below `size`."""
    return -(-size // multiple) * multiple
