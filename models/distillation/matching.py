"""MOHAWK's first two stages (arXiv 2408.10189): each layer of the student against the teacher's, on the same input.

Both losses feed each replaced layer the teacher's hidden state that enters it, so layers do not influence each other
and one pass of the teacher serves them all. A layer is replaced where the teacher has attention and the student has
not. Shapes: `b` rows padded on the right, `L` tokens, `H` heads.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.errors import UserError
from harness.models.architectures.attention import Attention
from harness.models.architectures.blocks import Block, SequentialBlock
from harness.models.architectures.causal_lm import CausalLM
from harness.models.architectures.mamba1 import Mamba1Mixer
from harness.models.architectures.passes import Span
from harness.models.architectures.rope import Rotation

from .losses import frobenius_distance, token_distance


def orientation_loss(
    student: CausalLM, teacher: CausalLM, token_ids: Tensor, mask: Tensor, *, recomputes: bool = False
) -> Tensor:
    """Stage 1: ||materialised mixer - attention matrix||_F, not squared, the mean over (row, head), summed over layers.

    The student's mixer reads the teacher's hidden state through the student's own norm. Only what makes the matrix
    gets a gradient: the projections to B, C and the decay, their convolution and D.

    Args:
        student: its replaced layers are Mamba-2 or discrete Mamba-2, with as many heads as the teacher's attention.
        teacher: its attention is compared per query head.
        token_ids: (b, L).
        mask: (b, L), True at real tokens.
        recomputes: whether matrices are computed again in the backward pass instead of being kept, one layer at a
            time.

    Raises UserError when a replaced layer has no matrix or another number of heads.
    """
    states, rotation = layer_inputs(teacher, token_ids)

    def distance(number: int, entering: Tensor) -> Tensor:
        target = attention_matrix(teacher, number, entering, rotation)
        return frobenius_distance(student_matrix(student, number, entering), target, mask)

    layers = replaced_layers(student, teacher)
    check_heads(student, teacher, layers)
    total = torch.zeros((), device=token_ids.device)
    for number in layers:
        if recomputes:
            total = total + checkpoint(distance, number, states[number], use_reentrant=False)
        else:
            total = total + distance(number, states[number])
    return total


def alignment_loss(student: CausalLM, teacher: CausalLM, token_ids: Tensor, mask: Tensor) -> Tensor:
    """Stage 2: ||student block's output - teacher's hidden state||_2, the mean over tokens, summed over layers.

    The student's block reads the teacher's hidden state that enters the layer; the norm is not squared. `token_ids`
    and `mask` (True at real tokens) are (b, L).
    """
    states, _ = layer_inputs(teacher, token_ids)
    span = Span(rotation_of(student, token_ids))
    total = torch.zeros((), device=token_ids.device)
    for number in replaced_layers(student, teacher):
        leaving, _ = student.blocks[number](as_read(student, states[number]), span)
        total = total + token_distance(leaving, states[number + 1], mask)
    return total


@torch.no_grad()
def layer_inputs(teacher: CausalLM, token_ids: Tensor) -> tuple[list[Tensor], Rotation | None]:
    """The teacher's hidden states and the rotation of its positions.

    State i (b, L, width) enters block i, and state i + 1 leaves it; the last leaves the last block, before the norm.
    """
    rotation = rotation_of(teacher, token_ids)
    states = [teacher.embedding(token_ids)]
    for block in teacher.blocks:
        states.append(block(states[-1], Span(rotation))[0])
    return states, rotation


@torch.no_grad()
def attention_matrix(teacher: CausalLM, number: int, entering: Tensor, rotation: Rotation | None) -> Tensor:
    """The softmax attention of a layer per query head, (b, H, L, L) float32, for the hidden state that enters it."""
    attention = cast(Attention, teacher.mixers[number])
    u = first_norm(teacher, number)(entering)
    queries, keys, _ = (heads.transpose(1, 2) for heads in attention.split(attention.in_proj(u), rotation))
    keys = keys.repeat_interleave(attention.n_heads // attention.n_kv_heads, dim=1)
    length = u.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=u.device).triu(1)
    with torch.autocast(u.device.type, enabled=False):
        scores = queries.float() @ keys.float().mT * attention.head_dim**-0.5
        matrix: Tensor = scores.masked_fill(later, -torch.inf).softmax(-1)
    return matrix


def student_matrix(student: CausalLM, number: int, entering: Tensor) -> Tensor:
    """The matrix of a state-space layer, (b, H, L, L) float32, for the hidden state that enters it."""
    mixer = student.mixers[number]
    if isinstance(mixer, Attention | Mamba1Mixer):
        raise UserError(
            f"layer {number} of the student is {type(mixer).__name__}, whose mixing is not one matrix per head; leave "
            "the stage matrix-orientation out or give its ssm_cfg ngroups, which makes it Mamba-2"
        )
    return mixer.matrix(first_norm(student, number)(as_read(student, entering)))


def replaced_layers(student: CausalLM, teacher: CausalLM) -> list[int]:
    """The layers in which the teacher has attention and the student has something else."""
    pairs = zip(student.mixers, teacher.mixers, strict=True)
    return [
        number
        for number, (new, old) in enumerate(pairs)
        if isinstance(old, Attention) and not isinstance(new, Attention)
    ]


def check_heads(student: CausalLM, teacher: CausalLM, layers: list[int]) -> None:
    """Raises UserError when a replaced layer has another number of heads than the attention that it replaces."""
    for number in layers:
        new, old = getattr(student.mixers[number], "heads", None), cast(Attention, teacher.mixers[number]).n_heads
        if new not in (None, old):
            raise UserError(
                f"layer {number} of the student has {new} heads and the teacher's attention {old}, so that their "
                f"matrices cannot be compared; give the student {old} heads or leave the stage matrix-orientation out"
            )


def first_norm(model: CausalLM, number: int) -> nn.Module:
    """The norm in front of a layer's mixer."""
    block = cast(Block, model.blocks[number])
    return block.mixer_norm if isinstance(block, SequentialBlock) else block.norm


def rotation_of(model: CausalLM, token_ids: Tensor) -> Rotation | None:
    """The angles of positions 0, 1, ..., where the model has any."""
    if model.rotary is None:
        return None
    rotation: Rotation = model.rotary(torch.arange(token_ids.shape[1], device=token_ids.device)[None])
    return rotation


def as_read(student: CausalLM, entering: Tensor) -> Tensor:
    """The teacher's hidden state in the dtype of the student's weights."""
    return entering.to(student.embedding.weight.dtype)
