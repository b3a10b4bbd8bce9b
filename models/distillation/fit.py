"""Whether stages, data, student and teacher of a recipe fit each other, told without reading a weight.

Student and teacher are built on the meta device, which has shapes and no memory, and the student is started there as it
will be on a real one.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from harness.errors import UserError
from harness.models import native
from harness.models.architectures import llama, llamba, mamba_in_llama, phi
from harness.models.architectures.causal_lm import CausalLM
from harness.models.architectures.mamba1 import Mamba1Mixer
from harness.models.checkpoints import Checkpoint, family, find_checkpoint, find_folder

from . import rewards
from .matching import check_heads, replaced_layers
from .objectives import set_trainable
from .recipes import Initialise, Recipe, Stage
from .rules import TOKEN_STAGES, check_replacement, check_stage, check_student
from .students import build_student, start_mixer, student_at, take_over

TEACHERS = {
    "llama": llama.build, "phi": phi.build, "llamba": llamba.build, "mamba-in-llama": mamba_in_llama.build,
}  # fmt: skip

SHAPE_FIELDS: Mapping[str, Mapping[str, str]] = {
    "llamba": {
        "d_model": "hidden_size",
        "n_layer": "num_hidden_layers",
        "mlp_cfg.intermediate_size": "intermediate_size",
        "vocab_size": "vocab_size",
    },
    "phi-mamba": {
        "MixerModel.input.d_model": "hidden_size",
        "MixerModel.input.n_layer": "num_hidden_layers",
        "LanguageModel.input.vocab_size": "vocab_size",
    },
    "mamba-in-llama": {
        name: name
        for name in (
            "hidden_size",
            "num_hidden_layers",
            "intermediate_size",
            "vocab_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
        )
    },
}
"""Fields of the student's config and the field of the teacher's config.json that each must equal."""


def check_fit(recipe: Recipe) -> None:
    """Raises UserError naming the field when the parts of a recipe do not fit each other."""
    check_student(recipe.student)
    for number, stage in enumerate(recipe.stages):
        check_stage(stage, recipe.student, f"stage[{number}].")
    check_replacement(recipe)
    kind, config = teacher_config(recipe)
    check_shapes(recipe, kind, config)
    rehearse(recipe)


def teacher_config(recipe: Recipe) -> tuple[str, Mapping[str, Any]]:
    """The teacher's family and config.json, or what the recipe's `teacher_config` says of a hub id.

    A hub id without `teacher_config` is looked up; with it nothing is downloaded.

    Raises UserError when there is no such teacher, or the recipe says something else of a folder than its config.json
    does.
    """
    if recipe.teacher_config and find_folder(recipe.teacher) is None:
        return family(recipe.teacher, recipe.teacher_config), recipe.teacher_config
    found = find_checkpoint(recipe.teacher)
    check_config(recipe, found)
    return found.family, found.config


def check_teacher(recipe: Recipe) -> None:
    """Before training: the teacher's files are at hand, are what the recipe says, and can be run.

    Of a hub id the small files are downloaded. Raises UserError.
    """
    found = find_checkpoint(recipe.teacher)
    check_config(recipe, found)
    try:
        native.builder(found)
    except UserError as error:
        raise UserError(
            f"the teacher '{recipe.teacher}' is of the family {found.family}, which the native engine cannot run; only "
            "--dry-run works for this recipe"
        ) from error


def check_config(recipe: Recipe, found: Checkpoint) -> None:
    """Raises UserError when the recipe says something else than the teacher's config.json."""
    for name, value in recipe.teacher_config.items():
        if found.config.get(name) != value:
            raise UserError(
                f"teacher_config.{name} is {value!r} and the config.json of '{recipe.teacher}' has "
                f"{found.config.get(name)!r}; correct it or leave teacher_config out"
            )


