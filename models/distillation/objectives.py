"""What a stage minimises, as a function of a batch, and which parameters it trains."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.models.architectures.causal_lm import CausalLM
from harness.models.architectures.discrete_mamba2 import DiscreteMamba2
from harness.models.architectures.mamba1 import Mamba1Mixer
from harness.models.architectures.mamba2_mixer import Mamba2Mixer

from .losses import cross_entropy, forward_kl, reverse_kl
from .matching import alignment_loss, orientation_loss
from .recipes import LossWeights, Stage, Trainable

if TYPE_CHECKING:
    from .batches import Batch

IGNORED = -100
"""The label of a token on which there is no loss."""

Match = Callable[[CausalLM, CausalLM, Tensor, Tensor], Tensor]


def make_objective(stage: Stage, student: nn.Module, teacher: CausalLM | None) -> nn.Module:
    """The loss of a stage: a module from a `Batch` to {"loss": a scalar, its parts: scalars without gradient}.

    It has the student as its only submodule, so that whoever wraps it (DDP, FSDP) reaches the matching stages too,
    which call the student's blocks and not its `forward`. To run under autocast, call it under autocast.

    Args:
        stage: of any kind but orm and prm.
        student: a CausalLM; the token losses also take one in a wrapper.
        teacher: never trained; None for a stage that does without.

    Raises UserError when the stage needs a teacher and there is none, or has no objective here.
    """
    if stage.needs_teacher and teacher is None:
        raise UserError(f"a {stage.kind} stage with this loss needs a teacher, and the recipe names none")
    if stage.kind == "matrix-orientation":
        match = partial(orientation_loss, recomputes=stage.activation_checkpointing)
        return MatchingObjective(student, cast(CausalLM, teacher), match)
    if stage.kind == "hidden-alignment":
        return MatchingObjective(student, cast(CausalLM, teacher), alignment_loss)
    if stage.kind in ("distillation", "sft"):
        return TokenObjective(student, teacher, stage.loss)
    raise UserError(f"a stage of kind {stage.kind} trains a score head, not a student")


class MatchingObjective(nn.Module):
    """A loss on hidden states, over the real tokens of a batch."""

    def __init__(self, student: nn.Module, teacher: CausalLM, match: Match) -> None:
        super().__init__()
        if not isinstance(student, CausalLM):
            raise TypeError(f"wrap the objective, not its student, which is a {type(student).__name__}")
        self.student, self.match = student, match
        self.hidden = (teacher,)  # in a tuple, for its parameters are none of the objective's

    def forward(self, batch: "Batch") -> dict[str, Tensor]:
        """The loss of a batch."""
        (teacher,) = self.hidden
        places = torch.arange(batch.token_ids.shape[1], device=batch.token_ids.device)
        return {"loss": self.match(self.student, teacher, batch.token_ids, places < batch.lengths[:, None])}


class TokenObjective(nn.Module):
    """A weighted sum of forward KL, reverse KL and cross entropy on the labelled tokens; only the wanted ones cost."""

    def __init__(self, student: nn.Module, teacher: CausalLM | None, weights: LossWeights) -> None:
        super().__init__()
        self.student, self.weights = student, weights
        self.hidden = (teacher,)  # in a tuple, for its parameters are none of the objective's

    def forward(self, batch: "Batch") -> dict[str, Tensor]:
        """The loss of a batch and its unweighted parts."""
        labels = next_labels(batch.labels)
        mask = labels != IGNORED
        logits, labels = self.student(batch.token_ids)[mask], labels[mask]
        weights, (teacher,) = self.weights, self.hidden
        parts: dict[str, Tensor] = {}
        if weights.cross_entropy:
            parts["cross_entropy"] = cross_entropy(logits, labels)
        if teacher is not None and (weights.forward_kl or weights.reverse_kl):
            target = teacher_logits(teacher, batch.token_ids, mask)
            if weights.forward_kl:
                parts["forward_kl"] = forward_kl(logits, target)
            if weights.reverse_kl:
                parts["reverse_kl"] = reverse_kl(logits, target)
        loss = torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}


def next_labels(labels: Tensor) -> Tensor:
    """Labels (b, L) that stand at their own tokens, moved to the tokens that predict them; the last predicts none.

    This is the one place where tokens are shifted: what comes out belongs to the logits of the same position.
    """
    return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)], dim=1)


@torch.no_grad()
def teacher_logits(teacher: CausalLM, token_ids: Tensor, mask: Tensor) -> Tensor:
    """The teacher's logits (n, V) of the masked tokens alone; a large vocabulary costs nothing elsewhere."""
    states, _ = teacher.read(token_ids, None)
    logits: Tensor = teacher.head(teacher.norm(states[mask]))
    return logits


def set_trainable(student: nn.Module, trainable: Trainable) -> None:
    """Let the optimiser have `all` parameters, or only those of the state-space `mixers`.

    Raises UserError when there are no such mixers.
    """
    student.requires_grad_(trainable == "all")
    if trainable == "all":
        return
    mixers = [module for module in student.modules() if isinstance(module, DiscreteMamba2 | Mamba1Mixer | Mamba2Mixer)]
    if not mixers:
        raise UserError("trainable is 'mixers' and the student has no state-space mixer; write trainable = \"all\"")
    for mixer in mixers:
        mixer.requires_grad_(True)
