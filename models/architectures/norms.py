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
        fused = cpu.rms_norm(x, self.weight, self.eps) if cpu.is_wanted(x) else None
        if fused is not None:
            return fused
        if x.dtype != self.weight.dtype:  # a float32 residual stream in front of weights of another type
            return rms_norm(x, self.weight.shape, None, self.eps).to(self.weight.dtype) * self.weight
        return rms_norm(x, self.weight.shape, self.weight, self.eps)


class GatedRMSNorm(nn.Module):
    """Mamba-2's norm: the gate first, then an RMS norm over each of `groups` equal stretches of channels."""

    def __init__(self, width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.groups = groups
        self.eps = eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """RMSNorm(x * silu(gate)) * weight; x and gate (..., width), float32 inside, the gate's dtype outside."""
        fused = cpu.gated_norm(x, gate, self.weight, self.groups, self.eps) if cpu.is_wanted(x) else None
        if fused is not None:
            return fused
        gated = (x.float() * silu(gate.float())).unflatten(-1, (self.groups, -1))
        return (rms_norm(gated, gated.shape[-1:], None, self.eps).flatten(-2) * self.weight).to(gate.dtype)
