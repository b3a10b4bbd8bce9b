"""Mamba-2 as in transformers' Mamba2ForCausalLM (arXiv 2405.21060): mixers only, no feed-forward layers.

With several groups the gated norm is taken per group, as the paper's tensor-parallel form and vLLM do; transformers
before 5.23 normalises over all channels.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from harness.errors import UserError

from .blocks import MixerBlock
from .causal_lm import CausalLM
from .layout import Layout, Place
from .llamba import mixer_layout
from .mamba2_mixer import Mamba2Mixer
from .norms import RMSNorm

DEFAULTS: Mapping[str, Any] = {
    "num_heads": 128,
    "head_dim": 64,
    "vocab_size": 32768,
    "hidden_size": 4096,
    "state_size": 128,
    "num_hidden_layers": 64,
    "layer_norm_epsilon": 1e-5,
    "expand": 2,
    "conv_kernel": 4,
    "n_groups": 8,
    "use_bias": False,
    "use_conv_bias": True,
    "hidden_act": "silu",
    "residual_in_fp32": True,
    "time_step_limit": (0.0, float("inf")),
    "tie_word_embeddings": False,
}
"""What a config.json may leave out."""


def build(config: Mapping[str, Any], keys: Collection[str] | None = None) -> tuple[CausalLM, Layout]:
    """The model of a config.json, uninitialised, and where the keys of its weight files belong.

    Args:
        config: the parsed config.json.
        keys: what the weight files hold; None for the published form. Without an `lm_head.weight` the head is tied.

    Raises UserError for a setting that this engine does not know how to honour.
    """
    config = {**DEFAULTS, **config}
    width, heads, head_dim, groups = (config[name] for name in ("hidden_size", "num_heads", "head_dim", "n_groups"))
    if width * config["expand"] != heads * head_dim or config["hidden_act"] not in ("silu", "swish"):
        raise UserError(
            f"the native engine cannot build this Mamba-2: expand {config['expand']} times hidden_size {width} must be "
            f"num_heads {heads} times head_dim {head_dim}, and hidden_act '{config['hidden_act']}' must be silu"
        )
    blocks = [
        MixerBlock(
            RMSNorm(width, config["layer_norm_epsilon"]),
            Mamba2Mixer(
                width,
                heads,
                head_dim,
                config["state_size"],
                x_heads=heads,
                b_groups=groups,
                c_groups=groups,
                norm_groups=groups,
                norm_eps=config["layer_norm_epsilon"],
                d_conv=config["conv_kernel"],
                conv_bias=config["use_conv_bias"],
                bias=config["use_bias"],
                time_step_limit=read_limit(config["time_step_limit"]),
            ),
            residual_in_fp32=config["residual_in_fp32"],
        )
        for _ in range(config["num_hidden_layers"])
    ]
    head = nn.Linear(width, config["vocab_size"], bias=False)
    norm = RMSNorm(width, config["layer_norm_epsilon"])
    model = CausalLM(nn.Embedding(config["vocab_size"], width), blocks, norm, head)
    layout: dict[str, Place | None] = {
        "backbone.embeddings.weight": Place("embedding.weight"),
        "backbone.norm_f.weight": Place("norm.weight"),
    }
    if config["tie_word_embeddings"] if keys is None else "lm_head.weight" not in keys:
        head.weight = model.embedding.weight
    else:
        layout["lm_head.weight"] = Place("head.weight")
    for number, block in enumerate(blocks):
        source, target = f"backbone.layers.{number}.", f"blocks.{number}."
        layout[f"{source}norm.weight"] = Place(f"{target}norm.weight")
        layout |= mixer_layout(block.mixer, f"{source}mixer.", f"{target}mixer.")
    return model, layout


def read_limit(limit: Any) -> tuple[float, float]:
    """The bounds of Delta; JSON has no infinity, which files spell in several ways."""
    low, high = (bound["__float__"] if isinstance(bound, dict) else bound for bound in limit)
    return float(low), float(high)
