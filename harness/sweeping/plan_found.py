"""What of a sweep is on this machine or can be had from the hub without weights, each thing looked for once."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from harness import plugins
from harness.errors import UserError
from harness.nouns import Problem
from harness.running.bench import OWN_ENGINE
from harness.sweeping.sweep import Cell
from harness.sweeping.sweep_speed import REMOTE


class Found:
    """Problems, configs, tokenizers and shapes; None, or a sentence, stands for what could not be had."""

    def __init__(self, assumed: Mapping[str, Any]) -> None:
        self.assumed = assumed
        self.tasks: dict[Any, list[Problem] | str] = {}
        self.checkpoints: dict[str, Any] = {}
        self.tokenizers: dict[str, Any] = {}

    def problems(self, cell: Cell) -> list[Problem] | str:
        """The task's problems where their data can be had, else the sentence that says what is missing."""
        key = cell.asked.task, cell.asked.task_options, cell.asked.data
        if key not in self.tasks:
            try:
                self.tasks[key] = list(plugins.load_task(*key).problems)
            except UserError as error:
                self.tasks[key] = str(error)
        return self.tasks[key]

    def checkpoint(self, name: str) -> Any:
        """The small files of a checkpoint, from this machine or the hub; None where they cannot be had."""
        if name not in self.checkpoints:
            try:
                found = importlib.import_module("harness.models.checkpoints").find_checkpoint(name)
            except UserError:
                found = None
            self.checkpoints[name] = found
        return self.checkpoints[name]

    def model(self, cell: Cell) -> Any:
        """The small files of a run's model; None for one that is no checkpoint, or runs behind an endpoint."""
        name = cell.arm.model
        if cell.arm.engine == REMOTE or name.startswith("preset/") or not plugins.names_checkpoint(name):
            return None
        return self.checkpoint(name)

    def tokens(self, cell: Cell, problems: Sequence[Problem]) -> float | None:
        """Mean tokens of the rendered prompts; None where there is no tokenizer to count them."""
        tokenizer, text = self.tokenizer(self.model(cell)), importlib.import_module("harness.models.text")
        if tokenizer is None or not problems:
            return None
        return sum(len(text.encode(tokenizer, problem.prompt)) for problem in problems) / len(problems)

    def tokenizer(self, checkpoint: Any) -> Any:
        """A checkpoint's own tokenizer, or that of the model it was distilled from; None where there is none."""
        if checkpoint is None:
            return None
        if checkpoint.name not in self.tokenizers:
            try:
                loaded = importlib.import_module("harness.models.tokenizers_").load_tokenizer(checkpoint)
            except UserError:
                loaded = None
            self.tokenizers[checkpoint.name] = loaded
        return self.tokenizers[checkpoint.name]

    def shape(self, cell: Cell) -> tuple[Any, str | None]:
        """The model's shape with where it is from: its config, or the preset named beside it; None where neither is.

        Raises UserError for a preset that does not exist.
        """
        checkpoint = self.model(cell)
        if checkpoint is not None:
            return costs("shapes").checkpoint_shape(checkpoint), "config"
        preset = cell.arm.model if cell.arm.model.startswith("preset/") else cell.shape
        return (costs("shapes").read_shape(preset), preset) if preset else (None, None)

    def reward_shape(self, name: str) -> Any:
        """A reward model's shape: its config's, else that of the preset `reward_shape`; None where neither is there.

        Raises UserError for a preset that does not exist.
        """
        if plugins.names_reward_model(name):
            return None
        checkpoint, preset = self.checkpoint(name), self.assumed.get("reward_shape")
        if checkpoint is not None:
            return costs("shapes").checkpoint_shape(checkpoint)
        return None if preset is None else costs("shapes").read_shape(preset)

    def disk_bytes(self, name: str, shape: Any) -> int | None:
        """Bytes of a checkpoint's weight files: those that are here, else as it is published.

        Without a `torch_dtype` in its config a Llamba is float32, as published ones are, and anything else bfloat16.
        """
        checkpoint = self.checkpoints.get(name)
        folder = None if checkpoint is None else checkpoint.folder
        files = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")] if folder else []
        if files or shape is None:
            return sum(file.stat().st_size for file in files) or None
        config = {} if checkpoint is None else checkpoint.config
        usual = "float32" if shape.family == "llamba" else "bfloat16"
        sizes = costs("traffic").SIZES
        return int(shape.parameters * sizes.get(config.get("torch_dtype"), sizes[usual]))


def costs(name: str) -> Any:
    """A module of the models' costs."""
    return importlib.import_module(f"harness.models.costs.{name}")


def setting_of(cell: Cell, name: str) -> Any:
    """What a run's engine is told by an option, as text, else its default; None where it has no such option."""
    for option in cell.arm.options:
        if option.startswith(f"{name}="):
            return option.partition("=")[2]
    own = cell.arm.engine == OWN_ENGINE
    function = plugins.load_function("models", cell.arm.model if own else cell.arm.engine)
    known = inspect.signature(function).parameters.get(name)
    return None if known is None or known.default is inspect.Parameter.empty else known.default


def precision_of(cell: Cell) -> Any:
    """The bytes of a run's weights and states; `auto` is bfloat16, as on a GPU."""
    dtype, states = setting_of(cell, "dtype"), setting_of(cell, "state_dtype")
    facts = {"dtype": "bfloat16" if dtype in (None, "auto") else dtype, "state_dtype": states}
    return costs("traffic").precision_of(facts) or costs("traffic").BF16


def reward_precision_of(cell: Cell) -> Any:
    """The same of its reward models."""
    dtypes = [pair.partition("=")[2] for pair in cell.asked.reward_options if pair.startswith("dtype=")]
    return costs("traffic").precision_of({"dtype": dtypes[-1] if dtypes else "bfloat16"}) or costs("traffic").BF16
