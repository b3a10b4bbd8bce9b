"""Phi-Mamba and Hybrid-Phi-Mamba: Phi-1.5's parallel blocks around discrete Mamba-2 mixers (arXiv 2408.10189).

Format: goombalab/Phi-Mamba and goombalab/Hybrid-Phi-Mamba. Attention blocks ignore their `core_input`: the authors'
code gives it to Phi's configuration in the wrong place, so Phi-1.5's own numbers hold (32 heads, half of each rotated,
theta 10,000).
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import nn

from harness.errors import UserError

from .attention import Attention
from .blocks import Mixer, ParallelBlock
from .causal_lm import CausalLM
from .layout import Layout, Place
from .llamba import make_mixer, mixer_layout, rounded_up
from .mlps import GeluMLP
from .rope import Rotary, plain_frequencies

EPS = 1e-5
PHI_HEADS = 32
PHI_ROTATED = 0.5
PHI_THETA = 10000.0


def build(config: Mapping[str, Any], keys: Collection[str] | None = None) -> tuple[CausalLM, Layout]:
    """The model of a config.json, uninitialised, and where the keys of its weight files belong.

    Args:
        config: the parsed config.json, a tree of LanguageModel, MixerModel, Block1, Block2, ...
        keys: what the weight files hold; the form does not depend on it.

    Raises KeyError for a missing field and UserError for a kind of block that this engine does not know.
    """
    outer, inner = config["LanguageModel"]["input"], config["MixerModel"]["input"]
    width = inner["d_model"]
    blocks = [
        ParallelBlock(nn.LayerNorm(width, EPS), make_core(width, core), GeluMLP(width, 4 * width))
        for core in cores(config)
    ]
    if inner.get("lm_head_prenorm", "layer") != "layer":
        raise UserError(f"the native engine has no Phi-Mamba lm_head_prenorm '{inner['lm_head_prenorm']}', only layer")
    if len(blocks) != inner["n_layer"]:
        raise UserError(
            f"the config.json of this Phi-Mamba has {len(blocks)} blocks and an n_layer of {inner['n_layer']}; "
            "download it again"
        )
    vocabulary = rounded_up(outer["vocab_size"], outer.get("pad_vocab_size_multiple", 8))
    model = CausalLM(nn.Embedding(vocabulary, width), blocks, nn.LayerNorm(width, EPS), nn.Linear(width, vocabulary))
    head_dim = width // PHI_HEADS
    model.rotary = Rotary(plain_frequencies(int(PHI_ROTATED * head_dim), PHI_THETA).float())
    layout: dict[str, Place | None] = {"backbone.embedding.weight": Place("embedding.weight")}
    for kind in ("weight", "bias"):
        layout[f"backbone.final_layernorm.{kind}"] = Place(f"norm.{kind}")
        layout[f"lm_head.{kind}"] = Place(f"head.{kind}")
    for number, block in enumerate(blocks):
        layout |= block_layout(block, number, width)
    return model, layout


def cores(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The Block entries in the order of the file, each as often as it has layers."""
    for name, entry in config.items():
        if name.startswith("Block"):
            yield from [entry] * entry["n_layers"]


def make_core(width: int, entry: Mapping[str, Any]) -> Mixer:
    """The mixer of one Block entry."""
    kind = entry["CoreType"].rsplit(".", 1)[-1]
    if kind == "discrete_mamba2":
        return make_mixer(width, entry["core_input"])
    if kind == "phi_attention":
        return Attention(width, PHI_HEADS, PHI_HEADS, width // PHI_HEADS, bias=True, out_bias=True)
    raise UserError(
        f"the native engine has no Phi-Mamba core '{entry['CoreType']}', only discrete_mamba2, phi_attention"
    )


def block_layout(block: ParallelBlock, number: int, width: int) -> dict[str, Place | None]:
    """Every key of one block, under `backbone.layers.{number}.`."""
    source, target = f"backbone.layers.{number}.", f"blocks.{number}."
    layout: dict[str, Place | None] = {}
    for kind in ("weight", "bias"):
        layout[f"{source}input_layernorm.{kind}"] = Place(f"{target}norm.{kind}")
        layout[f"{source}mlp.fc1.{kind}"] = Place(f"{target}mlp.fc1.{kind}")
        layout[f"{source}mlp.fc2.{kind}"] = Place(f"{target}mlp.fc2.{kind}")
    if not isinstance(block.mixer, Attention):
        return layout | mixer_layout(block.mixer, f"{source}mixer.", f"{target}mixer.")
    for kind in ("weight", "bias"):
        for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
            layout[f"{source}mixer.self_attn.{name}.{kind}"] = Place(f"{target}mixer.in_proj.{kind}", part * width)
        layout[f"{source}mixer.self_attn.dense.{kind}"] = Place(f"{target}mixer.out_proj.{kind}")
    return layout
