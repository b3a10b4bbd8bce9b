"""The configs that vLLM is given for a student, made of the published json files."""

from collections.abc import Collection, Mapping
from typing import Any

from transformers import PreTrainedConfig

from harness.models.checkpoints import Checkpoint
from harness.models.weights import open_weights

UNBOUNDED = 131072
"""Longest text in tokens that a Llamba is run on unless told otherwise; it has no positions that could run out."""

CHUNK = 256
"""Tokens that the Mamba-2 kernels scan side by side."""


class LlambaConfig(PreTrainedConfig):  # type: ignore[misc]
    """A Llamba's config.json, with the names that vLLM looks for beside its own."""

    model_type = "llamba"


class MambaInLlamaConfig(PreTrainedConfig):  # type: ignore[misc]
    """A MambaInLlama's config.json and mamba_config.json in one."""

    model_type = "mamba_in_llama"


def llamba_config(checkpoint: Checkpoint) -> PreTrainedConfig:
    """The config of a Llamba. Raises UserError when its weights cannot be found."""
    raw = checkpoint.config
    ssm = {"d_state": 64, "n_v_heads": 32, "n_qk_heads": 32, "expand": 1, "d_conv": 4, **raw["ssm_cfg"]}
    mlp = {"intermediate_size": 14336, "bias": False, "act_fn": "silu", **raw["mlp_cfg"]}
    multiple = raw.get("pad_vocab_size_multiple", 8)
    fields = {
        **raw,
        "ssm_cfg": ssm,
        "mlp_cfg": mlp,
        "vocab_size": -(-raw["vocab_size"] // multiple) * multiple,
        "hidden_size": raw["d_model"],
        "intermediate_size": mlp["intermediate_size"],
        "num_hidden_layers": raw.get("n_layer", 32),
        "num_attention_heads": ssm["n_v_heads"],
        "max_position_embeddings": raw.get("max_position_embeddings", UNBOUNDED),
        "tie_word_embeddings": "lm_head.weight" not in open_weights(checkpoint).shapes,
        "chunk_size": CHUNK,
        "architectures": ["LlambaForCausalLM"],
    }
    return LlambaConfig(**without(fields, ("model_type", "_name_or_path")))


def mamba_in_llama_config(checkpoint: Checkpoint) -> PreTrainedConfig:
    """The config of a MambaInLlama. Raises UserError when its weights cannot be found."""
    raw, keys = checkpoint.config, open_weights(checkpoint).shapes.keys()
    mamba, layers, heads = raw["mamba_config"], raw["num_hidden_layers"], raw["num_attention_heads"]
    kept = set(mamba.get("attn_layers", []))
    kind = "MambaInLlama" if kept else "PureMambaInLlama"
    is_separate = any(".self_attn." in key for key in keys)
    fields = {
        **raw,
        "num_key_value_heads": raw.get("num_key_value_heads") or heads,
        "head_dim": raw.get("head_dim") or raw["hidden_size"] // heads,
        "tie_word_embeddings": bool(raw.get("tie_word_embeddings")) or "lm_head.weight" not in keys,
        "rope_parameters": rope_parameters(raw, is_scaled=is_separate),
        "layers_block_type": ["attention" if number in kept else "mamba" for number in range(layers)],
        "chunk_size": CHUNK,
        "architectures": [f"{kind}ForCausalLM"],
    }
    return MambaInLlamaConfig(**without(fields, ("model_type", "_name_or_path", "rope_theta", "rope_scaling")))


def rope_parameters(config: Mapping[str, Any], *, is_scaled: bool) -> dict[str, Any]:
    """A Llama's `rope_theta` and `rope_scaling`, in either spelling, as vLLM wants them; unscaled where asked."""
    parameters = config.get("rope_parameters") or {}
    theta = parameters.get("rope_theta", config.get("rope_theta", 10000.0))
    scaling = config.get("rope_scaling") or parameters
    if not is_scaled or not scaling:
        return {"rope_type": "default", "rope_theta": theta}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    return {**without(scaling, ("type",)), "rope_type": kind, "rope_theta": theta}


def without(fields: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A copy that lacks these names."""
    return {name: value for name, value in fields.items() if name not in names}
