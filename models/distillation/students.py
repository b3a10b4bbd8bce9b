"""A student made from its teacher: what it takes over, and how its new mixers start.

The student has the teacher's depth, width, vocabulary and feed-forward layers; attention layers that it keeps are the
teacher's. In place of the others stand mixers that start as MOHAWK's (arXiv 2408.10189) or MambaInLlama's
(arXiv 2408.15237) do.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.models.architectures import llama, llamba, mamba_in_llama, phi_mamba
from harness.models.architectures.attention import Attention
from harness.models.architectures.blocks import Mixer
from harness.models.architectures.causal_lm import CausalLM
from harness.models.architectures.discrete_mamba2 import OPEN_GATE, DiscreteMamba2
from harness.models.architectures.initial import allocate, randomise
from harness.models.architectures.layout import Layout
from harness.models.architectures.mamba1 import Mamba1Mixer
from harness.models.architectures.mamba2_mixer import Mamba2Mixer
from harness.models.architectures.short_conv import ShortConv

from .recipes import Initialise, Recipe, Student

BUILDERS = {
    "llama": llama.build,
    "llamba": llamba.build,
    "mamba-in-llama": mamba_in_llama.build,
    "phi-mamba": phi_mamba.build,
}


def make_student(
    student: Student, teacher: CausalLM, teacher_config: Mapping[str, Any], seed: int = 0
) -> tuple[CausalLM, Layout]:
    """A student in float32 on the CPU, where its random values do not depend on the device, and its layout of keys.

    `mohawk` and `attention` take embedding, norms, feed-forward layers, head and every mixer of the same kind from the
    teacher. New mixers start at their defaults, and then

    - `mohawk`: discrete Mamba-2 gets a convolution that changes nothing and an open gate, others nothing;
    - `attention`: MambaInLlama's gets x, B, C and its output projection from values, keys, queries and output;
    - `random`: nothing is taken from the teacher at all.

    Raises UserError when the config is not that of the family, or the student does not fit the teacher.
    """
    model, layout = build_student(student, teacher_config)
    allocate(model, torch.float32, torch.device("cpu"))
    randomise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    for mixer in model.mixers:
        if not isinstance(mixer, Attention):
            reset_mixer(mixer, generator)
    if student.initialise != "random":
        take_over(model, teacher)
        for number, (new, old) in enumerate(zip(model.mixers, teacher.mixers, strict=True)):
            start_mixer(new, old, student.initialise, f"layer {number}")
    return model, layout


def build_student(student: Student, teacher_config: Mapping[str, Any]) -> tuple[CausalLM, Layout]:
    """The student on the meta device and its layout of keys.

    Raises UserError when the config is not that of the family, or the family is no student's.
    """
    if student.family not in BUILDERS:
        raise UserError(f"student.family '{student.family}' is the teacher with a score head, not a student of its own")
    config, mamba_config = student_configs(student, teacher_config)
    if mamba_config is not None:
        config = {**config, "mamba_config": mamba_config}
    try:
        with torch.device("meta"):
            return BUILDERS[student.family](config, None)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"student.config is not that of a {student.family} ({type(error).__name__}: {error}); compare it with a "
            "published config.json"
        ) from error


def student_configs(
    student: Student, teacher_config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The whole config.json and mamba_config.json of a student; the second is None outside MambaInLlama.

    Families with Llama's config start from the teacher's, and a mamba_config.json from what the teacher's shape says.
    """
    if student.family not in ("llama", "mamba-in-llama"):
        return dict(student.config), None
    config = {**teacher_config, **student.config}
    config.pop("mamba_config", None)
    if student.family == "llama":
        return config, None
    mamba_config = {
        "d_model": config["hidden_size"],
        "ssm_cfg": {"expand": 1},
        "rms_norm_eps": config["rms_norm_eps"],
        "vocab_size": None,
        "d_inner": None,
        "d_xb": llama.kv_heads(config) * llama.head_dim(config),
        "intermediate_size": config["intermediate_size"],
        "hidden_act": config.get("hidden_act", "silu"),
        "n_layer": config["num_hidden_layers"],
        "attn_layers": [],
    }
    return config, {**mamba_config, **student.mamba_config}


def student_at(recipe: Recipe, number: int) -> Student:
    """The student in stage `number`, counted from 1, with the attention layers that the stages so far have left."""
    left = [stage.attn_layers for stage in recipe.stages[:number] if stage.attn_layers is not None]
    if not left:
        return recipe.student
    return replace(recipe.student, mamba_config={**recipe.student.mamba_config, "attn_layers": list(left[-1])})


def attention_layers_of(student: Student) -> list[int]:
    """The layers that keep attention by a student's mamba_config."""
    return sorted(student.mamba_config.get("attn_layers", []))


def attention_layers(model: CausalLM) -> list[int]:
    """The layers of a model whose mixer is attention."""
    return [number for number, mixer in enumerate(model.mixers) if isinstance(mixer, Attention)]


@torch.no_grad()
def reset_mixer(mixer: nn.Module, generator: torch.Generator) -> None:
    """Torch's defaults for the projections and the convolution; the rest keeps the values of `randomise`."""
    for module in mixer.modules():
        if isinstance(module, nn.Linear):
            uniform(module.weight, module.in_features, generator)
        elif isinstance(module, ShortConv):
            uniform(module.weight, module.weight.shape[2], generator)
            if module.bias is not None:
                uniform(module.bias, module.weight.shape[2], generator)


