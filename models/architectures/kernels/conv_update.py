"""One token of the short causal depthwise convolution in front of the state-space recurrences, in place."""
# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

import torch
import triton
import triton.language as tl

CHANNELS_PER_PROGRAM = 256
"""One warp; 8 channels per thread fill a 16-byte access to bf16."""
LAUNCH = {"num_warps": 1, "enable_fp_fusion": True}
"""Fused multiply-adds are asked for, because whether they are Triton's default depends on its version."""


@triton.jit
def _conv_step(
    window: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    channels: tl.tensor,
    window_slot: tl.tensor,
    window_tap: tl.tensor,
    x_row: tl.tensor,
    K: tl.constexpr,
    K_PAD: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SILU: tl.constexpr,
) -> None:
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1).to(tl.int64)
    present = column < channels
    tap = tl.arange(0, K_PAD)[:, None]
    base = window + row * window_slot + column[None, :]
    # Line k of the tile is line k + 1 of the window, and the new input below them: the window after this token.
    old = tl.load(base + (tap + 1) * window_tap, mask=(tap < K - 1) & present[None, :], other=0.0).to(tl.float32)
    new = tl.load(x + row * x_row + column, mask=present, other=0.0).to(tl.float32)
    taps = tl.load(weight + column[None, :] * K + tap, mask=(tap < K) & present[None, :], other=0.0)
    shifted = tl.where(tap == K - 1, new[None, :], old)
    total = tl.sum(shifted * taps.to(tl.float32), 0)
    # A line is stored where its neighbour was loaded from, maybe by another thread: all loads come first.
    tl.debug_barrier()
    tl.store(base + tap * window_tap, shifted.to(window.dtype.element_ty), mask=(tap < K) & present[None, :])
    if HAS_BIAS:
        total += tl.load(bias + column, mask=present, other=0.0).to(tl.float32)
    if SILU:
        total = total * tl.sigmoid(total)
    tl.store(y + row * channels + column, total.to(y.dtype.element_ty), mask=present)


def conv_step(
    window: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, silu: bool
) -> torch.Tensor:
    """Shifts every row's window by one token, appends x, and applies the taps: y = Σ_k weight[:, k] · window[k] + bias.

    The causal depthwise convolution of Mamba (arXiv 2312.00752), one token at a time; tap K-1 multiplies the newest
    input. Sums and SiLU are fp32.

    Bytes moved, with e, w the bytes of an element of window and x, and of the weight:
    e·b·channels·((K - 1) + 1 + K + 1) + w·channels·(K + 1) for b rows: the oldest input is not read.

    Args:
        window: (slots, K, channels), slots >= b, oldest first, updated in place; K = 4 in every released model.
        x: (b, channels), any float dtype.
        weight: (channels, K), contiguous.
        bias: (channels,), contiguous, or None.
        silu: whether SiLU follows.

    Returns:
        y (b, channels) in the dtype of `x`, contiguous.

    Raises:
        ValueError: the shapes do not fit each other or a last dimension is not contiguous.
    """
    rows, channels = x.shape
    taps = weight.shape[1]
    fits = window.shape[0] >= rows and window.shape[1:] == (taps, channels) and weight.shape[0] == channels
    if not fits or (bias is not None and bias.shape != (channels,)):
        raise ValueError(f"window {tuple(window.shape)}, x {tuple(x.shape)}, weight {tuple(weight.shape)}: do not fit")
    whole = weight.is_contiguous() and (bias is None or bias.is_contiguous())
    if not whole or window.stride(2) != 1 or x.stride(1) != 1:
        raise ValueError("weight and bias want to be contiguous, window and x along their last dimension")
    y = x.new_empty(x.shape)
    _conv_step[(triton.cdiv(channels, CHANNELS_PER_PROGRAM), rows)](
        window, x, weight, weight if bias is None else bias, y, channels, *window.stride()[:2], x.stride(0),
        K=taps, K_PAD=triton.next_power_of_2(taps), BLOCK=CHANNELS_PER_PROGRAM,
        HAS_BIAS=bias is not None, SILU=silu, **LAUNCH,
    )  # fmt: skip
    return y
