"""The operations and bytes behind a cell of a timing table, and the time that a machine's ceilings allow for them."""

from typing import Literal, NamedTuple

from .roofline import Hardware
from .shapes import ModelShape
from .traffic import Precision, pass_bytes, row_bytes, step_bytes


class Work(NamedTuple):
    """What is done, and the seconds that it takes at least."""

    flops: float
    bytes: float
    bound_s: float


def work_of(
    shape: ModelShape, precision: Precision, hardware: Hardware, phase: Literal["prefill", "decode"], batch: int,
    context: int,
) -> Work:  # fmt: skip
    """The work of one cell; see `harness.timing.timing_tables.Cell`.

    A prompt is read once, and its state is written for each of its samples.
    """
    if phase == "decode":
        flops = shape.forward.decode(batch, batch * (context + 1))
        moved = step_bytes(shape, batch, context, precision)
    else:
        flops = shape.forward.prefill(context)
        moved = pass_bytes(shape, precision) + batch * row_bytes(shape, context, precision)
    return Work(flops, moved, max(flops / hardware.flops_per_s, moved / hardware.bytes_per_s))
