"""One token of the state-space recurrences, in place: Mamba-2's with a scalar decay per head, and Mamba-1's.

Both are bound by memory: every element of the state is read once and written once. The arithmetic is fp32 whatever the
state is stored in, and the output is taken from the new state before it is rounded to that dtype.
"""
# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

import torch
import triton
import triton.language as tl

PROGRAMS_WANTED = 4 * 132
"""Four for each multiprocessor of an H100 or H200 SXM."""
LEAST_TILE, MOST_TILE = 1024, 4096
"""Elements of the state one program of 128 threads holds: 8 per thread fill a 16-byte access to bf16."""
CHANNELS_PER_PROGRAM = 64
MOST_ROWS_PER_PROGRAM = 8
LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}
"""Fused multiply-adds are asked for, because whether they are Triton's default depends on its version."""


@triton.jit
def _ssd_step(
    state: tl.tensor,
    x: tl.tensor,
    log_decay: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    y: tl.tensor,
    width: tl.tensor,
    heads_per_group: tl.tensor,
    state_slot: tl.tensor,
    state_head: tl.tensor,
    state_line: tl.tensor,
    x_row: tl.tensor,
    x_head: tl.tensor,
    decay_row: tl.tensor,
    decay_head: tl.tensor,
    B_row: tl.tensor,
    B_group: tl.tensor,
    C_row: tl.tensor,
    C_group: tl.tensor,
    N: tl.constexpr,
    N_PAD: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    lines = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(2).to(tl.int64)
    group = head // heads_per_group
    index = tl.arange(0, N_PAD)
    inside = (lines < width)[:, None] & (index < N)[None, :]
    state_at = state + row * state_slot + head * state_head + lines[:, None] * state_line + index[None, :]
    h = tl.load(state_at, mask=inside, other=0.0).to(tl.float32)
    decay = tl.exp(tl.load(log_decay + row * decay_row + head * decay_head).to(tl.float32))
    drive = tl.load(x + row * x_row + head * x_head + lines, mask=lines < width, other=0.0).to(tl.float32)
    write = tl.load(B + row * B_row + group * B_group + index, mask=index < N, other=0.0).to(tl.float32)
    read = tl.load(C + row * C_row + group * C_group + index, mask=index < N, other=0.0).to(tl.float32)
    h = h * decay + drive[:, None] * write[None, :]
    tl.store(state_at, h.to(state.dtype.element_ty), mask=inside)
    out = tl.sum(h * read[None, :], 1)
    y_at = y + (row * tl.num_programs(1) + head) * width + lines
    tl.store(y_at, out.to(y.dtype.element_ty), mask=lines < width)


@triton.jit
def _selective_step(
    state: tl.tensor,
    x: tl.tensor,
    delta: tl.tensor,
    A: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    y: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    channels_per_group: tl.tensor,
    state_slot: tl.tensor,
    state_line: tl.tensor,
    x_row: tl.tensor,
    delta_row: tl.tensor,
    A_line: tl.tensor,
    B_row: tl.tensor,
    B_group: tl.tensor,
    C_row: tl.tensor,
    C_group: tl.tensor,
    N: tl.constexpr,
    N_PAD: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    lines = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    index = tl.arange(0, N_PAD)
    inside = (lines < width)[:, None] & (index < N)[None, :]
    groups = (lines // channels_per_group)[:, None]
    rate = tl.load(A + lines[:, None] * A_line + index[None, :], mask=inside, other=0.0).to(tl.float32)
    for step in tl.static_range(ROWS):
        row = tl.program_id(1).to(tl.int64) * ROWS + step
        in_row = lines < tl.where(row < rows, width, 0)
        here = in_row[:, None] & (index < N)[None, :]
        state_at = state + row * state_slot + lines[:, None] * state_line + index[None, :]
        h = tl.load(state_at, mask=here, other=0.0).to(tl.float32)
        time = tl.load(delta + row * delta_row + lines, mask=in_row, other=0.0).to(tl.float32)
        drive = tl.load(x + row * x_row + lines, mask=in_row, other=0.0).to(tl.float32) * time
        write = tl.load(B + row * B_row + groups * B_group + index[None, :], mask=here, other=0.0).to(tl.float32)
        read = tl.load(C + row * C_row + groups * C_group + index[None, :], mask=here, other=0.0).to(tl.float32)
        h = h * tl.exp(time[:, None] * rate) + drive[:, None] * write
        tl.store(state_at, h.to(state.dtype.element_ty), mask=here)
        tl.store(y + row * width + lines, tl.sum(h * read, 1).to(y.dtype.element_ty), mask=in_row)


def lines_per_program(programs: int, width: int, state_size: int) -> int:
    """Lines of N elements that a program of `ssd_step` holds: fewer where `programs` heads would leave the GPU idle."""
    line: int = triton.next_power_of_2(state_size)
    lines: int = min(triton.next_power_of_2(width), max(1, MOST_TILE // line))
    while lines * line > LEAST_TILE and lines > 1 and programs * triton.cdiv(width, lines) < PROGRAMS_WANTED:
        lines //= 2
    return lines


def rows_per_program(programs: int) -> int:
    """Rows one program of `selective_step` takes in turn, so that A is read once for all of them; a power of two."""
    rows = 1
    while rows < MOST_ROWS_PER_PROGRAM and programs // (2 * rows) >= PROGRAMS_WANTED:
        rows *= 2
    return rows


def ssd_step(
    state: torch.Tensor, x: torch.Tensor, log_decay: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    """Updates h ← exp(log_decay) h + x Bᵀ in place and returns y = h C: Mamba-2's SSD recurrence (arXiv 2405.21060).

    Head h uses group h // (H / G). A caller with a step size Δ passes Δ·x as `x`; the skip D·x is left to the caller.

    Bytes moved, with s, e the bytes of an element of the state and of x, B, C:
    2·s·b·H·P·N + e·b·(2·H·P + 2·G·N) + 4·b·H for b rows.

    Args:
        state: (slots, H, P, N), slots >= b, fp32, bf16 or fp16; row i of the batch updates slot i.
        x: (b, H, P), any float dtype.
        log_decay: (b, H), fp32, <= 0.
        B: (b, G, N), G divides H.
        C: (b, G, N).

    Returns:
        y (b, H, P) in the dtype of `x`, contiguous.

    Raises:
        ValueError: the shapes do not fit each other or a last dimension is not contiguous.
    """
    rows, heads, width = x.shape
    groups, size = B.shape[1:]
    wanted = ((rows, heads), (rows, groups, size), (rows, groups, size))
    if state.shape[0] < rows or state.shape[1:] != (heads, width, size) or heads % groups:
        raise ValueError(f"state {tuple(state.shape)} does not fit x {tuple(x.shape)} and B {tuple(B.shape)}")
    found = (log_decay.shape, B.shape, C.shape)
    if found != wanted:
        raise ValueError(f"log_decay, B, C: want {wanted}, got {tuple(map(tuple, found))}")
    _check_contiguous(state, x, B, C)
    y = x.new_empty(x.shape)
    lines = lines_per_program(rows * heads, width, size)
    _ssd_step[(triton.cdiv(width, lines), heads, rows)](
        state, x, log_decay, B, C, y, width, heads // groups, *state.stride()[:3], *x.stride()[:2],
        *log_decay.stride(), *B.stride()[:2], *C.stride()[:2],
        N=size, N_PAD=triton.next_power_of_2(size), BLOCK=lines, **LAUNCH,
    )  # fmt: skip
    return y


def selective_step(
    state: torch.Tensor, x: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    """Updates h ← exp(Δ A) ⊙ h + Δ x B in place and returns y = ⟨h, C⟩ per channel: Mamba's scan (arXiv 2312.00752).

    Channel c uses group c // (I / G). Δ is final (after softplus); the skip D·x is left to the caller.

    Bytes moved, with s, e, d the bytes of an element of the state, of x, B, C and of delta:
    2·s·b·I·N + (2·e + d)·b·I + 2·e·b·G·N + 4·I·N for b rows (A counted once: later reads find it in the L2 cache).

    Args:
        state: (slots, I, N), slots >= b, fp32, bf16 or fp16; row i of the batch updates slot i.
        x: (b, I), any float dtype.
        delta: (b, I), any float dtype.
        A: (I, N), fp32, negative.
        B: (b, G, N), G divides I.
        C: (b, G, N).

    Returns:
        y (b, I) in the dtype of `x`, contiguous.

    Raises:
        ValueError: the shapes do not fit each other or a last dimension is not contiguous.
    """
    rows, width = x.shape
    groups, size = B.shape[1:]
    wanted = ((rows, width), (width, size), (rows, groups, size), (rows, groups, size))
    if state.shape[0] < rows or state.shape[1:] != (width, size) or width % groups:
        raise ValueError(f"state {tuple(state.shape)} does not fit x {tuple(x.shape)} and B {tuple(B.shape)}")
    found = (delta.shape, A.shape, B.shape, C.shape)
    if found != wanted:
        raise ValueError(f"delta, A, B, C: want {wanted}, got {tuple(map(tuple, found))}")
    _check_contiguous(state, x, delta, A, B, C)
    y = x.new_empty(x.shape)
    blocks = triton.cdiv(width, CHANNELS_PER_PROGRAM)
    together = rows_per_program(blocks * rows)
    _selective_step[(blocks, triton.cdiv(rows, together))](
        state, x, delta, A, B, C, y, rows, width, width // groups, *state.stride()[:2], x.stride(0), delta.stride(0),
        A.stride(0), *B.stride()[:2], *C.stride()[:2],
        N=size, N_PAD=triton.next_power_of_2(size), BLOCK=CHANNELS_PER_PROGRAM, ROWS=together, **LAUNCH,
    )  # fmt: skip
    return y


def _check_contiguous(*tensors: torch.Tensor) -> None:
    if any(tensor.stride(-1) != 1 for tensor in tensors):
        raise ValueError(f"every last dimension wants stride 1, got {[tensor.stride(-1) for tensor in tensors]}")
