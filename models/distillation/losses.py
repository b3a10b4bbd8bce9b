"""The losses of distillation, as functions of two tensors.

Distances and divergences are taken in float32, or float64 for float64, whatever autocast is in force; no gradient flows
into a target. Shapes: `b` rows, `L` tokens, `V` vocabulary, `H` heads. A `mask` (b, L) says which tokens count, all of
them without one; a mean over none is 0.
"""

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL(teacher || student) = sum_v p_t (log p_t - log p_s), the mean over the masked tokens.

    Cross-entropy against the teacher's probabilities, MOHAWK's third stage, is this and a constant, the teacher's
    entropy. Logits (b, L, V).
    """
    student, teacher = log_probabilities(student_logits, mask), log_probabilities(teacher_logits.detach(), mask)
    return mean((teacher.exp() * (teacher - student)).sum(-1))


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL(student || teacher) = sum_v p_s (log p_s - log p_t), the mean over the masked tokens; M1's and MambaInLlama's.

    Logits (b, L, V).
    """
    student, teacher = log_probabilities(student_logits, mask), log_probabilities(teacher_logits.detach(), mask)
    return mean((student.exp() * (student - teacher)).sum(-1))


def cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """-log p(label), the mean over the masked tokens: logits (b, L, V), each with its own label (b, L)."""
    labels = labels if mask is None else labels[mask]
    return -mean(log_probabilities(logits, mask).gather(-1, labels[..., None]))


def frobenius_distance(matrices: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """||matrix - target||_F, not squared, the mean over rows and heads; both (b, H, L, L).

    Only the lines of masked tokens count; the matrices are causal and rows padded on the right, so that every column
    that such a line reaches is of a real token too.
    """
    lines: Tensor = vector_norm(precise(matrices) - precise(targets.detach()), dim=-1)
    distances: Tensor = vector_norm(lines * mask[:, None], dim=-1)
    return distances.mean()


def token_distance(states: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """||state - target||_2, not squared, the mean over the masked tokens; both (b, L, width)."""
    return mean(vector_norm(precise(states[mask]) - precise(targets.detach()[mask]), dim=-1))


def log_probabilities(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Log-softmax of the masked tokens (n, V), or of all of them (b, L, V); the others cost nothing."""
    return functional.log_softmax(precise(logits if mask is None else logits[mask]), dim=-1)


def mean(values: Tensor) -> Tensor:
    """The mean of all values, 0 when there are none."""
    return values.sum() / max(values.numel(), 1)


def precise(tensor: Tensor) -> Tensor:
    """In float32, or in float64 if it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