def uniform(parameter: Tensor, inputs: int, generator: torch.Generator) -> None:
    """Uniform within 1 / sqrt(inputs) of 0."""
    bound = inputs**-0.5
    parameter.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def take_over(model: CausalLM, teacher: CausalLM) -> None:
    """Copy everything but the mixers. Raises UserError naming the part that does not fit."""
    if len(model.blocks) != len(teacher.blocks):
        raise UserError(
            f"the student has {len(model.blocks)} layers and its teacher {len(teacher.blocks)}; make them equal"
        )
    is_tied, was_tied = (each.head.weight is each.embedding.weight for each in (model, teacher))
    if is_tied and not was_tied:
        raise UserError(
            "the student's head is tied to its embedding and the teacher has a head of its own; set tie_embeddings "
            "(Llamba) or tie_word_embeddings to false in student.config"
        )
    copy(model.embedding, teacher.embedding, "embedding")
    copy(model.norm, teacher.norm, "last norm")
    copy(model.head, teacher.head, "head")
    for number, (new, old) in enumerate(zip(model.blocks, teacher.blocks, strict=True)):
        if type(new) is not type(old):
            raise UserError(
                f"layer {number} of the student is a {type(new).__name__} and of the teacher a {type(old).__name__}; "
                "choose a family whose blocks are built as the teacher's"
            )
        for name, part in new.named_children():
            if name != "mixer":
                copy(part, old.get_submodule(name), f"{name} of layer {number}")


def copy(new: nn.Module, old: nn.Module, part: str) -> None:
    """Copy all parameters; a bias that only the student has is 0. Raises UserError when the two differ in shape."""
    source = dict(old.named_parameters())
    for name, parameter in new.named_parameters():
        if name not in source and name.endswith("bias"):
            parameter.zero_()
            continue
        shape = tuple(source[name].shape) if name in source else None
        if shape != tuple(parameter.shape):
            raise misfit(part, f"{name} has the shape {tuple(parameter.shape)}", f"{shape or 'no such weight'}")
        parameter.copy_(source.pop(name))
    if source:
        raise misfit(part, "there is nothing", f"{', '.join(sorted(source))}")


def misfit(part: str, new: str, old: str) -> UserError:
    """The sentence for a part of the student that cannot take the teacher's weights."""
    return UserError(
        f"the student does not fit its teacher: in the {part} of the student {new}, where the teacher has {old}; "
        'change student.config or write initialise = "random"'
    )


@torch.no_grad()
def start_mixer(new: Mixer, old: Mixer, initialise: Initialise, layer: str) -> None:
    """The teacher's mixer where the two are of one kind, else as `initialise` says.

    Raises UserError when the two do not fit.
    """
    if type(new) is type(old):
        copy(new, old, f"mixer of {layer}")
    elif initialise == "attention":
        take_attention(new, old, layer)
    elif isinstance(new, DiscreteMamba2):
        open_mixer(new)


def take_attention(new: Mixer, old: Mixer, layer: str) -> None:
    """MambaInLlama's start: x from the values, B from the keys, C from the queries, the output from the output.

    Rows are copied as they are; the mixer expands the narrow x and B when it runs. The gate, the step size, the
    convolution, A and D keep their values.
    """
    if not isinstance(new, Mamba1Mixer | Mamba2Mixer) or not isinstance(old, Attention):
        raise UserError(
            f"{layer} of the student is {type(new).__name__} and of the teacher {type(old).__name__}; initialise = "
            '"attention" is for mamba-in-llama students of attention; write "mohawk" or "random"'
        )
    inner, *widths = new.widths[:4] if isinstance(new, Mamba1Mixer) else (new.inner, *new.widths)
    wanted = [old.n_kv_heads * old.head_dim] * 2 + [old.n_heads * old.head_dim]
    if widths != wanted:
        raise UserError(
            f"{layer} of the student has d_xb {widths[0]} and d_inner {widths[2]} where the teacher's keys have "
            f"{wanted[0]} and its queries {wanted[2]} channels; write d_xb = {wanted[0]} and d_inner = {wanted[2]}"
        )
    queries, keys, values = old.in_proj.weight.split([wanted[2], wanted[0], wanted[0]])
    new.in_proj.weight[inner : inner + sum(widths)] = torch.cat([values, keys, queries]).to(new.in_proj.weight)
    new.out_proj.weight.copy_(old.out_proj.weight)


def open_mixer(mixer: DiscreteMamba2) -> None:
    """MOHAWK's start: the convolution passes its input on, and the gate is 1 whatever its input."""
    mixer.conv1d.weight.zero_()[..., -1] = 1
    if mixer.conv1d.bias is not None:
        mixer.conv1d.bias.zero_()
    gate = slice(mixer.channels, mixer.channels + mixer.inner)
    mixer.in_proj.weight[gate] = 0
    bias = mixer.in_proj.bias[gate] if mixer.z_bias is None else mixer.z_bias
    bias.fill_(OPEN_GATE)
