"""What a recipe will cost, reckoned from shapes on the meta device: parameters, steps, FLOPs and hours.

`memory` reckons the memory.

FLOPs follow `harness.models.flops`. A pass forward is counted once, the gradient of what flows through the model once
more, and the gradients of trained weights once more, so that what is trained costs three times its pass forward and
what is frozen twice; a teacher costs its pass forward; activation checkpointing costs the blocks' pass forward again.
In the matching stages no gradient leaves a layer.
"""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from harness.models.architectures.attention import Attention
from harness.models.architectures.causal_lm import CausalLM
from harness.models.flops import ForwardFlops, count_native_flops

from .fit import build_pair, teacher_config
from .memory import Memory, count, stage_memory, trunk_of
from .objectives import set_trainable
from .recipes import Recipe, Stage
from .rewards import RewardTrunk

TFLOPS = 0.4 * 989
"""What one device is taken to sustain: 40 % of an H100's bf16 peak."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The cost of one stage. `tokens` and `flops` are of all devices together; `hours` are of the wall clock."""

    kind: str
    parameters: int
    trained: int
    frozen: int
    teacher_parameters: int
    tokens: int
    steps: int
    tokens_per_step: int
    flops: float
    memory: Memory
    hours: float


def plan(recipe: Recipe, devices: int = 1, device_tflops: float = TFLOPS) -> list[StagePlan]:
    """The cost of every stage on so many devices, each sustaining so many 10^12 FLOP per second.

    Raises UserError when these devices cannot share the rows of a step evenly.
    """
    plans = []
    for number, stage in enumerate(recipe.stages):
        teacher, student = build_pair(recipe, number)
        plans.append(plan_stage(recipe, stage, teacher, student, devices, device_tflops))
    return plans


def as_document(recipe: Recipe, devices: int = 1, device_tflops: float = TFLOPS) -> dict[str, Any]:
    """The plan as one JSON document; see `plan`."""
    stages = plan(recipe, devices, device_tflops)
    first = stages[0]
    return {
        "recipe": recipe.name,
        "precision": recipe.precision,
        "devices": devices,
        "device_tflops": device_tflops,
        "student": {"family": recipe.student.family, "parameters": first.parameters},
        "teacher": {
            "name": recipe.teacher,
            "family": teacher_config(recipe)[0],
            "parameters": first.teacher_parameters,
        },
        "stages": [describe(stage, devices) for stage in stages],
        "total": {
            name: sum(getattr(stage, name) for stage in stages) for name in ("tokens", "steps", "flops", "hours")
        },
    }


def describe(stage: StagePlan, devices: int) -> dict[str, Any]:
    """The cost of one stage with the sums of its memory: everything on every device (DDP), and sharded (FSDP)."""
    memory = {f"{name}_bytes": size for name, size in asdict(stage.memory).items()}
    sums = {"replicated_bytes": stage.memory.total(), "sharded_bytes": stage.memory.total(devices)}
    return {**asdict(stage), "memory": memory | sums}


def plan_stage(
    recipe: Recipe, stage: Stage, teacher: CausalLM, student: nn.Module, devices: int, device_tflops: float
) -> StagePlan:
    """The cost of one stage."""
    set_trainable(student, stage.trainable)
    steps = stage.steps
    rows = stage.tokens // stage.context
    flops = rows * row_flops(stage, teacher, student)
    parameters, trained = count(student), count(student, trained=True)
    return StagePlan(
        kind=stage.kind,
        parameters=parameters,
        trained=trained,
        frozen=parameters - trained,
        teacher_parameters=count(teacher),
        tokens=stage.tokens,
        steps=steps,
        tokens_per_step=stage.tokens_per_step,
        flops=flops,
        memory=stage_memory(recipe, stage.on(devices), teacher, student),
        hours=flops / (devices * device_tflops * 1e12) / 3600,
    )


def row_flops(stage: Stage, teacher: CausalLM, student: nn.Module) -> float:
    """FLOPs of one row of `context` tokens, forward and backward, with its teacher."""
    trunk = trunk_of(student)
    layers = [cost for cost, new in zip(layer_costs(trunk), trunk.mixers, strict=True) if is_replaced(stage, new)]
    if stage.kind == "matrix-orientation":
        own = orientation_flops(stage, trunk)
    else:
        forward = sum(row(cost, stage.context) for cost in layers)
        head = 0 if isinstance(student, RewardTrunk) or stage.kind == "hidden-alignment" else head_flops(stage, trunk)
        own = 2 * (forward + head) + trained_flops(stage, trunk, head)
        own += forward if stage.activation_checkpointing else 0
    if not stage.needs_teacher:
        return own
    body = sum(row(cost, stage.context) for cost in layer_costs(teacher))
    return own + body + (head_flops(stage, teacher) if stage.kind in ("distillation", "sft", "likelihood") else 0)


def is_replaced(stage: Stage, mixer: nn.Module) -> bool:
    """Whether a layer is run: all are, but for the matching stages those that keep attention."""
    return stage.kind != "hidden-alignment" or not isinstance(mixer, Attention)


def layer_costs(model: CausalLM) -> list[ForwardFlops]:
    """The cost of every block by itself."""
    return [
        ForwardFlops(linear_weights(block), 0, mixer.attention_width, mixer.scan_flops)
        for block, mixer in zip(model.blocks, model.mixers, strict=True)
    ]


def linear_weights(module: nn.Module, *, trained: bool = False) -> int:
    """Weights of linear layers; only those that are trained when asked."""
    weights = [part.weight for part in module.modules() if isinstance(part, nn.Linear)]
    return sum(weight.numel() for weight in weights if weight.requires_grad or not trained)


def row(cost: ForwardFlops, context: int) -> float:
    """FLOPs of a pass forward over one row of `context` tokens, with logits for each of them."""
    return cost.decode_row(0, context)


def head_flops(stage: Stage, model: CausalLM) -> float:
    """FLOPs of the logits of one row."""
    return row(ForwardFlops(0, count_native_flops(model).head, 0), stage.context)


def trained_flops(stage: Stage, trunk: CausalLM, head: float) -> float:
    """FLOPs of the gradients of what is trained, one row: those of its pass forward.

    Scans and attention have no weights of their own; their second gradient goes with their mixer.
    """
    total = head if trunk.head.weight.requires_grad else 0.0
    for block, mixer in zip(trunk.blocks, trunk.mixers, strict=True):
        if not is_replaced(stage, mixer):
            continue
        mixes = any(parameter.requires_grad for parameter in mixer.parameters())
        width, scan = (mixer.attention_width, mixer.scan_flops) if mixes else (0, 0)
        total += row(ForwardFlops(linear_weights(block, trained=True), 0, width, scan), stage.context)
    return total


def orientation_flops(stage: Stage, trunk: CausalLM) -> float:
    """FLOPs of one row of matrix orientation: projections, and a matrix per head from both sides.

    The student's matrix is a product over its state, the teacher's one over a head's channels, each L^2 large; the
    student's is differentiated, and made again with checkpointing.
    """
    total, square = 0.0, stage.context**2
    again = 1 if stage.activation_checkpointing else 0
    for mixer in trunk.mixers:
        if isinstance(mixer, Attention):
            continue
        heads, state = int(getattr(mixer, "heads", 0)), int(getattr(mixer, "d_state", 0))
        head_dim = int(getattr(mixer, "head_dim", 0))
        projection = 2 * mixer.in_proj.weight.numel() * stage.context
        total += (2 + again) * projection + (3 + again) * 2 * square * heads * state
        total += (1 + again) * 2 * square * heads * head_dim
    return total
