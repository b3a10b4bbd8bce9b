"""Tiny random checkpoints of every family, with the file names, keys, config files and shapes of the published ones.

The weights are drawn so that every term of the formulas is felt in the logits: no norm weight is one, no bias is zero,
decays reach from a few tokens to hundreds, and the logits are of size one to ten.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tiny import END, PAD, START, TEMPLATE, VOCAB, make_tokenizer
from torch import Tensor

Tensors = dict[str, Tensor]
Form = Literal["safetensors", "sharded safetensors", "bin", "sharded bin"]

ROPE_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ROPE_THETA = 500.0
"""With heads of 8, waves of 6, 30, 140 and 660 tokens: one stays, one is blended, two are slowed."""


@dataclass(frozen=True)
class Student:
    """A checkpoint before it is written; a `mamba_config` is a second file, `chat` adds a tokenizer that can chat."""

    config: Mapping[str, Any]
    tensors: Tensors
    mamba_config: Mapping[str, Any] | None = None
    chat: bool = True
    vocab: int = VOCAB
    form: Form = "safetensors"

    def rounded(self, dtype: torch.dtype) -> Tensors:
        """The tensors as a file of that dtype holds them."""
        return {key: tensor.to(dtype) for key, tensor in self.tensors.items()}


def save(student: Student, folder: Path, form: Form | None = None, dtype: torch.dtype = torch.float32) -> str:
    """Write a checkpoint; returns the folder as a user types it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(student.config, indent=2))
    if student.mamba_config is not None:
        (folder / "mamba_config.json").write_text(json.dumps(student.mamba_config, indent=2))
    save_weights(student.rounded(dtype), folder, form or student.form)
    if student.chat:
        make_tokenizer(TEMPLATE).save_pretrained(folder)
    return str(folder)


def save_weights(tensors: Tensors, folder: Path, form: Form) -> None:
    stem, ending = ("pytorch_model", "bin") if form.endswith("bin") else ("model", "safetensors")
    if not form.startswith("sharded"):
        return save_file_of(tensors, folder / f"{stem}.{ending}")
    keys, of = list(tensors), 3
    where = {key: f"{stem}-{n % of + 1:05d}-of-{of:05d}.{ending}" for n, key in enumerate(keys)}
    for name in sorted(set(where.values())):
        save_file_of({key: tensors[key] for key in keys if where[key] == name}, folder / name)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))


def save_file_of(tensors: Tensors, path: Path) -> None:
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        save_file(tensors, path, metadata={"format": "pt"})


