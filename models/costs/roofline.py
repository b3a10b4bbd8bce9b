"""Times that no engine can beat on given hardware, and those that one of given efficiency needs.

The ideal bound is decode alone: a pass takes as long as its operations at the peak rate or its bytes at the full
bandwidth, whichever is longer. The expected time adds the prompt, the sampler's passes over the logits and efficiencies
of usual size; products with weights overlap with reading them, while states, keys and logits come on top.
"""

from dataclasses import dataclass

from .shapes import ModelShape
from .traffic import BF16, Precision, pass_bytes, step_bytes


@dataclass(frozen=True, slots=True)
class Hardware:
    """A device: bytes per second of its memory, FLOP per second of its matrix products, bytes of its memory."""

    name: str
    bytes_per_s: float
    flops_per_s: float
    memory_bytes: float = float("inf")


H100 = Hardware("H100", 3.35e12, 989e12, 80e9)
H200 = Hardware("H200", 4.8e12, 989e12, 141e9)


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the peaks that are reached, and the passes over the logits that sampling takes."""

    bandwidth: float = 0.8
    products: float = 0.6
    attention: float = 0.4
    logit_passes: int = 6


USUAL = Efficiency()


def bound_s(shape: ModelShape, hardware: Hardware, batch: int, context: float, precision: Precision = BF16) -> float:
    """The ideal bound of one decode pass over `batch` rows of `context` tokens, in seconds."""
    flops = batch * shape.forward.decode(1, 0) + 4 * batch * shape.forward.attention * context
    return max(flops / hardware.flops_per_s, step_bytes(shape, batch, context, precision) / hardware.bytes_per_s)


def prefill_bound_s(
    shape: ModelShape, hardware: Hardware, tokens: int, precision: Precision = BF16, prompts: int = 1
) -> float:
    """The ideal bound of reading `prompts` prompts of `tokens` tokens in one pass, in seconds."""
    flops = prompts * shape.forward.prefill(tokens)
    return max(flops / hardware.flops_per_s, pass_bytes(shape, precision) / hardware.bytes_per_s)


def decode_bound_s(
    shape: ModelShape, hardware: Hardware, batch: int, prompt: int, generated: int, precision: Precision = BF16
) -> float:
    """The ideal bound of generating `generated` tokens after `prompt`, every pass at the mean context, in seconds."""
    return generated * bound_s(shape, hardware, batch, prompt + generated / 2, precision)


def expected_step_s(
    shape: ModelShape, hardware: Hardware, batch: int, context: float, precision: Precision = BF16,
    efficiency: Efficiency = USUAL,
) -> float:  # fmt: skip
    """Seconds of one decode pass with sampling at these efficiencies."""
    bandwidth = efficiency.bandwidth * hardware.bytes_per_s
    read_s = pass_bytes(shape, precision) / bandwidth
    products = 2 * batch * (shape.forward.body + shape.forward.head)
    multiplied_s = products / (efficiency.products * hardware.flops_per_s)
    # Of the context's keys and values one token's are this pass's own, written where the others are read.
    per_row = step_bytes(shape, 1, context - 1, precision, efficiency.logit_passes) - pass_bytes(shape, precision)
    return max(read_s, multiplied_s) + batch * per_row / bandwidth


def expected_prefill_s(
    shape: ModelShape, hardware: Hardware, batch: int, prompt: int, efficiency: Efficiency = USUAL
) -> float:
    """Seconds of reading `batch` different prompts, attention over full squares."""
    products = 2 * (shape.forward.body + shape.forward.head) * batch * prompt
    attention = 2 * shape.forward.attention * prompt**2 * batch
    rate = hardware.flops_per_s
    return products / (efficiency.products * rate) + attention / (efficiency.attention * rate)


def expected_s(
    shape: ModelShape, hardware: Hardware, batch: int, prompt: int, generated: int,
    precision: Precision = BF16, efficiency: Efficiency = USUAL,
) -> float:  # fmt: skip
    """Seconds of `batch` different prompts and `generated` tokens after each, without prefix sharing.

    A pass is linear in the context, so the sum over the passes is their number times the pass at the mean context.
    """
    mean = prompt + (generated - 1) / 2
    decode_s = generated * expected_step_s(shape, hardware, batch, mean, precision, efficiency)
    return expected_prefill_s(shape, hardware, batch, prompt, efficiency) + decode_s


def speed_up_bound(
    teacher: ModelShape, student: ModelShape, hardware: Hardware, batch: int, prompt: int, generated: int,
    precision: Precision = BF16,
) -> float:  # fmt: skip
    """How many times as fast as its teacher a student can be by the ideal bounds of both.

    A measured factor above it means a teacher that was held back, another length, or an error.
    """
    arms = (decode_bound_s(shape, hardware, batch, prompt, generated, precision) for shape in (teacher, student))
    teacher_s, student_s = arms
    return teacher_s / student_s
