"""Whether stages, data, student and teacher of a recipe fit each other, told without reading a weight.

Student and teacher are built on the meta device, which has shapes and no memory, and the student is started there as it
will be on a real one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness import plugins
from harness.errors import UserError, choices
from harness.models import native
from harness.models.architectures import llama, phi
from harness.models.architectures.causal_lm import CausalLM
from harness.models.architectures.mamba1 import Mamba1Mixer
from harness.models.checkpoints import Checkpoint, family, find_checkpoint, find_folder

from . import rewards
from .matching import check_heads, replaced_layers
from .objectives import set_trainable
from .recipes import Recipe, Stage, Student
from .students import build_student, start_mixer, take_over

TEACHERS = {"llama": llama.build, "phi": phi.build}

TOKEN_STAGES = ("distillation", "sft")
STAGES = {
    "llamba": ("matrix-orientation", "hidden-alignment", *TOKEN_STAGES),
    "mamba-in-llama": ("matrix-orientation", "hidden-alignment", *TOKEN_STAGES),
    "phi-mamba": ("matrix-orientation", "hidden-alignment", *TOKEN_STAGES),
    "llama": TOKEN_STAGES,
    "orm": ("orm",),
    "prm": ("prm",),
}
"""The kinds of stage that each family can be trained by."""

STARTS = {
    "llamba": ("mohawk", "random"),
    "mamba-in-llama": ("attention", "random"),
    "phi-mamba": ("mohawk", "random"),
    "llama": ("attention", "mohawk", "random"),
    "orm": ("random",),
    "prm": ("random",),
}
"""The values of `initialise` that mean something for each family; a llama takes all of its teacher by either of two."""

SOURCES = {"task": "a task's NAME", "file": "a PATH.jsonl", "run": "a run's DIR", "hub": "a hub ID"}

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
    kind, config = teacher_config(recipe)
    check_shapes(recipe, kind, config)
    teacher, student = build_pair(recipe)
    if isinstance(student, CausalLM):
        rehearse(recipe, teacher, student)


def check_student(student: Student) -> None:
    """Raises UserError for a start that the family does not have and for config tables that it lacks or cannot use."""
    if student.initialise not in STARTS[student.family]:
        raise UserError(
            f"student.initialise '{student.initialise}' is not for {student.family}; write "
            f"{choices(list(STARTS[student.family]))}"
        )
    if student.mamba_config and student.family != "mamba-in-llama":
        raise UserError(f"student.mamba_config is for mamba-in-llama, not for {student.family}; leave it out")
    if student.family in ("orm", "prm") and student.config:
        raise UserError(f"student.config is empty for {student.family}: its trunk is the teacher; leave it out")
    if student.family in ("llamba", "phi-mamba") and not student.config:
        raise UserError(f"student.config is missing; write the fields of a {student.family}'s config.json")
    if student.family == "mamba-in-llama" and not student.mamba_config:
        raise UserError("student.mamba_config is missing; write at least attn_layers, the layers that keep attention")


def check_stage(stage: Stage, student: Student, path: str) -> None:
    """Raises UserError for a stage that the student's family cannot be trained by, or whose parts do not fit."""
    if stage.kind not in STAGES[student.family]:
        raise UserError(
            f"{path}kind '{stage.kind}' is not for {student.family}; write {choices(list(STAGES[student.family]))}"
        )
    try:
        _ = stage.steps
    except UserError as error:
        raise UserError(f"{path}{error}") from error
    weights = (stage.loss.forward_kl, stage.loss.reverse_kl, stage.loss.cross_entropy)
    if stage.kind in TOKEN_STAGES and not any(weights):
        raise UserError(
            f"{path}loss has no positive weight; write forward_kl, reverse_kl or cross_entropy in [stage.loss]"
        )
    if stage.kind not in TOKEN_STAGES and any(weights):
        raise UserError(f"{path}loss is for distillation and sft; a {stage.kind} stage has one loss of its own")
    if stage.kind == "matrix-orientation" and stage.trainable == "all":
        raise UserError(f"{path}trainable must be mixers: matrix-orientation reaches nothing else")
    if stage.kind in ("orm", "prm") and stage.trainable == "mixers":
        raise UserError(f"{path}trainable must be all: the score head of an {stage.kind} is no mixer")
    check_source(stage.data.source, f"{path}data.source")


def check_source(source: str, path: str) -> None:
    """Raises UserError when the data are not where the source says; of a hub id only the spelling is checked."""
    kind, colon, rest = source.partition(":")
    place = rest.partition("?")[0]
    if kind not in SOURCES or not colon or not place:
        known = choices([f"{name}: and {what}" for name, what in SOURCES.items()])
        raise UserError(f"{path} '{source}' says no kind of data; write {known}")
    if kind == "file" and not Path(place).is_file():
        raise UserError(f"{path}: there is no file '{place}' (looked from {Path.cwd()})")
    if kind == "run" and not (Path(place) / "manifest.json").is_file():
        raise UserError(f"{path}: there is no run at '{place}' (looked from {Path.cwd()})")
    if kind == "task":
        try:
            plugins.load_function("tasks", place)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


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
    if kind != wanted:
        raise UserError(
            f"teacher '{recipe.teacher}' is of the family {kind}; a student of the family {recipe.student.family} "
            f"wants a {wanted}"
        )
    if recipe.student.initialise != "random":
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


def build_pair(recipe: Recipe) -> tuple[CausalLM, nn.Module]:
    """Teacher and student on the meta device. Raises UserError when a config is not that of its family."""
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
            return teacher, rewards.build(recipe.student.family, config)[0]
    return teacher, build_student(recipe.student, config)[0]


def rehearse(recipe: Recipe, teacher: CausalLM, student: CausalLM) -> None:
    """Do to shapes what is going to be done to weights. Raises UserError where they do not fit."""
    start = recipe.student.initialise
    try:
        if start != "random":
            take_over(student, teacher)
            for number, (new, old) in enumerate(zip(student.mixers, teacher.mixers, strict=True)):
                start_mixer(new, old, start, f"layer {number}")
    except UserError as error:
        raise UserError(f"student: {error}") from error
    for number, stage in enumerate(recipe.stages):
        try:
            set_trainable(student, stage.trainable)
            if stage.needs_teacher:
                check_match(stage, student, teacher)
        except UserError as error:
            raise UserError(f"stage[{number}]: {error}") from error


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
