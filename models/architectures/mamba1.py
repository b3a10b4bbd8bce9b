"""The Mamba-1 mixer of MambaInLlama (arXiv 2408.15237): attention's projections around a selective scan.

    [z | x | B | C | delta] = in_proj u        x = silu(conv(repeat(x)))        B = repeat(B)
    Delta = softplus(W_dt delta + b_dt + b_dt)        h_t = exp(Delta_t A) * h_{t-1} + Delta_t x_t B_t
    y_t = <h_t, C_t> + D x_t        out = out_proj(y * silu(z))

x and B come from the teacher's values and keys, `d_xb` wide, in chunks of `d_state` channels that are each repeated
d_inner / d_xb times; C, from its queries, is d_inner wide. Only x goes through the convolution. The bias of dt_proj is
added twice, in training and in inference alike, so the weights expect it.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu, softplus

from .passes import LayerState, Span, Step
from .selective_scan import selective_scan, selective_step
from .short_conv import ShortConv


class Mamba1Mixer(nn.Module):
    """`d_inner` channels in d_inner / d_state groups, each with its own B and C."""

    def __init__(
        self,
        width: int,
        d_inner: int,
        d_xb: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        dt_rank: int | None = None,
        conv_bias: bool = True,
        repeat_kv_before_conv: bool = True,
    ) -> None:
        super().__init__()
        self.d_inner, self.d_xb, self.d_state = d_inner, d_xb, d_state
        self.repeat_kv_before_conv = repeat_kv_before_conv
        self.dt_rank = math.ceil(width / 16) if dt_rank is None else dt_rank
        self.channels = d_inner if repeat_kv_before_conv else d_xb
        self.widths = (d_inner, d_xb, d_xb, d_inner, self.dt_rank)
        self.in_proj = nn.Linear(width, sum(self.widths), bias=False)
        self.conv1d = ShortConv(self.channels, d_conv, bias=conv_bias, is_silu=True)
        self.dt_proj = nn.Linear(self.dt_rank, d_inner)
        self.A_log = nn.Parameter(torch.arange(1, d_state + 1).float().log().expand(d_inner, -1).clone())
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = nn.Linear(d_inner, width, bias=False)
        self.attention_width = 0
        self.scan_flops = 7 * d_inner * d_state + 2 * d_conv * self.channels + 2 * d_inner

    def forward(self, u: Tensor, span: Span) -> tuple[Tensor, LayerState]:
        """(b, L, width) to (b, L, width); convolution window (b, K, channels) and state (b, d_inner, d_state)."""
        z, x, B, C, delta = self.project(u)
        convolved = self.widen(self.conv1d(x))
        delta = self.step_size(delta)
        if span.real is not None:
            delta = delta * span.real
        y, state = selective_scan(convolved, delta, -self.A_log.float().exp(), B, C)
        return self.read_out(y, convolved, z), (self.conv1d.window(x, span.lengths), state)

    def step(self, u: Tensor, state: LayerState, step: Step) -> Tensor:
        """(b, width) to (b, width); the state is updated in place."""
        window, recurrent = state
        z, x, B, C, delta = self.project(u)
        x = self.widen(self.conv1d.step(window, x))
        y = selective_step(recurrent, x, self.step_size(delta), self.rate, B, C)
        return self.read_out(y, x, z)

    def prepare(self) -> None:
        """Take the constants of `step` from the weights."""
        self.conv1d.prepare()
        self.rate = -self.A_log.detach().float().exp()

    def empty_state(self, slots: int, columns: int, state_dtype: torch.dtype) -> LayerState:
        """The window in the model's dtype and the state in its own."""
        self.prepare()
        weight = self.in_proj.weight
        window = weight.new_empty(slots, self.conv1d.weight.shape[2], self.channels)
        return window, weight.new_empty(slots, self.d_inner, self.d_state, dtype=state_dtype)

    def project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Z (..., d_inner), the conv's input (..., channels), B and C (..., G, d_state), delta (..., dt_rank)."""
        z, x, B, C, delta = self.in_proj(u).split(self.widths, dim=-1)
        if self.repeat_kv_before_conv:
            x = self.repeat(x).flatten(-2)
        return z, x, self.repeat(B), C.unflatten(-1, (-1, self.d_state)), delta

    def repeat(self, narrow: Tensor) -> Tensor:
        """(..., d_xb) to (..., G, d_state): every chunk of d_state channels d_inner / d_xb times in a row."""
        chunks: Tensor = narrow.unflatten(-1, (-1, self.d_state))
        return chunks.repeat_interleave(self.d_inner // self.d_xb, dim=-2)

    def widen(self, x: Tensor) -> Tensor:
        """The convolution's output as (..., d_inner)."""
        return x if self.repeat_kv_before_conv else self.repeat(x).flatten(-2)

    def step_size(self, delta: Tensor) -> Tensor:
        """Delta (..., d_inner), float32, with the bias twice."""
        bias = self.dt_proj.bias
        return softplus(linear(delta, self.dt_proj.weight).float() + bias + bias)

    def read_out(self, y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """From the scan's output and x, both (..., d_inner), to the mixer's output (..., width)."""
        out: Tensor = self.out_proj(((y + self.D * x) * silu(z)).to(z.dtype))
        return out