class Draw:
    """Random weights from one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
        return mean + scale * torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def matrix(self, outputs: int, inputs: int, gain: float = 1.0) -> Tensor:
        """A weight that keeps the size of inputs of size one, times `gain`."""
        return self.normal(outputs, inputs, scale=gain * inputs**-0.5)

    def norm(self, width: int) -> Tensor:
        return self.normal(width, scale=0.3, mean=1.0)

    def embedding(self, vocab: int, width: int) -> Tensor:
        """Rows that share a direction, so that a projection without a bias can hold a decay near one all along."""
        return self.normal(vocab, width) + self.normal(width)

    def head(self, norm: str, vocab: int, width: int, tied: bool) -> Tensors:
        """The last norm and the output head; a tied head reads the wide rows of the table, so its norm is smaller."""
        if tied:
            return {f"{norm}.weight": self.norm(width) * width**-0.5}
        return {f"{norm}.weight": self.norm(width), "lm_head.weight": self.matrix(vocab, width, gain=2)}

    def conv(self, name: str, channels: int) -> Tensors:
        return {
            f"{name}.weight": self.normal(channels, 1, 4, scale=0.5),
            f"{name}.bias": self.normal(channels, scale=0.5),
        }


def gated_mlp(draw: Draw, name: str, width: int, inner: int) -> Tensors:
    return {
        f"{name}.gate_proj.weight": draw.matrix(inner, width),
        f"{name}.up_proj.weight": draw.matrix(inner, width),
        f"{name}.down_proj.weight": draw.matrix(width, inner),
    }


def norms(draw: Draw, prefix: str, width: int) -> Tensors:
    return {f"{prefix}.{name}.weight": draw.norm(width) for name in ("input_layernorm", "post_attention_layernorm")}


# Llama

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "pad_token_id": PAD,
    "bos_token_id": START,
    "eos_token_id": END,
}
OLD_SPELLING = {"rope_theta": ROPE_THETA, "rope_scaling": ROPE_LLAMA3}
NEW_SPELLING = {"rope_parameters": {"rope_theta": ROPE_THETA, **ROPE_LLAMA3}}
NO_SCALING = {"rope_theta": ROPE_THETA, "rope_scaling": None}
PLAIN_NEW_SPELLING = {"rope_parameters": {"rope_theta": ROPE_THETA, "rope_type": "default"}}


def llama(rope: Mapping[str, Any] = OLD_SPELLING, seed: int = 1, **changes: Any) -> Student:
    """A Llama; `rope` is how its config spells the rotary embedding."""
    config, draw = LLAMA | dict(rope) | changes, Draw(seed)
    tensors = llama_frame(draw, config)
    for i in range(config["num_hidden_layers"]):
        tensors |= llama_block(draw, config, i) | llama_attention(draw, config, f"model.layers.{i}", fused=False)
    return Student(config, tensors)


def llama_frame(draw: Draw, config: Mapping[str, Any]) -> Tensors:
    vocab, width = config["vocab_size"], config["hidden_size"]
    table = {"model.embed_tokens.weight": draw.embedding(vocab, width)}
    return table | draw.head("model.norm", vocab, width, config["tie_word_embeddings"])


def llama_block(draw: Draw, config: Mapping[str, Any], i: int) -> Tensors:
    prefix, width = f"model.layers.{i}", config["hidden_size"]
    return norms(draw, prefix, width) | gated_mlp(draw, f"{prefix}.mlp", width, config["intermediate_size"])


def llama_attention(draw: Draw, config: Mapping[str, Any], prefix: str, fused: bool) -> Tensors:
    width, n_h, n_kv = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    hd = config.get("head_dim") or width // n_h
    q, k = draw.matrix(n_h * hd, width, gain=2), draw.matrix(n_kv * hd, width, gain=2)
    v, o = draw.matrix(n_kv * hd, width), draw.matrix(width, n_h * hd)
    if fused:
        return {f"{prefix}.mha.in_proj.weight": torch.cat([q, k, v]), f"{prefix}.mha.out_proj.weight": o}
    named = {"q": q, "k": k, "v": v, "o": o}
    return {f"{prefix}.self_attn.{letter}_proj.weight": weight for letter, weight in named.items()}


# Llamba

LLAMBA: dict[str, Any] = {
    "model_type": "llamba",
    "vocab_size": VOCAB + 5,
    "d_model": 32,
    "n_layer": 2,
    "tie_embeddings": True,
    "pad_vocab_size_multiple": 8,
    "lm_head_bias": False,
    "resid_dropout": 0.0,
    "norm_epsilon": 1e-5,
    "mlp_cfg": {"intermediate_size": 48, "bias": False, "act_fn": "silu"},
    "ssm_cfg": {
        "d_state": 8,
        "n_v_heads": 4,
        "n_qk_heads": 4,
        "expand": 1,
        "chunk_size": 128,
        "activation": "identity",
        "bias": False,
    },
}


def llamba(
    ssm: Mapping[str, Any] | None = None, seed: int = 4, without: tuple[str, ...] = (), **changes: Any
) -> Student:
    """A Llamba; `ssm` changes its ssm_cfg and `without` are fields that its config leaves to their defaults."""
    config = {**LLAMBA, "ssm_cfg": {**LLAMBA["ssm_cfg"], **(ssm or {})}, **changes}
    draw, width = Draw(seed), config["d_model"]
    vocab = rounded_up(config["vocab_size"], config["pad_vocab_size_multiple"])
    tensors = {"backbone.embedding.weight": draw.embedding(vocab, width)}
    for i in range(config["n_layer"]):
        prefix = f"backbone.layers.{i}"
        tensors |= norms(draw, prefix, width) | discrete_mamba2(draw, config["ssm_cfg"], f"{prefix}.mixer", width)
        tensors |= gated_mlp(draw, f"{prefix}.mlp", width, config["mlp_cfg"]["intermediate_size"])
    tensors |= draw.head("backbone.final_layernorm", vocab, width, config["tie_embeddings"])
    if config["lm_head_bias"]:
        tensors["lm_head.bias"] = draw.normal(vocab)
    kept = {name: value for name, value in config.items() if name not in without}
    return Student(kept, tensors, chat=False, vocab=vocab)


def rounded_up(vocab: int, multiple: int) -> int:
    return -(-vocab // multiple) * multiple


def discrete_mamba2(draw: Draw, ssm: Mapping[str, Any], name: str, width: int) -> Tensors:
    inner, maps = ssm["expand"] * width, 2 * ssm["n_qk_heads"] * ssm["d_state"]
    tensors = {
        f"{name}.in_proj.weight": draw.matrix(2 * inner + maps + ssm["n_v_heads"], width),
        f"{name}.D": draw.normal(ssm["n_v_heads"]),
        f"{name}.out_proj.weight": draw.matrix(width, inner),
    }
    tensors[f"{name}.in_proj.weight"][-ssm["n_v_heads"] :] *= 3
    tensors |= draw.conv(f"{name}.conv1d", inner + maps)
    if not ssm["bias"]:
        return tensors | {f"{name}.z_bias": draw.normal(inner)}
    biases = {"in_proj": 2 * inner + maps + ssm["n_v_heads"], "out_proj": width}
    return tensors | {f"{name}.{part}.bias": draw.normal(size, scale=0.5) for part, size in biases.items()}


# MambaInLlama

HYBRID_LLAMA: dict[str, Any] = {
    **LLAMA,
    "_name_or_path": "/checkpoints/a-folder-of-the-author",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
MAMBA1 = {"expand": 1}
MAMBA2 = {"expand": 1, "ngroups": 4, "d_state": 16}


def mamba_in_llama(
    ssm: Mapping[str, Any] = MAMBA1,
    attn_layers: tuple[int, ...] = (1,),
    fused_mamba: bool = False,
    fused_attention: bool = False,
    d_inner: int | None = None,
    mamba_eps: float = 1e-5,
    rope: Mapping[str, Any] = OLD_SPELLING,
    seed: int = 3,
    **changes: Any,
) -> Student:
    """A Llama with state-space mixers outside `attn_layers`; fused or separate projections, as trained by two codes."""
    config, draw = {**HYBRID_LLAMA, **rope, **changes}, Draw(seed)
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    mamba_config = {
        "d_model": width,
        "ssm_cfg": dict(ssm),
        "rms_norm_eps": mamba_eps,
        "vocab_size": None,
        "d_inner": d_inner,
        "d_xb": 32,
        "intermediate_size": config["intermediate_size"],
        "hidden_act": "silu",
        "n_layer": layers,
        "attn_layers": list(attn_layers),
    }
    tensors = llama_frame(draw, config)
    for i in range(layers):
        prefix = f"model.layers.{i}"
        tensors |= llama_block(draw, config, i)
        if i in attn_layers:
            tensors |= llama_attention(draw, config, prefix, fused_attention)
        elif "ngroups" in ssm:
            tensors |= student_mamba2(draw, mamba_config, f"{prefix}.mamba")
        else:
            tensors |= student_mamba1(draw, mamba_config, f"{prefix}.mamba", fused_mamba)
    return Student(config, tensors, mamba_config)


def student_mamba1(draw: Draw, config: Mapping[str, Any], name: str, fused: bool) -> Tensors:
    ssm, width, X = config["ssm_cfg"], config["d_model"], config["d_xb"]
    inner = config["d_inner"] or int(ssm["expand"] * width)
    rank = -(-width // 16) if ssm.get("dt_rank", "auto") == "auto" else ssm["dt_rank"]
    convolved = inner if ssm.get("repeat_kv_before_conv", True) else X
    parts = {
        f"{name}.{part}.weight": draw.matrix(outputs, width)
        for part, outputs in (
            ("in_proj_z", inner),
            ("in_proj_x", X),
            ("B_proj", X),
            ("C_proj", inner),
            ("dt_proj_down", rank),
        )
    }
    if fused:
        parts = {f"{name}.in_proj.weight": torch.cat(list(parts.values()))}
    return (
        parts
        | draw.conv(f"{name}.conv1d", convolved)
        | {
            f"{name}.dt_proj.weight": draw.matrix(inner, rank),
            f"{name}.dt_proj.bias": draw.uniform(inner, low=-2.5, high=0.0),
            f"{name}.A_log": draw.uniform(inner, 16, low=-4.0, high=1.5),
            f"{name}.D": draw.normal(inner),
            f"{name}.out_proj.weight": draw.matrix(width, inner, gain=0.3),
        }
    )


def student_mamba2(draw: Draw, config: Mapping[str, Any], name: str) -> Tensors:
    ssm, width, X = config["ssm_cfg"], config["d_model"], config["d_xb"]
    inner = config["d_inner"] or int(ssm["expand"] * width)
    return {
        f"{name}.in_proj.weight": draw.matrix(2 * inner + 2 * X + ssm["ngroups"], width),
        **mamba2_core(draw, name, ssm["ngroups"], inner + 2 * X, inner),
        f"{name}.out_proj.weight": draw.matrix(width, inner),
    }


def mamba2_core(draw: Draw, name: str, heads: int, convolved: int, inner: int) -> Tensors:
    return draw.conv(f"{name}.conv1d", convolved) | {
        f"{name}.dt_bias": draw.uniform(heads, low=-3.0, high=0.0),
        f"{name}.A_log": draw.uniform(heads, low=-4.0, high=1.0),
        f"{name}.D": draw.normal(heads),
        f"{name}.norm.weight": draw.norm(inner),
    }


# Phi-Mamba

PHI_CORE = {
    "d_state": 8,
    "n_v_heads": 4,
    "n_qk_heads": 4,
    "d_conv": 4,
    "conv_bias": True,
    "expand": 1,
    "chunk_size": 128,
    "activation": "identity",
    "bias": False,
}
PHI_ATTENTION = {"num_attention_heads": 4, "rope_theta": 500.0}
"""Fields that the authors' code passes to the wrong parameter: its attention blocks always have the defaults."""


