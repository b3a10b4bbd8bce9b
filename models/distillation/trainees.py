"""What a recipe trains: a student of a teacher, or a reward model, with its data, losses and files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.architectures.initial import allocate
from harness.models.checkpoints import Checkpoint, find_checkpoint
from harness.models.native import load_model
from harness.models.tokenizers_ import end_tokens, generation_config, load_tokenizer

from . import rewards
from .batches import NumberedBatches, open_batches
from .objectives import make_objective, set_trainable
from .recipes import Recipe, Stage
from .reward_data import reward_batches
from .rewards import RewardTrunk
from .saving import save_checkpoint
from .students import build_student, make_student, student_configs


@dataclass(slots=True)
class Trainee:
    """A model to train, in float32, and what is done with it.

    `empty()` is another one of the same shape, without values, on the CPU; `objective(model, stage)` is a module from a
    batch to a mapping with the `loss`, and has the model as its only submodule; `batches(stage, seed, processes)`;
    `save(model, folder)` writes a checkpoint.
    """

    model: nn.Module
    empty: Callable[[], nn.Module]
    objective: Callable[[nn.Module, Stage], nn.Module]
    batches: Callable[[Stage, int, int], NumberedBatches]
    save: Callable[[nn.Module, Path], None]


class RewardObjective(nn.Module):
    """A reward model with its loss, so that whoever wraps it reaches the model's forward pass."""

    def __init__(self, model: nn.Module, stage: Stage) -> None:
        super().__init__()
        self.model = model
        self.loss = rewards.make_reward_objective(stage, model)

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
    teacher = load_model(recipe.teacher)
    if recipe.student.family in ("orm", "prm"):
        return reward_trainee(recipe, teacher, checkpoint, tokenizer)
    model, layout = make_student(recipe.student, teacher, checkpoint.config, recipe.seed)
    guide = teacher
    if device.type != "cpu":
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        guide = load_model(recipe.teacher, dtype, str(device))
    guide.requires_grad_(False)
    config, mamba_config = student_configs(recipe.student, checkpoint.config)
    generation = generation_config(checkpoint) | {"eos_token_id": sorted(end_tokens(checkpoint, tokenizer))}

    def empty() -> nn.Module:
        made, _ = build_student(recipe.student, checkpoint.config)
        allocate(made, torch.float32, torch.device("cpu"))
        return made

    def objective(trained: nn.Module, stage: Stage) -> nn.Module:
        set_trainable(trained, stage.trainable)
        return make_objective(stage, trained, guide)

    def save(trained: nn.Module, folder: Path) -> None:
        save_checkpoint(folder, trained, layout, config, mamba_config, tokenizer, generation_config=generation)

    def batches(stage: Stage, seed: int, processes: int) -> NumberedBatches:
        return open_batches(stage, tokenizer, seed, processes)

    return Trainee(model, empty, objective, batches, save)


def reward_trainee(recipe: Recipe, teacher: Any, checkpoint: Checkpoint, tokenizer: Any) -> Trainee:
    """The teacher with a score head."""
    kind: rewards.RewardKind = "orm" if recipe.student.family == "orm" else "prm"
    model, layout = rewards.from_teacher(kind, teacher, checkpoint.config, recipe.seed)

    def empty() -> nn.Module:
        with torch.device("meta"):
            made, _ = rewards.build(kind, checkpoint.config)
        allocate(made, torch.float32, torch.device("cpu"))
        return made

    def save(trained: nn.Module, folder: Path) -> None:
        assert isinstance(trained, RewardTrunk)
        rewards.save(folder, trained, layout, checkpoint.config, tokenizer, torch.float32)

    def batches(stage: Stage, seed: int, processes: int) -> NumberedBatches:
        return reward_batches(stage, tokenizer, seed)

    return Trainee(model, empty, RewardObjective, batches, save)
