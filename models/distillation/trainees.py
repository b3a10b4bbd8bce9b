"""What a recipe trains: a student of a teacher, or a reward model, with its data, losses and files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.architectures.causal_lm import CausalLM
from harness.models.architectures.initial import allocate
from harness.models.checkpoints import Checkpoint, find_checkpoint
from harness.models.native import load_model
from harness.models.tokenizers_ import end_tokens, generation_config, load_tokenizer

from . import rewards
from .batches import NumberedBatches, open_batches
from .likelihood import make_likelihood_objective
from .objectives import make_objective, set_trainable
from .recipes import Recipe, Stage
from .reward_data import reward_batches
from .rewards import RewardTrunk
from .saving import save_checkpoint
from .students import attention_layers, attention_layers_of, build_student, make_student, student_at, student_configs


@dataclass(slots=True)
class Trainee:
    """A model to train, in float32, and what is done with it.

    Stages are numbered from 1. `grown(model, number)` is the model as the stage wants it, the same one where it changes
    nothing; `empty(number)` is another one of that stage's shape, without values, on the CPU; `objective(model, stage)`
    is a module from a batch to a mapping with the `loss`, and has the model as its only submodule; `batches(stage,
    seed, processes)`; `save(model, folder, number, dtype)` writes a checkpoint.
    """

    model: nn.Module
    grown: Callable[[nn.Module, int], nn.Module]
    empty: Callable[[int], nn.Module]
    objective: Callable[[nn.Module, Stage], nn.Module]
    batches: Callable[[Stage, int, int], NumberedBatches]
    save: Callable[[nn.Module, Path, int, torch.dtype], None]


class RewardObjective(nn.Module):
    """A reward model with its loss, so that whoever wraps it reaches the model's forward pass."""

    def __init__(self, model: nn.Module, loss: rewards.Objective) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """The loss of a batch and what else is worth writing down."""
        return self.loss(batch)


def make_trainee(recipe: Recipe, device: torch.device) -> Trainee:
    """Load the teacher and make what the recipe trains.

    The device is the teacher's for its passes; the trainee starts on the CPU. Raises UserError when the teacher cannot
    be loaded or the student does not fit it.
    """
    checkpoint = find_checkpoint(recipe.teacher)
    tokenizer = load_tokenizer(checkpoint)
    if recipe.student.family in ("orm", "prm"):
        return reward_trainee(recipe, rewards.load_trunk(checkpoint), checkpoint, tokenizer)
    teacher = load_model(recipe.teacher)
    model, _ = make_student(student_at(recipe, 1), teacher, checkpoint.config, recipe.seed)
    guide = teacher
    if device.type != "cpu":
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        guide = load_model(recipe.teacher, dtype, str(device))
    guide.requires_grad_(False)
    generation = generation_config(checkpoint) | {"eos_token_id": sorted(end_tokens(checkpoint, tokenizer))}

    def grown(trained: nn.Module, number: int) -> nn.Module:
        assert isinstance(trained, CausalLM)
        wanted = student_at(recipe, number)
        if recipe.student.family != "mamba-in-llama" or attention_layers(trained) == attention_layers_of(wanted):
            return trained
        return make_student(wanted, trained, checkpoint.config, recipe.seed)[0]

    def empty(number: int) -> nn.Module:
        made, _ = build_student(student_at(recipe, number), checkpoint.config)
        allocate(made, torch.float32, torch.device("cpu"))
        return made

    def objective(trained: nn.Module, stage: Stage) -> nn.Module:
        set_trainable(trained, stage.trainable)
        return make_objective(stage, trained, guide)

    def save(trained: nn.Module, folder: Path, number: int, dtype: torch.dtype) -> None:
        student = student_at(recipe, number)
        _, layout = build_student(student, checkpoint.config)
        config, mamba_config = student_configs(student, checkpoint.config)
        save_checkpoint(folder, trained, layout, config, mamba_config, tokenizer, dtype, generation)

    def batches(stage: Stage, seed: int, processes: int) -> NumberedBatches:
        return open_batches(stage, tokenizer, seed, processes)

    return Trainee(model, grown, empty, objective, batches, save)


def reward_trainee(recipe: Recipe, teacher: CausalLM, checkpoint: Checkpoint, tokenizer: Any) -> Trainee:
    """The teacher with a score head, and more layers where the recipe says so."""
    kind: rewards.RewardKind = "orm" if recipe.student.family == "orm" else "prm"
    config = {**checkpoint.config, **recipe.student.config}
    model, layout = rewards.from_teacher(kind, teacher, config, recipe.seed)

    def empty(number: int) -> nn.Module:
        with torch.device("meta"):
            made, _ = rewards.build(kind, config)
        allocate(made, torch.float32, torch.device("cpu"))
        return made

    def save(trained: nn.Module, folder: Path, number: int, dtype: torch.dtype) -> None:
        assert isinstance(trained, RewardTrunk)
        rewards.save(folder, trained, layout, config, tokenizer, dtype)

    def objective(trained: nn.Module, stage: Stage) -> nn.Module:
        if stage.kind == "likelihood":
            return RewardObjective(trained, make_likelihood_objective(kind, trained, teacher))
        return RewardObjective(trained, rewards.make_reward_objective(stage, trained))

    def batches(stage: Stage, seed: int, processes: int) -> NumberedBatches:
        return reward_batches(stage, tokenizer, seed)

    return Trainee(model, lambda trained, number: trained, empty, objective, batches, save)
