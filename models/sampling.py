"""Random streams and token sampling, vectorised over the rows of a batch, on any device.

Every completion has its own stream: the variate of its step t is a function of (its seed, t) and of nothing else, so
that batching, compaction, resuming and the device never change which variates a sample sees. A token is drawn by
inverting the cumulative distribution at one uniform per row and step.

Shapes: B rows, V vocabulary, K tokens that are left after top-k. Knows no model and no tokenizer.
"""

import math

import torch
from torch import Tensor

from harness.errors import UserError
from harness.nouns import Sampling

UNIFORM_BITS = 52
"""One less than a double holds, so that `uniform * total` can never round up to `total`."""


def signed(value: int) -> int:
    """The int64 that has the bits of a 64-bit unsigned constant (torch has no full uint64 arithmetic)."""
    return value - (1 << 64) if value >> 63 else value


GAMMA = signed(0x9E3779B97F4A7C15)
MIX_1 = signed(0xBF58476D1CE4E5B9)
MIX_2 = signed(0x94D049BB133111EB)


def shift_right(bits: Tensor, count: int) -> Tensor:
    """Logical right shift of int64 values; torch's own keeps the sign."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def splitmix64(seeds: Tensor, steps: Tensor | int) -> Tensor:
    """Output number `steps` (from 0) of the SplitMix64 generators that start at `seeds`.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Its state after t outputs is
    seed + t * GAMMA, so output t needs no earlier one.

    Args:
        seeds: (B,) int64.
        steps: (B,) int64, or one step for all rows.

    Returns:
        (B,) int64 with the 64 bits of each output.
    """
    counters = torch.zeros_like(seeds) + steps + 1  # a tensor in both cases, for its arithmetic wraps around
    bits = seeds + counters * GAMMA
    bits = (bits ^ shift_right(bits, 30)) * MIX_1
    bits = (bits ^ shift_right(bits, 27)) * MIX_2
    return bits ^ shift_right(bits, 31)


def uniforms(seeds: Tensor, steps: Tensor | int) -> Tensor:
    """The variates of one step, (B,) float64 in [0, 1); arguments as in `splitmix64`."""
    return shift_right(splitmix64(seeds, steps), 64 - UNIFORM_BITS).double() * 2.0**-UNIFORM_BITS


def check_sampling(sampling: Sampling) -> None:
    """Raises UserError when a setting means nothing."""
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
        raise UserError(
            f"temperature must be 0 (greedy) or positive, got {sampling.temperature}; write for example 0.8"
        )
    if not 0 < sampling.top_p <= 1:
        raise UserError(f"top_p must lie in (0, 1], got {sampling.top_p}; write 1 to turn it off")
    if sampling.top_k < 0:
        raise UserError(f"top_k must not be negative, got {sampling.top_k}; write 0 to turn it off")
    if sampling.max_tokens < 1:
        raise UserError(f"max_tokens must be at least 1, got {sampling.max_tokens}; write for example 2048")
    if "" in sampling.stop:
        raise UserError("a stop string must not be empty; leave it out to stop at the end-of-text token only")


def draw(logits: Tensor, sampling: Sampling, variates: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one token per row.

    The distribution is softmax(logits / temperature), cut to the `top_k` likeliest tokens, cut again to the smallest
    head of those whose mass within the top k reaches `top_p`, and renormalised; temperature 0 puts all mass on the
    likeliest token. A row whose logits are not finite gets some valid token and the log-probability NaN.

    Args:
        logits: (B, V), any floating type.
        sampling: one setting for all rows; only temperature, top_k and top_p are read.
        variates: (B,) float64 in [0, 1), see `uniforms`.

    Returns:
        Token ids (B,) int64 and log-probabilities (B,) float64 under the distribution that was drawn from; 0 if greedy.
    """
    if sampling.temperature == 0:
        best, tokens = logits.max(dim=-1)
        return tokens, (best * 0).double()  # 0, but NaN where the logits are not finite
    values, ids = likeliest(logits.float(), sampling)
    scaled = (values - values.amax(dim=-1, keepdim=True)) / sampling.temperature
    chances = scaled.softmax(dim=-1)
    if sampling.top_p < 1:
        mass_before = chances.cumsum(dim=-1) - chances
        chances = chances.where(mass_before < sampling.top_p, 0.0)
    # In double, or the tokens of a large vocabulary's tail would vanish between two floats near 1.
    cumulative = chances.cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    # `right` passes over tokens of probability 0, whose cumulative value equals their predecessor's.
    places = torch.searchsorted(cumulative, variates[:, None] * total, right=True).clamp_max(values.shape[-1] - 1)
    logprobs = (chances.gather(1, places).double() / total).log().squeeze(1)
    return (places if ids is None else ids.gather(1, places)).squeeze(1), logprobs


def likeliest(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
    """The logits that top-k leaves, sorted where a cut needs it: values (B, K) and ids (B, K), or None for all."""
    if sampling.top_k:
        values, ids = logits.topk(min(sampling.top_k, logits.shape[-1]), dim=-1)
        return values, ids
    if sampling.top_p < 1:
        values, ids = logits.sort(dim=-1, descending=True, stable=True)
        return values, ids
    return logits, None
