"""Kinetics' eFLOPs: operations plus memory traffic at the rate at which a device exchanges them (arXiv 2506.05333).

For N trials of one prompt, with P parameters, D numbers of keys and values per token, r query heads per key-value head,
prompt length L_in and trial length L_out:

    C_comp = 2 P N L_out + 2 r N L_in L_out D + r N L_out^2 D
    C_mem = 2 L_in L_out D + N L_out^2 D            eFLOPs = C_comp + I C_mem

Here the lengths are the trials' own (L_out^2 is the sum of their squares, and the prompt's keys are read while the
longest trial lasts), numbers have the bytes of a `Precision` (the paper's formula has 2), and a state-space layer adds
6 operations and one read of its state for each element and token. The paper drops the traffic of the weights as shared
among many rows, which favours large models at small batches: `batch` brings it back.
"""

from collections.abc import Sequence

from .shapes import ModelShape
from .traffic import BF16, Precision, pass_bytes

INTENSITY = 562.5
"""FLOP per byte of a B200, the paper's device."""

STATE_FLOPS = 6


def compute_flops(shape: ModelShape, prompt: int, lengths: Sequence[int]) -> float:
    """C_comp of trials of these lengths; the prompt's own pass is not in it."""
    tokens, squares = sum(lengths), sum(length**2 for length in lengths)
    attention = shape.kv_sharing * shape.kv_size
    per_token = 2 * shape.parameters + STATE_FLOPS * shape.state_size
    return per_token * tokens + attention * (2 * prompt * tokens + squares)


def memory_bytes(
    shape: ModelShape,
    prompt: int,
    lengths: Sequence[int],
    precision: Precision = BF16,
    batch: float | None = None,
) -> float:
    """C_mem of trials of these lengths; with `batch`, also the weights, read once for so many rows."""
    tokens, squares = sum(lengths), sum(length**2 for length in lengths)
    per_token = shape.kv_size * precision.weights
    cache = per_token * (prompt * max(lengths, default=0) + squares / 2)
    states = 2 * shape.state_size * precision.states * tokens
    weights = pass_bytes(shape, precision) * tokens / batch if batch else 0.0
    return cache + states + weights


def eflops(
    shape: ModelShape, prompt: int, lengths: Sequence[int], precision: Precision = BF16,
    batch: float | None = None, intensity: float = INTENSITY,
) -> float:  # fmt: skip
    """The eFLOPs of trials of these lengths after one prompt of `prompt` tokens.

    Args:
        shape: of the model.
        prompt: tokens of the prompt, which the trials share.
        lengths: generated tokens of each trial.
        precision: bytes of the numbers.
        batch: rows among which a pass over the weights is shared; None leaves that traffic out, as the paper does.
        intensity: FLOP per byte of the device.
    """
    moved = memory_bytes(shape, prompt, lengths, precision, batch)
    return compute_flops(shape, prompt, lengths) + intensity * moved
