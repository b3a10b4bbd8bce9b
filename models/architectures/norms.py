"""Normalisation layers. All statistics are taken in float32."""

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from .kernels import cpu


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        return rms_norm(x, self.weight.shape, self.weight, self.eps)


class GatedRMSNorm(nn.Module):
    """Mamba-2's norm: the gate first, then an RMS norm over each of `groups` equal stretches of channels."""

    scale: Tensor
    """(width,) float32, the weight as `step` reads it."""

    def __init__(self, width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.groups = groups
        self.eps = eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """RMSNorm(x * silu(gate)) * weight; x and gate (..., width), float32 inside, the gate's dtype outside."""
        gated = (x.float() * silu(gate.float())).unflatten(-1, (self.groups, -1))
        return (rms_norm(gated, gated.shape[-1:], None, self.eps).flatten(-2) * self.weight).to(gate.dtype)

    def prepare(self) -> None:
        """Take the weight as `step` needs it."""
        self.scale = self.weight.detach().float()

    def step(self, x: Tensor, gate: Tensor) -> Tensor:
        """The same for one token of every row, x and gate (b, width)."""
        fused = None if x.is_cuda else cpu.gated_norm(x, gate, self.scale, self.groups, self.eps)
        return self(x, gate) if fused is None else fused
