"""The selective scan of Mamba-1, written three times: naive, chunked, one step.

    h_t = exp(Delta_t A) * h_{t-1} + Delta_t x_t B_t        y_t = <h_t, C_t>

Glossary (Gu and Dao, "Mamba", arXiv 2312.00752): `b` rows of a batch, `L` tokens, `I` channels (`d_inner`), `N` state
size (`d_state`), `G` groups of channels that share B and C (channel c is of group c // (I / G); the original has one
group, MambaInLlama I / N of them). `delta` is Delta_t > 0, already through the softplus; `A` is negative.

Everything is computed in float32 whatever the model's dtype. A token with `delta` 0 leaves the state as it was: that is
how the padding after a row's end is passed over.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from .kernels import cpu

CHUNK = 32
"""Tokens that are scanned side by side."""


def selective_scan_naive(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence as it is written, token by token: what the other two are tested against.

    Args:
        x: (b, L, I).
        delta: (b, L, I).
        A: (I, N).
        B: (b, L, G, N).
        C: (b, L, G, N).

    Returns:
        y (b, L, I) and the last state (b, I, N).
    """
    rows, length, channels = x.shape
    state = x.new_zeros(rows, channels, A.shape[1])
    outputs = []
    for t in range(length):
        write, read = (by_channel(group[:, t], channels) for group in (B, C))
        state = (delta[:, t][..., None] * A).exp() * state + (delta[:, t] * x[:, t])[..., None] * write
        outputs.append((state * read).sum(-1))
    return torch.stack(outputs, dim=1), state


def selective_scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """The same as `selective_scan_naive`, `chunk` tokens at a time by a parallel prefix scan.

    Within a chunk, log2(chunk) passes double the stretch of tokens that every position has taken up (Hillis and Steele,
    1986); all exponents are negative, so nothing can overflow.
    """
    with torch.autocast(x.device.type, enabled=False):  # which would round the products to bfloat16
        return scan_chunks(x, delta, A, B, C, chunk)


def scan_chunks(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """`selective_scan` with nothing rounded on the way."""
    rows, _, channels = x.shape
    groups, size = B.shape[2:]
    state = torch.zeros(rows, channels, size, dtype=torch.float32, device=x.device)
    outputs = []
    # Split at once: the gradient of slicing chunk by chunk would be as large as the whole, each time.
    parts = (tensor.float().split(chunk, dim=1) for tensor in (x, delta, B, C))
    for inputs, step, write, read in zip(*parts, strict=True):
        decay = (step[..., None] * A.float()).exp()
        values = (step * inputs)[..., None] * write.repeat_interleave(channels // groups, dim=2)
        decay, states = prefix_scan(decay, values)
        states = states + decay * state[:, None]
        state = states[:, -1]
        by_group = states.unflatten(2, (groups, -1))
        outputs.append((by_group @ read[..., None]).flatten(2))
    return torch.cat(outputs, dim=1), state


def prefix_scan(decay: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Products of `decay` up to every token and h_t = decay_t h_{t-1} + values_t from h = 0; both (b, Q, I, N)."""
    offset = 1
    while offset < decay.shape[1]:
        shift = (0, 0, 0, 0, offset, 0)
        values = values + decay * pad(values[:, :-offset], shift)
        decay = decay * pad(decay[:, :-offset], shift, value=1.0)
        offset *= 2
    return decay, values


def selective_step(state: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """One token of `selective_scan_naive` for every row.

    Args:
        state: (b, I, N), any floating type, updated in place.
        x: (b, I).
        delta: (b, I).
        A: (I, N).
        B: (b, G, N).
        C: (b, G, N).

    Returns:
        y (b, I), in float32 or in the dtype of x or of the state.
    """
    if state.is_cuda:
        from .kernels.state_update import selective_step as fused

        return fused(state, x, delta, A, B, C)
    y = cpu.selective_step(state, x, delta, A, B, C)
    if y is not None:
        return y
    rows, channels, size = state.shape
    groups = B.shape[1]
    by_group = state.view(rows, groups, channels // groups, size)
    state.mul_((delta[..., None].float() * A).exp_().to(state.dtype))
    by_group.addcmul_((delta * x).to(state.dtype).view(rows, groups, -1, 1), B.to(state.dtype)[:, :, None])
    # A row vector times a matrix: torch's batched matrix-vector product is several times slower on a CPU.
    return torch.bmm(C.to(state.dtype).reshape(-1, 1, size), by_group.flatten(0, 1).mT).view(rows, channels)


def by_channel(groups: Tensor, channels: int) -> Tensor:
    """(..., G, N) to (..., I, N): each group's vector for each of its channels."""
    return groups.repeat_interleave(channels // groups.shape[-2], dim=-2)
