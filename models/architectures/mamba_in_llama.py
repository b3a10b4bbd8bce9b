"""MambaInLlama: a Llama some of whose attention layers became Mamba-1 or Mamba-2 mixers (arXiv 2408.15237, 2504.10449).

Format: JunxiongWang/* and togethercomputer/M1-*, a Llama's config.json with a mamba_config.json beside it. The weights
come in two forms. A, of the first training code: separate `self_attn.{q,k,v,o}_proj` and `mamba.in_proj_x, in_proj_z,
B_proj, C_proj, dt_proj_down`. B, of M1's: fused `mha.in_proj` and `mamba.in_proj`. Form A was trained with Llama 3's
RoPE scaling, form B without it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from harness.errors import UserError

from .blocks import Mixer, SequentialBlock
from .causal_lm import CausalLM
from .layout import Layout, Place
from .llama import attention_layout, block_layout, check_activation, head_dim, make_attention, skeleton
from .llamba import check_fields, mixer_layout
from .mamba1 import Mamba1Mixer
from .mamba2_mixer import Mamba2Mixer
from .mlps import GatedMLP
from .norms import RMSNorm
from .rope import make_rotary

MAMBA1_FIELDS = ("d_state", "d_conv", "expand", "dt_rank", "repeat_kv_before_conv", "conv_bias")
MAMBA2_FIELDS = ("d_state", "d_conv", "expand", "ngroups", "repeat_kv_before_conv", "conv_bias", "chunk_size")


def build(config: Mapping[str, Any], keys: Collection[str] | None = None) -> tuple[CausalLM, Layout]:
    """The model of a config.json, uninitialised, and where the keys of its weight files belong.

    Args:
        config: the parsed config.json, with that of mamba_config.json under `mamba_config`, and optionally
            `rope_scaling_in_force` (bool) to overrule what the form of the keys suggests.
        keys: what the weight files hold; None for form B. Without an `lm_head.weight` the head is tied.

    Raises KeyError for a missing field and UserError for one that this engine does not know how to honour.
    """
    mamba = config["mamba_config"]
    check_activation(config)
    check_activation(mamba)
    kept = set(mamba.get("attn_layers", []))
    layers, width = config["num_hidden_layers"], config["hidden_size"]
    if not kept <= set(range(layers)):
        raise UserError(f"mamba_config.json keeps attention in layers {sorted(kept)} of a model with {layers} layers")
    blocks = []
    for number in range(layers):
        # The blocks that keep attention are Llama's own; the others have their norms from mamba_config.json.
        eps = config["rms_norm_eps"] if number in kept else mamba.get("rms_norm_eps", 1e-5)
        mixer: Mixer = make_attention(config) if number in kept else make_mixer(width, mamba)
        mlp = GatedMLP(width, config["intermediate_size"], bias=False)
        blocks.append(SequentialBlock(RMSNorm(width, eps), mixer, RMSNorm(width, eps), mlp))
    model, layout = skeleton(config, keys, blocks)
    separate = keys is not None and any(".self_attn." in key for key in keys)
    model.rotary = make_rotary(config, head_dim(config), is_scaled=config.get("rope_scaling_in_force", separate))
    for number, block in enumerate(blocks):
        layout |= block_layout(config, number)
        source, target = f"model.layers.{number}.", f"blocks.{number}.mixer."
        if number not in kept:
            layout |= mamba_layout(block.mixer, f"{source}mamba.", target, keys)
        elif keys is not None and f"{source}self_attn.q_proj.weight" in keys:
            layout |= attention_layout(config, number)
        else:
            layout |= mixer_layout(block.mixer, f"{source}mha.", target)
    return model, layout


def make_mixer(width: int, mamba: Mapping[str, Any]) -> Mixer:
    """The mixer that a mamba_config.json describes: Mamba-2 where its `ssm_cfg` has `ngroups`, else Mamba-1."""
    ssm, d_xb = mamba.get("ssm_cfg", {}), mamba.get("d_xb", 2560)
    d_inner = mamba.get("d_inner") or int(ssm.get("expand", 1) * width)
    if "ngroups" in ssm:
        return make_mamba2(width, d_inner, d_xb, ssm)
    check_fields("ssm_cfg", ssm, MAMBA1_FIELDS)
    settings = {name: value for name, value in ssm.items() if name != "expand" and value != "auto"}
    check_division("d_inner", d_inner, "d_xb", d_xb)
    check_division("d_xb", d_xb, "d_state", settings.get("d_state", 16))
    return Mamba1Mixer(width, d_inner, d_xb, **settings)


def make_mamba2(width: int, d_inner: int, d_xb: int, ssm: Mapping[str, Any]) -> Mamba2Mixer:
    """A Mamba-2 mixer with square heads: as many heads as groups, head_dim = d_state = d_inner / ngroups."""
    check_fields("ssm_cfg", ssm, MAMBA2_FIELDS)
    heads, d_state = ssm["ngroups"], ssm.get("d_state", 128)
    if heads * d_state != d_inner or ssm.get("repeat_kv_before_conv"):
        raise UserError(
            f"this MambaInLlama has ngroups {heads} times d_state {d_state} where d_inner is {d_inner}, or sets "
            "repeat_kv_before_conv; no released checkpoint does, and the authors' own code does not run it"
        )
    check_division("d_xb", d_xb, "d_state", d_state)
    return Mamba2Mixer(
        width,
        heads,
        d_state,
        d_state,
        x_heads=d_xb // d_state,
        b_groups=d_xb // d_state,
        c_groups=heads,
        norm_groups=heads,
        norm_eps=1e-5,
        d_conv=ssm.get("d_conv", 4),
        conv_bias=ssm.get("conv_bias", True),
    )


def check_division(name: str, value: int, unit: str, size: int) -> None:
    """Raises UserError when `value` is no multiple of `size`."""
    if value % size:
        raise UserError(f"mamba_config.json has a {name} of {value}, which is no multiple of its {unit} of {size}")


def mamba_layout(mixer: nn.Module, source: str, target: str, keys: Collection[str] | None) -> dict[str, Place | None]:
    """Every key of one mixer, in the form in which the files have it."""
    layout = mixer_layout(mixer, source, target)
    if isinstance(mixer, Mamba1Mixer) and keys is not None and f"{source}in_proj_x.weight" in keys:
        del layout[f"{source}in_proj.weight"]
        names = ("in_proj_z", "in_proj_x", "B_proj", "C_proj", "dt_proj_down")
        start = 0
        for name, rows in zip(names, mixer.widths, strict=True):
            layout[f"{source}{name}.weight"] = Place(f"{target}in_proj.weight", start)
            start += rows
    return layout