def phi_mamba(
    cores: tuple[str, ...] = ("discrete_mamba2",) * 2, width: int = 64, first: int = 1, seed: int = 1
) -> Student:
    """A Phi-Mamba with one config block for each run of equal `cores`, the first of them `Block{first}`."""
    draw, vocab = Draw(seed), rounded_up(VOCAB, 8)
    runs = [(core, len(list(run))) for core, run in groupby(cores)]
    config: dict[str, Any] = {
        "LanguageModel": {"input": {"vocab_size": VOCAB, "pad_vocab_size_multiple": 8}},
        "MixerModel": {"input": {"d_model": width, "n_layer": len(cores), "lm_head_prenorm": "layer"}},
    } | {f"Block{first + n}": phi_block(core, layers) for n, (core, layers) in enumerate(runs)}
    tensors = {"backbone.embedding.weight": draw.embedding(vocab, width)}
    for i, core in enumerate(cores):
        prefix = f"backbone.layers.{i}"
        mixer = phi_attention if core == "phi_attention" else phi_discrete_mamba2
        tensors |= biased_norm(draw, f"{prefix}.input_layernorm", width) | mixer(draw, f"{prefix}.mixer", width)
        tensors |= biased_linear(draw, f"{prefix}.mlp.fc1", 4 * width, width, gain=1.5)
        tensors |= biased_linear(draw, f"{prefix}.mlp.fc2", width, 4 * width, gain=4)
    tensors |= biased_norm(draw, "backbone.final_layernorm", width)
    tensors |= biased_linear(draw, "lm_head", vocab, width, gain=2)
    return Student(config, tensors, vocab=vocab)


