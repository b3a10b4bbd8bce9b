"""Bytes: what a model occupies, what one row of its batch does, and what a decode pass moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .shapes import ModelShape

SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
LOGIT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes of one number: `weights` of weights, keys, values and convolution windows, `states` of recurrent states."""

    weights: int = 2
    states: int = 2


BF16 = Precision()


def precision_of(facts: Mapping[str, Any]) -> Precision | None:
    """The precision that an engine's facts tell of with `dtype` and `state_dtype`; None when they do not."""
    weights = SIZES.get(str(facts.get("dtype")))
    return None if weights is None else Precision(weights, SIZES.get(str(facts.get("state_dtype")), weights))


def weight_bytes(shape: ModelShape, precision: Precision = BF16) -> int:
    """Memory of the parameters."""
    return shape.parameters * precision.weights


def row_bytes(shape: ModelShape, context: int, precision: Precision = BF16) -> int:
    """Memory of one row with `context` tokens: keys, values, windows and states."""
    return (shape.kv_size * context + shape.window_size) * precision.weights + shape.state_size * precision.states


def pass_bytes(shape: ModelShape, precision: Precision = BF16) -> int:
    """What a pass reads once, whatever its batch: every weight but an embedding table that is no head."""
    return (shape.parameters - shape.table) * precision.weights


def step_bytes(
    shape: ModelShape, batch: int, context: float, precision: Precision = BF16, logit_passes: int = 0
) -> float:
    """What a decode pass over `batch` rows moves.

    The weights are read once; of every row the keys and values of `context` earlier tokens are read and those of one
    are written, states and windows are both read and written, and its float32 logits are passed over `logit_passes`
    times by the sampler. Activations are not counted.
    """
    kept = 2 * (shape.state_size * precision.states + shape.window_size * precision.weights)
    cache = shape.kv_size * precision.weights * (context + 1)
    return pass_bytes(shape, precision) + batch * (kept + cache + logit_passes * LOGIT_BYTES * shape.outputs)


def largest_batch(
    shape: ModelShape, memory_bytes: float, context: int, precision: Precision = BF16, usable: float = 0.9,
    beside: float = 0.0,
) -> int:  # fmt: skip
    """Rows of `context` tokens that fit beside the weights in the usable part of a memory; activations not counted.

    `beside` are the bytes of other models on the device.
    """
    left = usable * memory_bytes - weight_bytes(shape, precision) - beside
    return max(0, int(left // row_bytes(shape, context, precision)))


def longest_context(
    shape: ModelShape, memory_bytes: float, batch: int, precision: Precision = BF16, usable: float = 0.9
) -> float:
    """Tokens that each of `batch` rows can have; infinite for a model without attention whose states fit."""
    left = usable * memory_bytes - weight_bytes(shape, precision) - batch * row_bytes(shape, 0, precision)
    per_token = batch * shape.kv_size * precision.weights
    return 0.0 if left < 0 else float(left // per_token) if per_token else float("inf")


def crossover_context(student: ModelShape, teacher: ModelShape, precision: Precision = BF16) -> float:
    """The context from which on a student's decode pass moves fewer bytes per row than its teacher's.

    Infinite where the student keeps at least as many keys and values.
    """
    moved = 2 * (student.state_size * precision.states + student.window_size * precision.weights)
    moved -= 2 * (teacher.state_size * precision.states + teacher.window_size * precision.weights)
    saved = (teacher.kv_size - student.kv_size) * precision.weights
    return moved / saved if saved > 0 else float("inf")
