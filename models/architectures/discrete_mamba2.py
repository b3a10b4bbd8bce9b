"""Discrete Mamba-2, the mixer of Llamba and Phi-Mamba (arXiv 2408.10189, 2502.14458).

    [xBC | z | a] = in_proj u        [x | B | C] = conv(xBC)        lambda_t = sigmoid(-a_t) = exp(-softplus(a_t))
    h_t = lambda_t h_{t-1} + x_t B_t^T        y_t = h_t C_t + D x_t        out = out_proj(y * silu(z + z_bias))

No step size multiplies the input, the convolution has no activation, and there is no norm.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from .passes import LayerState, Span, Step
from .short_conv import ShortConv
from .ssd import mixing_matrix, ssd_chunked, ssd_step

OPEN_GATE = 1.278464542761
"""silu(OPEN_GATE) = 1: a gate of weight 0 and this bias lets everything through, as MOHAWK starts."""


class DiscreteMamba2(nn.Module):
    """`n_v_heads` heads of x and z, `n_qk_heads` groups of B and C; `expand` * width channels in all.

    `chunk_size` is a field of the published configs that changes no result and is not used. With `bias` the gate's
    bias is part of `in_proj.bias`; without, it is the parameter `z_bias`.
    """

    def __init__(
        self,
        width: int,
        d_state: int,
        n_v_heads: int,
        n_qk_heads: int,
        *,
        expand: int = 1,
        d_conv: int = 4,
        conv_bias: bool = True,
        bias: bool = False,
        chunk_size: int = 128,
        activation: str = "identity",
    ) -> None:
        super().__init__()
        self.inner = expand * width
        self.heads, self.groups, self.d_state = n_v_heads, n_qk_heads, d_state
        self.head_dim = self.inner // n_v_heads
        self.channels = self.inner + 2 * n_qk_heads * d_state
        self.in_proj = nn.Linear(width, self.channels + self.inner + n_v_heads, bias=bias)
        self.z_bias = None if bias else nn.Parameter(torch.zeros(self.inner))
        self.conv1d = ShortConv(self.channels, d_conv, bias=conv_bias, is_silu=activation in ("silu", "swish"))
        self.D = nn.Parameter(torch.ones(n_v_heads))
        self.out_proj = nn.Linear(self.inner, width, bias=bias)
        self.attention_width = 0
        self.scan_flops = 5 * self.inner * d_state + 2 * d_conv * self.channels + 2 * self.inner

    def forward(self, u: Tensor, span: Span) -> tuple[Tensor, LayerState]:
        """(b, L, width) to (b, L, width); convolution window (b, K, channels) and state (b, H, P, N)."""
        columns, z, a = self.project(u)
        x, B, C = self.split(self.conv1d(columns))
        y, state = self.recur(x, B, C, a, span)
        return self.read_out(y + self.D[:, None] * x, z), (self.conv1d.window(columns, span.lengths), state)

    def matrix(self, u: Tensor) -> Tensor:
        """What stands in attention's place, (b, H, L, L) float32 for u (b, L, width): y + D x = matrix @ x, per head.

        x is the convolution's, and the product is what enters `read_out`.
        """
        columns, _, a = self.project(u)
        _, B, C = self.split(self.conv1d(columns))
        with torch.autocast(u.device.type, enabled=False):
            skip = self.D[:, None, None] * torch.eye(u.shape[1], device=u.device)
            return mixing_matrix(-softplus(a.float()), B, C) + skip

    def recur(self, x: Tensor, B: Tensor, C: Tensor, a: Tensor, span: Span) -> tuple[Tensor, Tensor]:
        """Run the recurrence over (b, L, ...) and stop each row's state at its length."""
        log_decay = -softplus(a.float())
        if span.real is not None:
            log_decay, x = log_decay * span.real, x * span.real[..., None]
        return ssd_chunked(x, log_decay, B, C)

    def step(self, u: Tensor, state: LayerState, step: Step) -> Tensor:
        """(b, width) to (b, width); the state is updated in place."""
        window, recurrent = state
        columns, z, a = self.project(u)
        x, B, C = self.split(self.conv1d.step(window, columns))
        return self.read_out(ssd_step(recurrent, x, -softplus(a.float()), B, C, self.D), z)

    def prepare(self) -> None:
        """Take the constants of `step` from the weights."""
        self.conv1d.prepare()

    def empty_state(self, slots: int, columns: int, state_dtype: torch.dtype) -> LayerState:
        """The window in the model's dtype and the state in its own."""
        self.prepare()
        weight = self.in_proj.weight
        window = weight.new_empty(slots, self.conv1d.weight.shape[2], self.channels)
        return window, weight.new_empty(slots, self.heads, self.head_dim, self.d_state, dtype=state_dtype)

    def project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The convolution's input (..., channels), the gate z (..., inner) and a (..., H)."""
        columns, z, a = self.in_proj(u).split((self.channels, self.inner, self.heads), dim=-1)
        return columns, z, a

    def split(self, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """X (..., H, P), B and C (..., G, N) out of the convolution's output (..., channels)."""
        groups = self.groups * self.d_state
        x, B, C = columns.split((self.inner, groups, groups), dim=-1)
        return (
            x.unflatten(-1, (self.heads, self.head_dim)),
            B.unflatten(-1, (self.groups, self.d_state)),
            C.unflatten(-1, (self.groups, self.d_state)),
        )

    def read_out(self, y: Tensor, z: Tensor) -> Tensor:
        """From the recurrence's output y (..., H, P) to the mixer's (..., width)."""
        gate = silu(z if self.z_bias is None else z + self.z_bias)
        out: Tensor = self.out_proj((y.flatten(-2) * gate).to(z.dtype))
        return out
