"""The short causal depthwise convolution in front of every state-space recurrence.

Shapes: `b` rows, `L` tokens, `K` taps (4 in every released model), `D` channels. The window of a row is its last K
inputs, oldest first, as (b, K, D): the channels lie side by side in memory, which is what the arithmetic runs along.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from .kernels import cpu


class CausalTaps(torch.autograd.Function):
    """The products and sums of the convolution, of x (b, L, D) with taps (D, K), the last for the current token.

    Written out because torch's own gradient of the shifted sums fills and copies a tensor of x's size for every tap,
    which took a third of a training step on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x, taps)
        y = x * taps[:, -1]
        for lag in range(1, min(taps.shape[1], x.shape[1])):
            y[:, lag:].addcmul_(x[:, :-lag], taps[:, -1 - lag])
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        (of_y,) = gradients
        x, taps = ctx.saved_tensors
        of_x, of_taps = of_y * taps[:, -1], torch.zeros_like(taps)
        of_taps[:, -1] = (of_y * x).sum((0, 1))
        for lag in range(1, min(taps.shape[1], x.shape[1])):
            of_x[:, :-lag].addcmul_(of_y[:, lag:], taps[:, -1 - lag])
            of_taps[:, -1 - lag] = (of_y[:, lag:] * x[:, :-lag]).sum((0, 1))
        return of_x, of_taps


class ShortConv(nn.Module):
    """Causal depthwise convolution, with SiLU after it or not; tap K-1 multiplies the current token.

    `weight` is (D, 1, K) as in torch's Conv1d, whose names and shapes the published files have.
    """

    taps: Tensor
    """(K, D) float32, the weight as `step` reads it."""
    offset: Tensor
    """(D,) float32, the bias or zeros."""

    def __init__(self, channels: int, taps: int, *, bias: bool, is_silu: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, taps))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        self.is_silu = is_silu
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Torch's default for a convolution of one input channel."""
        bound = self.weight.shape[2] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(b, L, D) to (b, L, D), as if zeros came before the first token."""
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        y: Tensor = CausalTaps.apply(x.to(dtype), self.weight[:, 0].to(dtype))  # type: ignore[no-untyped-call]
        return self.finish(y)

    def window(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """The last K inputs of each row, (b, K, D), zeros where there are fewer; rows end at `lengths` (b,) or at L."""
        taps = self.weight.shape[2]
        padded = pad(x, (0, 0, taps, 0))
        if lengths is None:
            return padded[:, -taps:]
        places = lengths[:, None] + torch.arange(taps, device=x.device)
        return padded.gather(1, places[..., None].expand(-1, -1, x.shape[2]))

    def prepare(self) -> None:
        """Take the weights as `step` needs them; they must not change between this and the last step."""
        weight = self.weight.detach()
        self.taps = weight[:, 0].T.float().contiguous()
        self.offset = torch.zeros_like(self.taps[0]) if self.bias is None else self.bias.detach().float()

    def step(self, window: Tensor, x: Tensor) -> Tensor:
        """One token (b, D) of every row, in its dtype or float32; `window` (b, K, D) is updated in place."""
        if window.is_cuda:
            from .kernels.conv_update import conv_step

            return conv_step(window, x, self.weight[:, 0], self.bias, self.is_silu)
        y = cpu.conv_step(window, x, self.taps, self.offset, self.is_silu)
        if y is not None:
            return y
        window[:, :-1] = window[:, 1:].clone()
        window[:, -1] = x
        y = (window * self.taps).sum(1) + self.offset
        return silu(y) if self.is_silu else y

    def finish(self, y: Tensor) -> Tensor:
        """Bias and activation."""
        if self.bias is not None:
            y = y + self.bias
        return silu(y) if self.is_silu else y
