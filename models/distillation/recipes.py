"""Distillation recipes: TOML files that say how a student is made, checked whole before anything is loaded.

    name = "zoo-llamba"
    teacher = "zoo/teacher"
    [student]
    family = "llamba"
    initialise = "mohawk"
    [student.config]
    d_model = 128
    ...
    [[stage]]
    kind = "matrix-orientation"
    ...

The field names of the dataclasses below are those of the file; `[[stage]]` becomes `Recipe.stages`. In the sentences of
errors a field is named by its path, `stage[0].data.source`, stages counted from 0.
"""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from harness.errors import UserError, choices

Family = Literal["llamba", "mamba-in-llama", "phi-mamba", "llama", "orm", "prm"]
Initialise = Literal["mohawk", "attention", "random"]
Kind = Literal["matrix-orientation", "hidden-alignment", "distillation", "sft", "likelihood", "orm", "prm"]
Precision = Literal["bf16", "fp32"]
Weights = Literal["fp32", "bf16", "fp16"]
Trainable = Literal["mixers", "all"]
Schedule = Literal["wsd", "cosine", "constant"]
LossOn = Literal["all", "completion"]

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """What is trained. `config` and `mamba_config` are the fields of its config.json and mamba_config.json.

    With `random` nothing is taken from the teacher; with `mohawk` and `attention` everything but the mixers, which
    start as the two methods say (`mohawk` leaves those of a `mamba-in-llama` at their random values). An `orm` or `prm`
    is the teacher, a Llama or a reward model, with a random score head, and its `config` says at most
    num_hidden_layers, when it is to have more, or the first of the teacher's only.
    The config of a `llama` or `mamba-in-llama` may leave out what is the teacher's.
    """

    family: Family
    initialise: Initialise = "random"
    config: Mapping[str, Any] = field(default_factory=dict)
    mamba_config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Weights of the token losses of a `distillation` or `sft` stage."""

    forward_kl: float = 0.0
    reverse_kl: float = 0.0
    cross_entropy: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What is read: `task:NAME?option=value`, `file:PATH.jsonl`, `run:DIR` or `hub:ID`.

    Texts are taken from `source` and each of `mixed_with` in turn; a reward model's, from all in one seeded order.
    `loss_on` completion leaves the prompt's tokens out of the loss, and has a reward model learn a run's verdicts at
    every token of a completion; `packed` joins texts to rows without padding.
    """

    source: str
    mixed_with: tuple[str, ...] = ()
    split: str = "train"
    loss_on: LossOn = "all"
    packed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stretch of training with its own optimiser. `tokens` counts all that are read, padding included.

    A step reads `rows` x `accumulate` rows on however many devices there are; `on` says what each of them reads.
    """

    kind: Kind
    tokens: int
    rows: int
    """Per forward pass."""
    context: int
    """Tokens per row."""
    accumulate: int = 1
    """Passes, over all devices together, whose gradients make one step."""
    trainable: Trainable = "all"
    attn_layers: tuple[int, ...] | None = None
    """The layers that keep attention from this stage on, for stepwise replacement; None leaves them as they are."""
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    """0 is off."""
    schedule: Schedule = "wsd"
    warmup_fraction: float = 0.1
    decay_fraction: float = 0.1
    min_learning_rate: float = 1e-8
    activation_checkpointing: bool = False
    loss: LossWeights = field(default_factory=LossWeights)
    data: Data

    @property
    def tokens_per_step(self) -> int:
        """Tokens that all devices together read in a step, padding included."""
        return self.rows * self.context * self.accumulate

    @property
    def steps(self) -> int:
        """Optimiser steps. Raises UserError when the tokens are no multiple of a step's."""
        per_step = self.tokens_per_step
        if self.tokens % per_step:
            below = self.tokens - self.tokens % per_step
            raise UserError(
                f"tokens of the {self.kind} stage is {self.tokens}, no multiple of the {per_step} tokens of a step "
                f"({self.rows} rows x {self.context} context x {self.accumulate} accumulate); "
                f"write {below or per_step} or {below + per_step}"
            )
        return self.tokens // per_step

    def on(self, devices: int) -> "Stage":
        """The stage with the `rows` and `accumulate` of each of so many devices: fewer passes first, then fewer rows.

        Raises UserError when the rows of a step cannot be shared out evenly.
        """
        share, rest = divmod(self.rows * self.accumulate, devices)
        passes = -(-share // self.rows)
        if rest or share % passes:
            raise UserError(
                f"a step of the {self.kind} stage has {self.rows * self.accumulate} rows ({self.rows} rows x "
                f"{self.accumulate} accumulate), which {devices} devices cannot share evenly; train on another number "
                "of devices or change rows or accumulate"
            )
        return replace(self, rows=share // passes, accumulate=passes)

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher reads every batch too."""
        matching = self.kind in ("matrix-orientation", "hidden-alignment")
        return matching or self.kind == "likelihood" or self.loss.forward_kl > 0 or self.loss.reverse_kl > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole run.

    It trains in `precision`; `weights` is how the finished checkpoint is stored. `teacher_config` repeats fields of the
    teacher's config.json where its files are not at hand.
    """

    name: str
    teacher: str
    student: Student
    stages: tuple[Stage, ...]
    seed: int = 0
    precision: Precision = "bf16"
    weights: Weights = "fp32"
    checkpoint_steps: int = 200
    teacher_config: Mapping[str, Any] = field(default_factory=dict)


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe; of the teacher only config.json is read.

    Raises UserError, naming the file and the field, when the file is missing or no TOML, a field is unknown, missing,
    of another type or out of range, the stages do not suit the student, or the student does not fit the teacher.
    """
    from .fit import check_fit

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the recipe '{path}' ({error.strerror}); name a TOML file") from error
    except ValueError as error:
        raise UserError(f"the recipe '{path}' is not valid TOML ({error})") from error
    try:
        recipe = parse_recipe(table)
        check_fit(recipe)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return recipe


def parse_recipe(table: Mapping[str, Any]) -> Recipe:
    """A recipe out of a parsed TOML document, each field checked by itself. Raises UserError naming the field."""
    stages = table.get("stage")
    if not isinstance(stages, list) or not stages:
        raise UserError("a recipe has at least one [[stage]]")
    if "stages" in table:
        raise UserError("there is no field stages; write each stage as a table [[stage]]")
    recipe = read_table(Recipe, {**{key: table[key] for key in table if key != "stage"}, "stages": stages}, "")
    check_values(recipe, "")
    for number, stage in enumerate(recipe.stages):
        check_values(stage, f"stage[{number}].")
        check_values(stage.loss, f"stage[{number}].loss.")
    return recipe


Table = TypeVar("Table")


def read_table(kind: type[Table], table: Any, path: str) -> Table:
    """A dataclass out of a TOML table. Raises UserError for unknown, missing and wrong-typed fields."""
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type] # kind is a dataclass
    shown = [name if name != "stages" else "stage" for name in known]
    if not isinstance(table, dict):
        raise UserError(f"{path.rstrip('.')} must be a table, got {table!r}")
    for name in table:
        if name not in known:
            raise UserError(f"there is no field {path}{name}; known here are {choices(shown)}")
    for name, entry in known.items():
        if name not in table and entry.default is MISSING and entry.default_factory is MISSING:
            raise UserError(f"the field {path}{name} is missing")
    hints = get_type_hints(kind)
    return kind(**{name: read_value(hints[name], value, f"{path}{name}") for name, value in table.items()})


def read_value(hint: Any, value: Any, path: str) -> Any:
    """A TOML value as the type of a field."""
    if is_dataclass(hint):
        return read_table(hint, value, f"{path}.")  # type: ignore[arg-type] # a hint is a class
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UserError(f"{path} has no value {value!r}; write one of {choices(list(get_args(hint)))}")
        return value
    if hint == tuple[Stage, ...]:
        return tuple(read_table(Stage, entry, f"stage[{number}].") for number, entry in enumerate(value))
    if hint in (tuple[str, ...], tuple[int, ...] | None):
        kind = str if hint == tuple[str, ...] else int
        if not isinstance(value, list):
            raise UserError(f"{path} must be a list, got {value!r}")
        return tuple(read_value(kind, entry, f"{path}[{number}]") for number, entry in enumerate(value))
    if hint == tuple[float, float]:
        if not isinstance(value, list) or len(value) != 2:
            raise UserError(f"{path} must be two numbers, such as [0.9, 0.95], got {value!r}")
        return tuple(read_value(float, entry, path) for entry in value)
    if hint is float and type(value) is int:
        return float(value)
    expected, spelled = TYPES.get(hint, (dict, "a table"))
    if type(value) is not expected:
        raise UserError(f"{path} must be {spelled}, got {value!r}")
    return value


TYPES: dict[Any, tuple[type, str]] = {
    str: (str, "a text"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (bool, "true or false"),
}

RANGES: Mapping[str, tuple[float, float, str]] = {
    "tokens": (1, math.inf, "at least 1"),
    "rows": (1, math.inf, "at least 1"),
    "context": (2, math.inf, "at least 2"),
    "accumulate": (1, math.inf, "at least 1"),
    "checkpoint_steps": (1, math.inf, "at least 1"),
    "seed": (0, 2**63 - 1, "from 0 to 2^63 - 1"),
    "learning_rate": (5e-324, 1e3, "above 0"),
    "min_learning_rate": (0, 1e3, "at least 0 and at most learning_rate"),
    "eps": (5e-324, 1, "above 0 and at most 1"),
    "weight_decay": (0, 1e3, "at least 0"),
    "clip_norm": (0, 1e300, "at least 0, where 0 is off"),
    "warmup_fraction": (0, 1, "from 0 to 1"),
    "decay_fraction": (0, 1, "from 0 to 1"),
    "forward_kl": (0, 1e300, "at least 0 and finite"),
    "reverse_kl": (0, 1e300, "at least 0 and finite"),
    "cross_entropy": (0, 1e300, "at least 0 and finite"),
}
"""Least and greatest value of every number, and how an error says it."""


def check_values(table: Any, path: str) -> None:
    """Raises UserError for a number out of its range and a text that is empty or no name."""
    for entry in fields(table):
        value = getattr(table, entry.name)
        low, high, spelled = RANGES.get(entry.name, (-math.inf, math.inf, ""))
        if isinstance(value, int | float) and not low <= value <= high:
            raise UserError(f"{path}{entry.name} must be {spelled}, got {value!r}")
    if isinstance(table, Recipe):
        if not NAME.fullmatch(table.name):
            raise UserError(f"name must be letters, digits and any of . _ -, got {table.name!r}")
        if not table.teacher:
            raise UserError("teacher is empty; write a folder, a hub id or zoo/NAME")
    if isinstance(table, Stage):
        check_schedule(table, path)


def check_schedule(stage: Stage, path: str) -> None:
    """Raises UserError for betas outside [0, 1), a rate that would end above its start, or fractions past the whole."""
    if not all(0 <= beta < 1 for beta in stage.betas):
        raise UserError(f"{path}betas must each be at least 0 and below 1, got {list(stage.betas)}")
    if stage.min_learning_rate > stage.learning_rate:
        raise UserError(
            f"{path}min_learning_rate {stage.min_learning_rate} is above learning_rate {stage.learning_rate}"
        )
    if stage.schedule == "wsd" and stage.warmup_fraction + stage.decay_fraction > 1:
        raise UserError(
            f"{path}warmup_fraction {stage.warmup_fraction} and decay_fraction {stage.decay_fraction} sum to above 1"
        )
