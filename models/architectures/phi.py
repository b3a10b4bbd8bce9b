"""Phi-1 and Phi-1.5, the teachers of Phi-Mamba: attention beside a feed-forward layer.

Format: Hugging Face PhiForCausalLM.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from harness.errors import UserError

from .attention import Attention
from .blocks import ParallelBlock
from .causal_lm import CausalLM
from .layout import Layout, Place
from .llama import head_dim, kv_heads
from .mlps import GeluMLP
from .rope import Rotary, plain_frequencies

GELU_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")


def build(config: Mapping[str, Any], keys: Collection[str] | None = None) -> tuple[CausalLM, Layout]:
    """The model of a config.json, uninitialised, and where the keys of its weight files belong.

    Args:
        config: the parsed config.json.
        keys: what the weight files hold; the form does not depend on it.

    Raises KeyError for a missing field and UserError for one that this engine does not know how to honour.
    """
    width, eps = config["hidden_size"], config["layer_norm_eps"]
    if config.get("hidden_act", "gelu_new") not in GELU_TANH or config.get("qk_layernorm"):
        raise UserError(
            f"the native engine has Phi with gelu_new and without qk_layernorm only, got '{config.get('hidden_act')}' "
            f"and {bool(config.get('qk_layernorm'))}; use --engine transformers"
        )
    heads, kv, size = config["num_attention_heads"], kv_heads(config), head_dim(config)
    blocks = [
        ParallelBlock(
            nn.LayerNorm(width, eps),
            Attention(width, heads, kv, size, bias=True, out_bias=True),
            GeluMLP(width, config["intermediate_size"]),
        )
        for _ in range(config["num_hidden_layers"])
    ]
    vocabulary = config["vocab_size"]
    model = CausalLM(nn.Embedding(vocabulary, width), blocks, nn.LayerNorm(width, eps), nn.Linear(width, vocabulary))
    model.rotary = make_rotary(config, size)
    layout: dict[str, Place | None] = {"model.embed_tokens.weight": Place("embedding.weight")}
    for kind in ("weight", "bias"):
        layout[f"model.final_layernorm.{kind}"] = Place(f"norm.{kind}")
        layout[f"lm_head.{kind}"] = Place(f"head.{kind}")
    for number in range(len(blocks)):
        layout |= block_layout(number, heads * size, kv * size)
    return model, layout


def make_rotary(config: Mapping[str, Any], size: int) -> Rotary:
    """Angles for the first part of each head. Raises UserError for frequencies that are scaled."""
    parameters = {**config, **(config.get("rope_parameters") or {})}
    scaling = config.get("rope_scaling") or parameters
    if scaling.get("rope_type", "default") != "default":
        raise UserError(f"the native engine has no RoPE scaling '{scaling['rope_type']}' for Phi, only default")
    rotated = int(parameters.get("partial_rotary_factor", 0.5) * size)
    return Rotary(plain_frequencies(rotated, parameters.get("rope_theta", 10000.0)).float())


def block_layout(number: int, queries: int, keys: int) -> Layout:
    """Every key of one block."""
    source, target = f"model.layers.{number}.", f"blocks.{number}."
    layout: dict[str, Place] = {}
    for kind in ("weight", "bias"):
        layout |= {
            f"{source}input_layernorm.{kind}": Place(f"{target}norm.{kind}"),
            f"{source}self_attn.q_proj.{kind}": Place(f"{target}mixer.in_proj.{kind}"),
            f"{source}self_attn.k_proj.{kind}": Place(f"{target}mixer.in_proj.{kind}", queries),
            f"{source}self_attn.v_proj.{kind}": Place(f"{target}mixer.in_proj.{kind}", queries + keys),
            f"{source}self_attn.dense.{kind}": Place(f"{target}mixer.out_proj.{kind}"),
            f"{source}mlp.fc1.{kind}": Place(f"{target}mlp.fc1.{kind}"),
            f"{source}mlp.fc2.{kind}": Place(f"{target}mlp.fc2.{kind}"),
        }
    return layout
