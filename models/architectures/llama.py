"""Llama 3.x: grouped-query attention and gated feed-forward layers. Format: Hugging Face LlamaForCausalLM."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

from harness.errors import UserError

from .attention import Attention
from .blocks import SequentialBlock
from .causal_lm import CausalLM
from .layout import Layout, Place
from .mlps import GatedMLP
from .norms import RMSNorm
from .rope import make_rotary


def build(config: Mapping[str, Any], keys: Collection[str] | None = None) -> tuple[CausalLM, Layout]:
    """The model of a config.json, uninitialised, and where the keys of its weight files belong.

    Args:
        config: the parsed config.json.
        keys: what the weight files hold; None for the published form. Without an `lm_head.weight` the head is tied.

    Raises KeyError for a missing field and UserError for one that this engine does not know how to honour.
    """
    check_activation(config)
    bias = bool(config.get("mlp_bias", False))
    blocks = [
        SequentialBlock(
            RMSNorm(config["hidden_size"], config["rms_norm_eps"]),
            make_attention(config),
            RMSNorm(config["hidden_size"], config["rms_norm_eps"]),
            GatedMLP(config["hidden_size"], config["intermediate_size"], bias=bias),
        )
        for _ in range(config["num_hidden_layers"])
    ]
    model, layout = skeleton(config, keys, blocks)
    model.rotary = make_rotary(config, head_dim(config))
    for number in range(len(blocks)):
        layout |= block_layout(config, number)
        layout |= attention_layout(config, number)
    return model, layout


def skeleton(
    config: Mapping[str, Any], keys: Collection[str] | None, blocks: Sequence[SequentialBlock]
) -> tuple[CausalLM, dict[str, Place | None]]:
    """Embedding, norm and head around the blocks of any model with Llama's names."""
    embedding = nn.Embedding(config["vocab_size"], config["hidden_size"])
    head = nn.Linear(config["hidden_size"], config["vocab_size"], bias=False)
    model = CausalLM(embedding, blocks, RMSNorm(config["hidden_size"], config["rms_norm_eps"]), head)
    layout: dict[str, Place | None] = {
        "model.embed_tokens.weight": Place("embedding.weight"),
        "model.norm.weight": Place("norm.weight"),
    }
    tied = config.get("tie_word_embeddings", False)
    if tied or (keys is not None and "lm_head.weight" not in keys):
        head.weight = embedding.weight
    if keys is None and not tied:
        layout["lm_head.weight"] = Place("head.weight")
    elif keys is not None and "lm_head.weight" in keys:
        # A file may repeat a tied head; transformers passes over it too.
        layout["lm_head.weight"] = None if tied else Place("head.weight")
    return model, layout | {key: None for key in keys or () if key.endswith("rotary_emb.inv_freq")}


def block_layout(config: Mapping[str, Any], number: int) -> Layout:
    """Norms and feed-forward layer of one block."""
    source, target = f"model.layers.{number}.", f"blocks.{number}."
    inner = config["intermediate_size"]
    layout = {
        f"{source}input_layernorm.weight": Place(f"{target}mixer_norm.weight"),
        f"{source}post_attention_layernorm.weight": Place(f"{target}mlp_norm.weight"),
    }
    for kind in ("weight", "bias") if config.get("mlp_bias") else ("weight",):
        layout |= {
            f"{source}mlp.gate_proj.{kind}": Place(f"{target}mlp.gate_up_proj.{kind}"),
            f"{source}mlp.up_proj.{kind}": Place(f"{target}mlp.gate_up_proj.{kind}", inner),
            f"{source}mlp.down_proj.{kind}": Place(f"{target}mlp.down_proj.{kind}"),
        }
    return layout


def attention_layout(config: Mapping[str, Any], number: int) -> Layout:
    """Separate q, k, v and o projections of one block."""
    source, target = f"model.layers.{number}.self_attn.", f"blocks.{number}.mixer."
    queries = config["num_attention_heads"] * head_dim(config)
    keys = kv_heads(config) * head_dim(config)
    layout: dict[str, Place] = {}
    for kind in ("weight", "bias") if config.get("attention_bias") else ("weight",):
        layout |= {
            f"{source}q_proj.{kind}": Place(f"{target}in_proj.{kind}"),
            f"{source}k_proj.{kind}": Place(f"{target}in_proj.{kind}", queries),
            f"{source}v_proj.{kind}": Place(f"{target}in_proj.{kind}", queries + keys),
            f"{source}o_proj.{kind}": Place(f"{target}out_proj.{kind}"),
        }
    return layout


def make_attention(config: Mapping[str, Any]) -> Attention:
    """The attention layer of a Llama config."""
    bias = bool(config.get("attention_bias", False))
    heads = config["num_attention_heads"]
    return Attention(config["hidden_size"], heads, kv_heads(config), head_dim(config), bias=bias, out_bias=bias)


def head_dim(config: Mapping[str, Any]) -> int:
    """`head_dim`, which older files leave to hidden_size / num_attention_heads."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def kv_heads(config: Mapping[str, Any]) -> int:
    """`num_key_value_heads`, which older files leave out where every head has its own."""
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def check_activation(config: Mapping[str, Any]) -> None:
    """Raises UserError when the feed-forward layers are gated by something else than SiLU."""
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise UserError(f"the native engine has no gate '{activation}' for Llama's feed-forward layers, only silu")
