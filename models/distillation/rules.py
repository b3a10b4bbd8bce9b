"""Which stages, starts and data each family of student can have: what a recipe says, held against itself."""

import itertools
from pathlib import Path

from harness import plugins
from harness.errors import UserError, choices

from .recipes import Recipe, Stage, Student
from .students import attention_layers_of

TOKEN_STAGES = ("distillation", "sft")
STAGES = {
    "llamba": ("matrix-orientation", "hidden-alignment", *TOKEN_STAGES),
    "mamba-in-llama": ("matrix-orientation", "hidden-alignment", *TOKEN_STAGES),
    "phi-mamba": ("matrix-orientation", "hidden-alignment", *TOKEN_STAGES),
    "llama": TOKEN_STAGES,
    "orm": ("likelihood", "orm"),
    "prm": ("likelihood", "prm"),
}
"""The kinds of stage that each family can be trained by."""

STARTS = {
    "llamba": ("mohawk", "random"),
    "mamba-in-llama": ("attention", "mohawk", "random"),
    "phi-mamba": ("mohawk", "random"),
    "llama": ("attention", "mohawk", "random"),
    "orm": ("random",),
    "prm": ("random",),
}
"""The values of `initialise` that mean something for each family; a llama takes all of its teacher by either of two."""

SOURCES = {"task": "a task's NAME", "file": "a PATH.jsonl", "run": "a run's DIR", "hub": "a hub ID"}


def check_student(student: Student) -> None:
    """Raises UserError for a start that the family does not have and for config tables that it lacks or cannot use."""
    if student.initialise not in STARTS[student.family]:
        raise UserError(
            f"student.initialise '{student.initialise}' is not for {student.family}; write "
            f"{choices(list(STARTS[student.family]))}"
        )
    if student.mamba_config and student.family != "mamba-in-llama":
        raise UserError(f"student.mamba_config is for mamba-in-llama, not for {student.family}; leave it out")
    if student.family in ("orm", "prm") and student.config.keys() - {"num_hidden_layers"}:
        raise UserError(
            f"student.config of an {student.family} may say num_hidden_layers and no more; the rest is the teacher's"
        )
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
    if student.family in ("orm", "prm") and stage.trainable == "mixers":
        raise UserError(f"{path}trainable must be all: the score head of an {student.family} is no mixer")
    check_source(stage.data.source, f"{path}data.source")
    for place, source in enumerate(stage.data.mixed_with):
        check_source(source, f"{path}data.mixed_with[{place}]")


def check_replacement(recipe: Recipe) -> None:
    """Raises UserError when the stages do not keep ever fewer attention layers, down to the student's own."""
    named = [(number, stage.attn_layers) for number, stage in enumerate(recipe.stages) if stage.attn_layers is not None]
    if not named:
        return
    path, student = f"stage[{named[0][0]}].attn_layers", recipe.student
    if student.family != "mamba-in-llama":
        raise UserError(f"{path} is for a student of the family mamba-in-llama, not for {student.family}; leave it out")
    if student.initialise == "random":
        raise UserError(
            f'{path} replaces layers of the teacher and initialise = "random" takes none; write "attention"'
        )
    if named[0][0] > 0:
        raise UserError(f"{path}: replacement in steps starts with the first stage; write stage[0].attn_layers too")
    for (_, before), (number, after) in itertools.pairwise(named):
        if not set(after) < set(before):
            raise UserError(
                f"stage[{number}].attn_layers {list(after)} must be some of {list(before)}, which stages before keep"
            )
    number, last = named[-1]
    if sorted(last) != attention_layers_of(student):
        raise UserError(
            f"stage[{number}].attn_layers is the last and {list(last)}, and student.mamba_config.attn_layers is "
            f"{attention_layers_of(student)}; make them equal"
        )


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
