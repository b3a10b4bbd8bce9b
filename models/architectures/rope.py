"""Rotary position embedding (arXiv 2104.09864) in the half-split form, with Llama 3's scaling of its frequencies."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the angles, both (rows, tokens, 1, rotary_dim / 2)."""


class Rotary(nn.Module):
    """The angles of every position; `frequencies` (rotary_dim / 2,) in radians per token."""

    frequencies: Tensor

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, positions: Tensor) -> Rotation:
        """For positions (rows, tokens); float32."""
        angles = positions[..., None, None].float() * self.frequencies
        return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the first rotary_dim channels of x (rows, tokens, heads, head_dim), pairing channel i with i + half."""
    cos, sin = (table.to(x.dtype) for table in rotation)
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    turned = (first * cos).addcmul(second, sin, value=-1), (second * cos).addcmul(first, sin)
    rest = (x[..., 2 * half :],) if x.shape[-1] > 2 * half else ()
    return torch.cat((*turned, *rest), dim=-1)


def plain_frequencies(rotary_dim: int, theta: float) -> Tensor:
    """theta^(-2i / rotary_dim) for i = 0, 1, ...; (rotary_dim / 2,)."""
    return theta ** (-torch.arange(0, rotary_dim, 2, dtype=torch.float64, device="cpu") / rotary_dim)


def llama3_frequencies(frequencies: Tensor, scaling: Mapping[str, Any]) -> Tensor:
    """Llama 3's stretch of the slow frequencies to a longer context.

    A frequency whose wavelength is longer than original_max_position_embeddings / low_freq_factor is divided by
    `factor`; one shorter than original_max_position_embeddings / high_freq_factor stays; in between, a line in the
    number of turns within the original context joins the two.
    """
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    scaled: Tensor = frequencies * (kept + (1 - kept) / scaling["factor"])
    return scaled


def make_rotary(config: Mapping[str, Any], head_dim: int, *, is_scaled: bool = True) -> Rotary:
    """The rotary embedding of a Llama config.json; without its scaling when `is_scaled` is false.

    Reads `rope_theta` and `rope_scaling`, or `rope_parameters` in files that transformers 5 wrote. Raises UserError for
    a kind of scaling other than default and llama3.
    """
    parameters = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or parameters
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise UserError(
            f"the native engine has no RoPE scaling '{kind}', only default and llama3; use --engine transformers"
        )
    frequencies = plain_frequencies(head_dim, parameters.get("rope_theta", config.get("rope_theta", 10000.0)))
    if is_scaled and kind == "llama3":
        frequencies = llama3_frequencies(frequencies, scaling)
    return Rotary(frequencies.float())
