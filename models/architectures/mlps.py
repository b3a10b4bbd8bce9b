"""The feed-forward halves of the blocks."""

from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from .kernels import cpu


class GatedMLP(nn.Module):
    """down(silu(gate x) * up x), Llama's; gate and up are one product, rows [gate | up]."""

    def __init__(self, width: int, inner: int, *, bias: bool) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(width, 2 * inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        gate_up = self.gate_up_proj(x)
        gated = cpu.gate(gate_up) if cpu.is_wanted(x) else None
        if gated is None:
            gate, up = gate_up.chunk(2, dim=-1)
            gated = silu(gate) * up
        out: Tensor = self.down_proj(gated)
        return out


class GeluMLP(nn.Module):
    """fc2(gelu(fc1 x)) with the tanh form of GELU ("gelu_new"), Phi's."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        out: Tensor = self.fc2(gelu(self.fc1(x), approximate="tanh"))
        return out
