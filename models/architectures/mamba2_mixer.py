"""The Mamba-2 mixer (arXiv 2405.21060), as in Mamba2ForCausalLM and, with narrow x and B, as in MambaInLlama.

[z | x | B | C | dt] = in_proj u        [x | B | C] = silu(conv([x | B | C]))        Delta = softplus(dt + dt_bias)
h_t = exp(-Delta_t exp(A_log)) h_{t-1} + Delta_t x_t B_t^T        y_t = h_t C_t + D x_t
out = out_proj(RMSNorm_per_group(y * silu(z)))
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .norms import GatedRMSNorm
from .passes import LayerState, Span, Step
from .short_conv import ShortConv
from .ssd import by_head, mixing_matrix, ssd_chunked, ssd_step


class Mamba2Mixer(nn.Module):
    """`heads` heads of `head_dim` channels over states of `d_state`.

    `x_heads` and `b_groups` may be fewer than `heads` and `c_groups`; each of theirs then serves several neighbours, as
    a key-value head does under grouped-query attention. `norm_groups` stretches of channels are normalised separately.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        d_state: int,
        *,
        x_heads: int,
        b_groups: int,
        c_groups: int,
        norm_groups: int,
        norm_eps: float,
        d_conv: int = 4,
        conv_bias: bool = True,
        bias: bool = False,
        time_step_limit: tuple[float, float] = (0.0, float("inf")),
    ) -> None:
        super().__init__()
        self.heads, self.head_dim, self.d_state = heads, head_dim, d_state
        self.inner, self.time_step_limit = heads * head_dim, time_step_limit
        self.x_heads, self.b_groups, self.c_groups = x_heads, b_groups, c_groups
        self.widths = (x_heads * head_dim, b_groups * d_state, c_groups * d_state)
        self.channels = sum(self.widths)
        self.in_proj = nn.Linear(width, self.inner + self.channels + heads, bias=bias)
        self.conv1d = ShortConv(self.channels, d_conv, bias=conv_bias, is_silu=True)
        self.dt_bias = nn.Parameter(torch.ones(heads))
        self.A_log = nn.Parameter(torch.arange(1, heads + 1).float().log())
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = GatedRMSNorm(self.inner, norm_groups, norm_eps)
        self.out_proj = nn.Linear(self.inner, width, bias=bias)
        self.attention_width = 0
        self.scan_flops = 5 * self.inner * d_state + 2 * d_conv * self.channels + 2 * self.inner

    def forward(self, u: Tensor, span: Span) -> tuple[Tensor, LayerState]:
        """(b, L, width) to (b, L, width); convolution window (b, K, channels) and state (b, H, P, N)."""
        z, columns, delta = self.project(u)
        x, B, C = self.split(self.conv1d(columns))
        if span.real is not None:
            delta = delta * span.real
        y, state = ssd_chunked(x * delta[..., None], -delta * self.A_log.float().exp(), B, C)
        y = (y + self.D[:, None] * x).flatten(-2)
        return self.out_proj(self.norm(y, z)), (self.conv1d.window(columns, span.lengths), state)

    def matrix(self, u: Tensor) -> Tensor:
        """What stands in attention's place, (b, H, L, L) float32 for u (b, L, width): y + D x = matrix @ x, per head.

        x is the convolution's, repeated for its heads and not yet multiplied by Delta, which is in the columns.
        """
        _, columns, delta = self.project(u)
        _, B, C = self.split(self.conv1d(columns))
        with torch.autocast(u.device.type, enabled=False):
            skip = self.D[:, None, None] * torch.eye(u.shape[1], device=u.device)
            return mixing_matrix(-delta * self.A_log.float().exp(), B, C) * delta.mT[:, :, None] + skip

    def step(self, u: Tensor, state: LayerState, step: Step) -> Tensor:
        """(b, width) to (b, width); the state is updated in place."""
        window, recurrent = state
        z, columns, delta = self.project(u)
        x, B, C = self.split(self.conv1d.step(window, columns))
        y = ssd_step(recurrent, x, delta * self.rate, B, C, self.D, delta).flatten(1)
        out: Tensor = self.out_proj(self.norm(y, z))
        return out

    def prepare(self) -> None:
        """Take the constants of `step` from the weights."""
        self.conv1d.prepare()
        self.rate = -self.A_log.detach().float().exp()

    def empty_state(self, slots: int, columns: int, state_dtype: torch.dtype) -> LayerState:
        """The window in the model's dtype and the state in its own."""
        self.prepare()
        weight = self.in_proj.weight
        window = weight.new_empty(slots, self.conv1d.weight.shape[2], self.channels)
        return window, weight.new_empty(slots, self.heads, self.head_dim, self.d_state, dtype=state_dtype)

    def project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gate z (..., inner), the convolution's input (..., channels) and Delta (..., H) in float32."""
        z, columns, delta = self.in_proj(u).split((self.inner, self.channels, self.heads), dim=-1)
        delta = softplus(delta.float() + self.dt_bias)
        return z, columns, delta if self.time_step_limit == (0.0, float("inf")) else delta.clamp(*self.time_step_limit)

    def split(self, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """X (..., H, P), B and C (..., G, N) out of the convolution's output (..., channels)."""
        x, B, C = columns.split(self.widths, dim=-1)
        x = by_head(x.unflatten(-1, (self.x_heads, self.head_dim)), self.heads)
        B = by_head(B.unflatten(-1, (self.b_groups, self.d_state)), self.c_groups)
        return x, B, C.unflatten(-1, (self.c_groups, self.d_state))
