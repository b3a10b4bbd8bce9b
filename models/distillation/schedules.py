"""The optimiser of a stage, and its learning rate over the steps."""

import math

import torch
from torch import nn

from harness.models.architectures.initial import FLOAT32_NAMES

from .recipes import Schedule, Stage


def multiplier(schedule: Schedule, step: int, steps: int, warmup_fraction: float, decay_fraction: float) -> float:
    """The share in (0, 1] of the peak learning rate at a step.

    Args:
        schedule: every one rises linearly over the first `warmup_fraction` of the steps; then `constant` stays,
            `cosine` falls along half a cosine, and `wsd` (warm-up, stable, decay; arXiv 2404.06395) stays until the
            last `decay_fraction` of the steps and falls linearly. Both fall towards 0 at `steps`.
        step: from 0 to steps - 1.
        steps: of the whole stage.
        warmup_fraction: of the steps, rounded to whole steps; the last of them has the peak.
        decay_fraction: of the steps, for `wsd`.
    """
    warmup, decay = round(warmup_fraction * steps), round(decay_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
    if schedule == "wsd" and steps - step < decay:
        return (steps - step) / decay
    return 1.0


def learning_rate(stage: Stage, step: int, steps: int) -> float:
    """The learning rate of a stage at a step, from 0 to steps - 1: `multiplier` between its least and its peak."""
    share = multiplier(stage.schedule, step, steps, stage.warmup_fraction, stage.decay_fraction)
    return stage.min_learning_rate + (stage.learning_rate - stage.min_learning_rate) * share


def make_optimizer(model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters; weight decay on matrices and convolutions only.

    Vectors (norms, biases) and the recurrence's own parameters (A_log, D, dt_bias, z_bias) are not decayed.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in FLOAT32_NAMES
            (kept if exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": stage.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=stage.learning_rate, betas=stage.betas, eps=stage.eps
    )