def phi_block(core: str, layers: int) -> dict[str, Any]:
    return {
        "n_layers": layers,
        "BlockType": "modules.phi_block",
        "block_input": {"resid_dropout": 0.0},
        "CoreType": f"modules.mixers.{core}",
        "core_input": PHI_ATTENTION if core == "phi_attention" else PHI_CORE,
    }


def phi_discrete_mamba2(draw: Draw, name: str, width: int) -> Tensors:
    return discrete_mamba2(draw, PHI_CORE, name, width)


def phi_attention(draw: Draw, name: str, width: int) -> Tensors:
    gains = {"q_proj": 2, "k_proj": 2, "v_proj": 1, "dense": 1}
    weights = [biased_linear(draw, f"{name}.self_attn.{part}", width, width, gain) for part, gain in gains.items()]
    return {key: tensor for each in weights for key, tensor in each.items()}


def biased_linear(draw: Draw, name: str, outputs: int, inputs: int, gain: float) -> Tensors:
    return {f"{name}.weight": draw.matrix(outputs, inputs, gain), f"{name}.bias": draw.normal(outputs, scale=0.5)}


def biased_norm(draw: Draw, name: str, width: int) -> Tensors:
    return {f"{name}.weight": draw.norm(width), f"{name}.bias": draw.normal(width, scale=0.3)}


# Mamba-2

