"""The state-space recurrence of Mamba-2 and of discrete Mamba-2, written three times: naive, chunked, one step.

    h_t = exp(a_t) h_{t-1} + x_t B_t^T        y_t = h_t C_t

Glossary (Dao and Gu, "Transformers are SSMs", arXiv 2405.21060): `b` rows of a batch, `L` tokens, `H` heads, `P` head
dimension, `N` state size (`d_state`), `G` groups of heads that share B and C (head h is of group h // (H / G)), `Q`
chunk size. `log_decay` is a_t <= 0: -Delta exp(A_log) in Mamba-2, -softplus(a) in discrete Mamba-2. `x` has been
multiplied by Delta where the family does so. `C` reads the state out, `B` writes into it.

Everything is computed in float32 whatever the model's dtype. A token with `log_decay` 0 and `x` 0 leaves the state as
it was: that is how the padding after a row's end is passed over.
"""

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from .kernels import cpu

CHUNK = 32
"""Tokens per chunk; the quadratic part of a chunk then costs about as much as its linear part."""


def ssd_naive(x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence as it is written, token by token: what the other two are tested against.

    Args:
        x: (b, L, H, P).
        log_decay: (b, L, H).
        B: (b, L, G, N).
        C: (b, L, G, N).

    Returns:
        y (b, L, H, P) and the last state (b, H, P, N).
    """
    rows, length, heads, width = x.shape
    state = x.new_zeros(rows, heads, width, B.shape[-1])
    outputs = []
    for t in range(length):
        write, read = (by_head(group[:, t], heads) for group in (B, C))
        state = log_decay[:, t].exp()[..., None, None] * state + x[:, t][..., None] * write[:, :, None]
        outputs.append((state * read[:, :, None]).sum(-1))
    return torch.stack(outputs, dim=1), state


def ssd_chunked(x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """The same as `ssd_naive` by matrix products: within chunks of `chunk` tokens, then from chunk to chunk.

    On a GPU the fused kernel of `mamba_ssm` does it when that is installed and no gradient is wanted.
    """
    with torch.autocast(x.device.type, enabled=False):  # which would round the products to bfloat16
        return scan_chunks(x, log_decay, B, C, chunk)


def scan_chunks(x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """`ssd_chunked` with nothing rounded on the way."""
    fused = fused_chunk_scan() if x.is_cuda and not torch.is_grad_enabled() else None
    if fused is not None:
        # Delta stands for the scalar decay, A for -1; the kernel multiplies x by Delta, which is undone beforehand. A
        # Delta of 1e-12 decays by exactly 1 in float32 and, unlike 0, can be undone.
        delta = (-log_decay.float()).clamp_min(1e-12)
        scaled = x.float() / delta[..., None]
        minus_one = delta.new_full((x.shape[2],), -1.0)
        y, state = fused(scaled, delta, minus_one, B.float(), C.float(), chunk_size=256, return_final_states=True)
        return y, state
    rows, length, heads, width = x.shape
    groups, size = B.shape[2:]
    chunk = min(chunk, length)
    shape = (rows, -1, chunk, groups, heads // groups)
    missing = -length % chunk
    # (b, chunks, G, H/G, Q, ...) from here on.
    x = pad(x.float(), (0, 0, 0, 0, 0, missing)).reshape(*shape, width).permute(0, 1, 3, 4, 2, 5)
    decay = pad(log_decay.float(), (0, 0, 0, missing)).reshape(shape).permute(0, 1, 3, 4, 2)
    B, C = (
        pad(tensor.float(), (0, 0, 0, 0, 0, missing)).reshape(rows, -1, chunk, groups, size).transpose(2, 3)
        for tensor in (B, C)
    )
    cumulative = decay.cumsum(-1)
    total = cumulative[..., -1:]
    y = ((C @ B.mT)[:, :, :, None] * decay_matrix(cumulative)) @ x
    written = (x * (total - cumulative).exp()[..., None]).mT @ B[:, :, :, None]
    before, state = pass_states(written, total.exp()[..., None])
    y = y + cumulative.exp()[..., None] * (C[:, :, :, None] @ before.mT)
    y = y.permute(0, 1, 4, 2, 3, 5).reshape(rows, -1, heads, width)[:, :length]
    return y, state.reshape(rows, heads, width, size)


def decay_matrix(cumulative: Tensor) -> Tensor:
    """exp(a_{j+1} + ... + a_i) at (i, j) for j <= i and 0 above the diagonal, from cumulative sums (..., Q)."""
    size = cumulative.shape[-1]
    above = torch.ones(size, size, dtype=torch.bool, device=cumulative.device).triu(1)
    return (cumulative[..., :, None] - cumulative[..., None, :]).masked_fill(above, -torch.inf).exp()


def pass_states(written: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """From what each chunk writes to the state before each chunk (b, chunks, ...) and the last one (b, ...)."""
    state = torch.zeros_like(written[:, 0])
    before = []
    # Unbound at once: the gradient of indexing chunk by chunk would be as large as all chunks, each time.
    for kept, added in zip(decay.unbind(1), written.unbind(1), strict=True):
        before.append(state)
        state = kept * state + added
    return torch.stack(before, dim=1), state


def ssd_step(
    state: Tensor, x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, D: Tensor, scale: Tensor | None = None
) -> Tensor:
    """One token of `ssd_naive` for every row: h = exp(log_decay) h + scale x B^T, y = h C + D x.

    Args:
        state: (b, H, P, N), any floating type, updated in place.
        x: (b, H, P).
        log_decay: (b, H).
        B: (b, G, N).
        C: (b, G, N).
        D: (H,) float32.
        scale: (b, H), Mamba-2's Delta; None is 1.

    Returns:
        y (b, H, P), in float32 or in the dtypes of x and state.
    """
    if not state.is_cuda:
        ones = torch.ones_like(log_decay) if scale is None else scale
        y = cpu.ssd_step(state, x, ones, log_decay, B, C, D)
        if y is not None:
            return y
    scaled = x if scale is None else x * scale[..., None]
    return fused_or_plain_step(state, scaled, log_decay, B, C) + D[:, None] * x


def fused_or_plain_step(state: Tensor, x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """H = exp(log_decay) h + x B^T, y = h C; shapes as in `ssd_step`."""
    if state.is_cuda:
        from .kernels.state_update import ssd_step as fused

        return fused(state, x, log_decay, B, C)
    rows, heads, width, size = state.shape
    groups = B.shape[1]
    x, B, C = x.to(state.dtype), B.to(state.dtype), C.to(state.dtype)
    by_group = state.view(rows, groups, heads // groups * width, size)
    state.mul_(log_decay.exp().to(state.dtype)[..., None, None])
    by_group.addcmul_(x.reshape(rows, groups, -1, 1), B[:, :, None])
    # A row vector times a matrix: torch's batched matrix-vector product is several times slower on a CPU.
    return torch.bmm(C.reshape(-1, 1, size), by_group.flatten(0, 1).mT).view(rows, heads, width)


def by_head(groups: Tensor, heads: int) -> Tensor:
    """(..., G, N) to (..., H, N): each group's vector for each of its heads."""
    repeats = heads // groups.shape[-2]
    return groups if repeats == 1 else groups.repeat_interleave(repeats, dim=-2)


def mixing_matrix(log_decay: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The recurrence as one matrix per head, T of y = T x: T_ij = C_i . B_j exp(a_{j+1} + ... + a_i) for j <= i.

    Shapes: log_decay (b, L, H), B and C (b, L, G, N); returns (b, H, L, L). arXiv 2408.10189 matches it with the
    teacher's attention.
    """
    heads = log_decay.shape[2]
    write, read = (by_head(group.float(), heads).transpose(1, 2) for group in (B, C))
    return (read @ write.mT) * decay_matrix(log_decay.float().transpose(1, 2).cumsum(-1))


@cache
def fused_chunk_scan() -> Callable[..., tuple[Tensor, Tensor]] | None:
    """mamba_ssm's chunked scan, or None where the package is not installed."""
    if importlib.util.find_spec("mamba_ssm") is None:
        return None
    module = importlib.import_module("mamba_ssm.ops.triton.ssd_combined")
    return cast(Callable[..., tuple[Tensor, Tensor]], module.mamba_chunk_scan_combined)
