"""The shapes of published models, as the fields of their config files: speed can be measured without their weights.

A preset is built with random weights. Where a published config leaves something open, the docstring of the shape says
what was taken; it changes neither parameter counts nor costs.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from harness.errors import UserError, choices

from . import llama, llamba, mamba2, mamba_in_llama, phi_mamba
from .causal_lm import CausalLM
from .layout import Layout

Config = Mapping[str, Any]


def llama3(*, hidden_size: int, layers: int, heads: int, intermediate_size: int, tied: bool, factor: float) -> Config:
    """A Llama 3.1 or 3.2."""
    return {
        "vocab_size": 128256,
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "intermediate_size": intermediate_size,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": tied,
        "eos_token_id": [128001, 128008, 128009],
    }


LLAMA_1B = llama3(hidden_size=2048, layers=16, heads=32, intermediate_size=8192, tied=True, factor=32.0)
LLAMA_3B = llama3(hidden_size=3072, layers=28, heads=24, intermediate_size=8192, tied=True, factor=32.0)
LLAMA_8B = llama3(hidden_size=4096, layers=32, heads=32, intermediate_size=14336, tied=False, factor=8.0)


def llamba_(*, d_model: int, n_layer: int, intermediate_size: int) -> Config:
    """A Llamba, tied: whether the published 8B is tied is told by its weights alone."""
    return {
        "vocab_size": 128256,
        "d_model": d_model,
        "n_layer": n_layer,
        "tie_embeddings": True,
        "mlp_cfg": {"intermediate_size": intermediate_size, "bias": False, "act_fn": "silu"},
        "ssm_cfg": {
            "d_state": 64,
            "n_v_heads": 32,
            "n_qk_heads": 32,
            "expand": 1,
            "chunk_size": 128,
            "activation": "identity",
            "bias": False,
        },
    }


def hybrid(teacher: Config, *, attn_layers: list[int], d_xb: int, ssm_cfg: Config) -> Config:
    """A MambaInLlama. Which four layers of the 1B keep attention is told by its file alone; every fourth is taken."""
    mamba = {"attn_layers": attn_layers, "d_xb": d_xb, "d_inner": teacher["hidden_size"], "ssm_cfg": ssm_cfg}
    return {**teacher, "mamba_config": mamba}


def phi(attention_layers: list[int]) -> Config:
    """A Phi-Mamba. The published hybrid keeps four attention layers, here spread evenly."""
    core = {"d_state": 64, "n_v_heads": 32, "n_qk_heads": 32, "d_conv": 4, "conv_bias": True, "expand": 1}
    blocks = {
        f"Block{number + 1}": {
            "n_layers": 1,
            "CoreType": f"modules.mixers.{'phi_attention' if number in attention_layers else 'discrete_mamba2'}",
            "core_input": {**core, "chunk_size": 128, "activation": "identity", "bias": False},
        }
        for number in range(24)
    }
    outer = {"input": {"vocab_size": 51200, "pad_vocab_size_multiple": 8}}
    return {"LanguageModel": outer, "MixerModel": {"input": {"d_model": 2048, "n_layer": 24}}, **blocks}


Build = Callable[[Config, None], tuple[CausalLM, Layout]]


class Preset(NamedTuple):
    """A published shape: the family, its builder and the fields of its config files."""

    family: str
    build: Build
    config: Config


PRESETS: Mapping[str, Preset] = {
    "llama-3.2-1b": Preset("llama", llama.build, LLAMA_1B),
    "llama-3.2-3b": Preset("llama", llama.build, LLAMA_3B),
    "llama-3.1-8b": Preset("llama", llama.build, LLAMA_8B),
    "llamba-1b": Preset("llamba", llamba.build, llamba_(d_model=2048, n_layer=16, intermediate_size=8192)),
    "llamba-3b": Preset("llamba", llamba.build, llamba_(d_model=3072, n_layer=28, intermediate_size=8192)),
    "llamba-8b": Preset("llamba", llamba.build, llamba_(d_model=4096, n_layer=32, intermediate_size=14336)),
    "mamba-in-llama-1b": Preset(
        "mamba-in-llama",
        mamba_in_llama.build,
        hybrid(LLAMA_1B, attn_layers=[3, 7, 11, 15], d_xb=512, ssm_cfg={"expand": 1}),
    ),
    "mamba-in-llama-3b": Preset(
        "mamba-in-llama",
        mamba_in_llama.build,
        hybrid(LLAMA_3B, attn_layers=[3, 8, 13, 18, 23, 27], d_xb=1024, ssm_cfg={"expand": 1}),
    ),
    "mamba2-in-llama-3b": Preset(
        "mamba-in-llama",
        mamba_in_llama.build,
        hybrid(
            LLAMA_3B,
            attn_layers=list(range(1, 28, 2)),
            d_xb=1024,
            ssm_cfg={"expand": 1, "ngroups": 24, "d_state": 128},
        ),
    ),
    "phi-mamba-1.5b": Preset("phi-mamba", phi_mamba.build, phi([])),
    "hybrid-phi-mamba-1.5b": Preset("phi-mamba", phi_mamba.build, phi([5, 11, 17, 23])),
    "mamba2-7b": Preset("mamba2", mamba2.build, {}),
}
"""By name. `mamba2-7b` is what an empty Mamba2Config of transformers means."""


def find_preset(name: str) -> Preset:
    """A preset by name. Raises UserError naming those that exist."""
    if name in PRESETS:
        return PRESETS[name]
    raise UserError(f"there is no preset '{name}'; write one of {choices([f'preset/{known}' for known in PRESETS])}")