MAMBA2_CONFIG = {
    "architectures": ["Mamba2ForCausalLM"],
    "model_type": "mamba2",
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_heads": 8,
    "head_dim": 8,
    "state_size": 16,
    "n_groups": 1,
    "expand": 2,
    "conv_kernel": 4,
    "chunk_size": 8,
    "use_bias": False,
    "use_conv_bias": True,
    "hidden_act": "silu",
    "layer_norm_epsilon": 1e-5,
    "residual_in_fp32": True,
    "time_step_limit": [0.0, float("inf")],
    "tie_word_embeddings": False,
    "pad_token_id": PAD,
    "bos_token_id": START,
    "eos_token_id": END,
}


def mamba2(seed: int = 5, **changes: Any) -> Student:
    """A Mamba2ForCausalLM."""
    config, draw = {**MAMBA2_CONFIG, **changes}, Draw(seed)
    vocab, width, heads = config["vocab_size"], config["hidden_size"], config["num_heads"]
    inner = heads * config["head_dim"]
    convolved = inner + 2 * config["n_groups"] * config["state_size"]
    tensors = {"backbone.embeddings.weight": draw.embedding(vocab, width)}
    for i in range(config["num_hidden_layers"]):
        name = f"backbone.layers.{i}.mixer"
        tensors[f"backbone.layers.{i}.norm.weight"] = draw.norm(width)
        tensors[f"{name}.in_proj.weight"] = draw.matrix(inner + convolved + heads, width)
        tensors |= mamba2_core(draw, name, heads, convolved, inner)
        tensors[f"{name}.out_proj.weight"] = draw.matrix(width, inner)
        if config["use_bias"]:
            tensors[f"{name}.in_proj.bias"] = draw.normal(inner + convolved + heads, scale=0.5)
            tensors[f"{name}.out_proj.bias"] = draw.normal(width, scale=0.5)
        if not config["use_conv_bias"]:
            del tensors[f"{name}.conv1d.bias"]
    return Student(config, tensors | draw.head("backbone.norm_f", vocab, width, config["tie_word_embeddings"]))


STUDENTS: dict[str, Callable[[], Student]] = {
    "llama": llama,
    "llama plain": lambda: llama(NO_SCALING, num_key_value_heads=4),
    "llama untied": lambda: llama(NEW_SPELLING, tie_word_embeddings=False, head_dim=12, num_key_value_heads=1),
    "llamba": llamba,
    "llamba untied": lambda: llamba(
        seed=12, tie_embeddings=False, lm_head_bias=True, vocab_size=VOCAB, pad_vocab_size_multiple=32, norm_epsilon=0.1
    ),
    "llamba groups": lambda: llamba(
        {"n_v_heads": 8, "n_qk_heads": 2, "expand": 2},
        without=("pad_vocab_size_multiple", "lm_head_bias", "resid_dropout", "norm_epsilon"),
        vocab_size=VOCAB,
    ),
    "llamba bias, silu": lambda: llamba({"bias": True, "activation": "silu"}),
    "mamba-in-llama": lambda: replace(mamba_in_llama(tie_word_embeddings=False), form="bin"),
    "mamba-in-llama fused": lambda: mamba_in_llama(
        {"expand": 1, "dt_rank": "auto"},
        fused_mamba=True,
        fused_attention=True,
        d_inner=64,
        hidden_size=40,
        head_dim=8,
    ),
    "mamba-in-llama late repeat": lambda: mamba_in_llama(
        {"expand": 2, "repeat_kv_before_conv": False, "dt_rank": 3},
        attn_layers=(0, 2),
        fused_attention=True,
        rope=NO_SCALING,
    ),
    "mamba-in-llama mamba2": lambda: mamba_in_llama(MAMBA2, attn_layers=(0, 2), d_inner=64),
    "mamba-in-llama own eps": lambda: mamba_in_llama(MAMBA2, mamba_eps=0.1),
    "mamba-in-llama mamba2 pure": lambda: mamba_in_llama(MAMBA2, attn_layers=(), num_hidden_layers=2),
    "phi-mamba": lambda: replace(phi_mamba(), form="bin"),
    "phi-mamba hybrid": lambda: phi_mamba(("discrete_mamba2", "phi_attention", "discrete_mamba2"), width=256, first=9),
    "mamba2": mamba2,
    "mamba2 groups": lambda: mamba2(n_groups=2),
    "mamba2 options": lambda: mamba2(
        use_bias=True, use_conv_bias=False, tie_word_embeddings=True, time_step_limit=[0.1, 0.5]
    ),
}