def check_shapes(recipe: Recipe, kind: str, config: Mapping[str, Any]) -> None:
    """Raises UserError naming the field in which student and teacher differ, or a context that the teacher lacks."""
    wanted = "phi" if recipe.student.family == "phi-mamba" else "llama"
    goes_on = kind == recipe.student.family and kind in TEACHERS
    if kind != wanted and not goes_on:
        raise UserError(
            f"teacher '{recipe.teacher}' is of the family {kind}; a student of the family {recipe.student.family} "
            f"wants a {wanted}, or one of its own family to go on from"
        )
    if recipe.student.initialise != "random" and not goes_on:
        for field, other in SHAPE_FIELDS.get(recipe.student.family, {}).items():
            value = dig(recipe.student.config, field)
            if value is not None and config.get(other) is not None and value != config[other]:
                raise UserError(
                    f"student.config.{field} is {value} and {other} of the teacher '{recipe.teacher}' {config[other]}; "
                    f"write {config[other]}"
                )
    longest = config.get("max_position_embeddings")
    for number, stage in enumerate(recipe.stages):
        if longest is not None and stage.context > longest:
            raise UserError(
                f"stage[{number}].context is {stage.context} and the teacher '{recipe.teacher}' reads at most {longest}"
            )


def dig(config: Any, path: str) -> Any:
    """The value at a dotted path of nested tables, or None."""
    for name in path.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def build_pair(recipe: Recipe, stage: int = 0) -> tuple[CausalLM, nn.Module]:
    """Teacher and the student of a stage, counted from 0, on the meta device.

    Raises UserError when a config is not that of its family.
    """
    kind, config = teacher_config(recipe)
    try:
        with torch.device("meta"):
            teacher, _ = TEACHERS[kind](config, None)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the config of the teacher '{recipe.teacher}' is not that of a {kind} ({type(error).__name__}: {error})"
        ) from error
    if recipe.student.family == "orm" or recipe.student.family == "prm":
        with torch.device("meta"):
            return teacher, rewards.build(recipe.student.family, {**config, **recipe.student.config})[0]
    return teacher, build_student(student_at(recipe, stage + 1), config)[0]


def rehearse(recipe: Recipe) -> None:
    """Do to shapes what is going to be done to weights. Raises UserError where they do not fit."""
    source: CausalLM | None = None
    for number, stage in enumerate(recipe.stages):
        teacher, student = build_pair(recipe, number)
        if not isinstance(student, CausalLM):
            return
        try:
            start(recipe.student.initialise, student, source or teacher)
        except UserError as error:
            raise UserError(f"student: {error}") from error
        source = student
        try:
            set_trainable(student, stage.trainable)
            if stage.needs_teacher:
                check_match(stage, student, teacher)
        except UserError as error:
            raise UserError(f"stage[{number}]: {error}") from error


def start(initialise: Initialise, student: CausalLM, source: CausalLM) -> None:
    """Start a student from its teacher, or from itself with more attention layers. Raises UserError on a misfit."""
    if initialise == "random":
        return
    take_over(student, source)
    for number, (new, old) in enumerate(zip(student.mixers, source.mixers, strict=True)):
        start_mixer(new, old, initialise, f"layer {number}")


def check_match(stage: Stage, student: CausalLM, teacher: CausalLM) -> None:
    """Raises UserError when the two models cannot be compared in the way of the stage."""
    if stage.kind in TOKEN_STAGES:
        if student.head.out_features != teacher.head.out_features:
            raise UserError(
                f"the student's vocabulary is {student.head.out_features} and the teacher's "
                f"{teacher.head.out_features}; their probabilities cannot be compared"
            )
        return
    if student.embedding.embedding_dim != teacher.embedding.embedding_dim or len(student.blocks) != len(teacher.blocks):
        raise UserError("layers can be matched only where student and teacher have as many, of the same width")
    layers = replaced_layers(student, teacher)
    if not layers:
        raise UserError(f"{stage.kind} has nothing to do: the student keeps every attention layer")
    if stage.kind == "matrix-orientation":
        if any(isinstance(student.mixers[number], Mamba1Mixer) for number in layers):
            raise UserError(
                "matrix-orientation is not for Mamba-1, whose mixing is not one matrix per head; leave the stage out "
                "or give student.mamba_config.ssm_cfg ngroups, which makes it Mamba-2"
            )
        check_heads(student, teacher, layers)
