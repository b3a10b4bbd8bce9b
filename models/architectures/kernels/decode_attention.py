"""Attention of one new token per row to that row's cached columns, split over the columns.

The split and the exact merging of partial softmaxes follow Flash-Decoding (Dao, Haziza, Massa and Sizov, 2023) and
FlashAttention (arXiv 2205.14135): a part is kept as its normalised output and the logarithm of its sum of exponentials,
here to base 2. The number of parts depends on the batch size, so that the last bits of a row's output do too.
"""
# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

import torch
import triton
import triton.language as tl

MULTIPROCESSORS = 132
"""Of an H100 or H200 SXM."""
PROGRAMS_PER_MULTIPROCESSOR = 4
MOST_SPLITS = 128
MOST_COLUMNS_PER_SPLIT = 2048
"""Bounds how long the longest row of a large batch keeps one multiprocessor busy after the others are done."""
MERGED_AT_ONCE = 16
LAUNCH = {"enable_fp_fusion": True}
"""Fused multiply-adds are asked for, because whether they are Triton's default depends on its version."""


@triton.jit
def _attend_split(
    queries: tl.tensor, keys: tl.tensor, values: tl.tensor, lengths: tl.tensor,
    out: tl.tensor, partials: tl.tensor, log_sums: tl.tensor, columns: tl.tensor, scale_log2: tl.tensor,
    query_row: tl.tensor, query_head: tl.tensor,
    key_slot: tl.tensor, key_head: tl.tensor, key_column: tl.tensor,
    value_slot: tl.tensor, value_head: tl.tensor, value_column: tl.tensor,
    SPLITS: tl.constexpr, GROUP: tl.constexpr, GROUP_PAD: tl.constexpr,
    HEAD: tl.constexpr, HEAD_PAD: tl.constexpr, BLOCK: tl.constexpr, OPERAND: tl.constexpr,
) -> None:  # fmt: skip
    split = tl.program_id(0)
    kv_head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(2).to(tl.int64)
    length = tl.minimum(tl.load(lengths + row), columns).to(tl.int32)
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    first = split * share
    last = tl.minimum(first + share, length)

    members = tl.arange(0, GROUP_PAD)
    dims = tl.arange(0, HEAD_PAD)
    heads = kv_head * GROUP + members
    inside = (members < GROUP)[:, None] & (dims < HEAD)[None, :]
    query_at = queries + row * query_row + heads[:, None] * query_head + dims[None, :]
    query = tl.load(query_at, mask=inside, other=0.0).to(keys.dtype.element_ty).to(OPERAND)
    key_base = keys + row * key_slot + kv_head * key_head
    value_base = values + row * value_slot + kv_head * value_head

    best = tl.full([GROUP_PAD], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_PAD], tl.float32)
    mixed = tl.zeros([GROUP_PAD, HEAD_PAD], tl.float32)
    for start in tl.range(first, last, BLOCK, num_stages=3):
        index = start + tl.arange(0, BLOCK)
        valid = index < last
        key_at = key_base + index[None, :] * key_column + dims[:, None]
        key = tl.load(key_at, mask=valid[None, :] & (dims < HEAD)[:, None], other=0.0)
        scores = tl.dot(query, key.to(OPERAND), input_precision="ieee") * scale_log2
        scores = tl.where(valid[None, :], scores, float("-inf"))
        peak = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp2(scores - peak[:, None])
        shrink = tl.exp2(best - peak)
        total = total * shrink + tl.sum(weights, 1)
        value_at = value_base + index[:, None] * value_column + dims[None, :]
        value = tl.load(value_at, mask=valid[:, None] & (dims < HEAD)[None, :], other=0.0)
        weights = weights.to(values.dtype.element_ty).to(OPERAND)
        mixed = mixed * shrink[:, None] + tl.dot(weights, value.to(OPERAND), input_precision="ieee")
        best = peak

    # A part without columns has no weight; dividing by 1 keeps it, and a row of length 0, free of NaN.
    total = tl.where(total == 0.0, 1.0, total)
    mixed = mixed / total[:, None]
    flat = row * tl.num_programs(1) * GROUP + heads
    if SPLITS == 1:
        tl.store(out + flat[:, None] * HEAD + dims[None, :], mixed.to(out.dtype.element_ty), mask=inside)
    else:
        part = flat * SPLITS + split
        tl.store(log_sums + part, best + tl.log2(total), mask=members < GROUP)
        if first < last:
            tl.store(partials + part[:, None] * HEAD + dims[None, :], mixed, mask=inside)


@triton.jit
def _merge_splits(
    partials: tl.tensor,
    log_sums: tl.tensor,
    out: tl.tensor,
    SPLITS: tl.constexpr,
    SPLITS_PAD: tl.constexpr,
    HEAD: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    CHUNK: tl.constexpr,
) -> None:
    head = tl.program_id(0).to(tl.int64)
    every = tl.arange(0, SPLITS_PAD)
    dims = tl.arange(0, HEAD_PAD)
    sums = tl.load(log_sums + head * SPLITS + every, mask=every < SPLITS, other=float("-inf"))
    best = tl.max(sums, 0)
    best = tl.where(best == float("-inf"), 0.0, best)
    total = tl.sum(tl.exp2(sums - best), 0)
    mixed = tl.zeros([CHUNK, HEAD_PAD], tl.float32)
    for first in tl.static_range(0, SPLITS, CHUNK):
        parts = first + tl.arange(0, CHUNK)
        at = head * SPLITS + parts
        weights = tl.exp2(tl.load(log_sums + at, mask=parts < SPLITS, other=float("-inf")) - best)
        # What was never written (a part without columns) must not be read: it may hold NaN.
        read = (weights > 0.0)[:, None] & (dims < HEAD)[None, :]
        part = tl.load(partials + at[:, None] * HEAD + dims[None, :], mask=read, other=0.0)
        mixed += part * weights[:, None]
    merged = tl.sum(mixed, 0) / tl.where(total == 0.0, 1.0, total)
    tl.store(out + head * HEAD + dims, merged.to(out.dtype.element_ty), mask=dims < HEAD)


@triton.jit
def _write_columns(
    keys: tl.tensor,
    values: tl.tensor,
    new_keys: tl.tensor,
    new_values: tl.tensor,
    positions: tl.tensor,
    columns: tl.tensor,
    key_slot: tl.tensor,
    key_head: tl.tensor,
    key_column: tl.tensor,
    value_slot: tl.tensor,
    value_head: tl.tensor,
    value_column: tl.tensor,
    new_key_row: tl.tensor,
    new_key_head: tl.tensor,
    new_value_row: tl.tensor,
    new_value_head: tl.tensor,
    KV_HEADS: tl.constexpr,
    KV_HEADS_PAD: tl.constexpr,
    HEAD: tl.constexpr,
    HEAD_PAD: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    position = tl.load(positions + row).to(tl.int64)
    heads = tl.arange(0, KV_HEADS_PAD).to(tl.int64)[:, None]
    dims = tl.arange(0, HEAD_PAD)[None, :]
    inside = (heads < KV_HEADS) & (dims < HEAD)
    if (position >= 0) & (position < columns):
        key = tl.load(new_keys + row * new_key_row + heads * new_key_head + dims, mask=inside)
        value = tl.load(new_values + row * new_value_row + heads * new_value_head + dims, mask=inside)
        key_at = keys + row * key_slot + heads * key_head + position * key_column + dims
        value_at = values + row * value_slot + heads * value_head + position * value_column + dims
        tl.store(key_at, key.to(keys.dtype.element_ty), mask=inside)
        tl.store(value_at, value.to(values.dtype.element_ty), mask=inside)


def columns_per_block(head_dim: int, element_bytes: int) -> int:
    """Columns read at once: 16 to 64, so that a tile of keys takes at most 16 KiB where that is possible."""
    fitting: int = 16384 // (triton.next_power_of_2(head_dim) * element_bytes)
    return max(16, min(64, fitting))


def split_count(rows: int, kv_heads: int, columns: int, block: int) -> int:
    """Parts into which the columns of every row are divided, from shapes alone.

    Enough to give each multiprocessor four programs and none more than 2048 columns, but no part shorter than a block.
    """
    to_fill: int = triton.cdiv(MULTIPROCESSORS * PROGRAMS_PER_MULTIPROCESSOR, rows * kv_heads)
    to_balance: int = triton.cdiv(columns, MOST_COLUMNS_PER_SPLIT)
    longest: int = triton.cdiv(columns, block)
    return max(1, min(max(to_fill, to_balance), longest, MOST_SPLITS))


def decode_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, scale: float
) -> torch.Tensor:
    """Softmax attention of one query token per row to the first `lengths[b]` columns of slot b.

    Formula: softmax(scale · q Kᵀ) V, computed as in Flash-Decoding (see the module); query head h uses key head
    h // (n_heads / n_kv). Sums are fp32; as in FlashAttention the softmax weights are rounded to the cache's dtype
    before they multiply the values. Columns past a row's length are never read; a length above `columns` counts as
    `columns`; a row of length 0 gives zeros.

    Bytes moved, with e the bytes of a cache element, q of a query element, s = `split_count(...)`:
    2·e·n_kv·hd·Σ_b min(lengths[b], columns) + 2·q·B·n_heads·hd, and for s > 1 at most 8·s·B·n_heads·(hd + 1) more for
    the parts, which are fp32, written once and read once.

    Args:
        queries: (B, n_heads, hd), bf16, fp16 or fp32; head_dim 1 to 256.
        keys: (slots, n_kv, columns, hd), slots >= B, bf16, fp16 or fp32.
        values: the same shape and dtype.
        lengths: (B,) int32 or int64, contiguous.
        scale: factor of the scores, usually hd ** -0.5.

    Returns:
        (B, n_heads, hd) in the dtype of `queries`, contiguous.

    Raises:
        ValueError: the shapes do not fit each other or a last dimension is not contiguous.
    """
    rows, heads, head_dim = queries.shape
    _, kv_heads, columns, _ = keys.shape
    _check_caches(keys, values, rows, head_dim)
    if heads % kv_heads or queries.stride(2) != 1:
        raise ValueError(f"queries {tuple(queries.shape)} do not fit keys {tuple(keys.shape)} or are not contiguous")
    group, head_pad = heads // kv_heads, max(16, triton.next_power_of_2(head_dim))
    block = columns_per_block(head_dim, keys.element_size())
    splits = split_count(rows, kv_heads, columns, block)
    out = queries.new_empty(queries.shape)
    many = splits > 1
    partials = torch.empty((rows, heads, splits, head_dim), device=out.device, dtype=torch.float32) if many else out
    log_sums = torch.empty((rows, heads, splits), device=out.device, dtype=torch.float32) if many else out
    # fp32 products do not go to the tensor cores and need more registers than four warps have.
    warps = 8 if keys.element_size() == 4 else 4
    _attend_split[(splits, kv_heads, rows)](
        queries, keys, values, lengths, out, partials, log_sums, columns, scale * 1.4426950408889634,
        *queries.stride()[:2], *keys.stride()[:3], *values.stride()[:3],
        SPLITS=splits, GROUP=group, GROUP_PAD=max(16, triton.next_power_of_2(group)), HEAD=head_dim,
        HEAD_PAD=head_pad, BLOCK=block, OPERAND=_operand(keys.dtype), num_warps=warps, **LAUNCH,
    )  # fmt: skip
    if many:
        _merge_splits[(rows * heads,)](
            partials, log_sums, out, SPLITS=splits, SPLITS_PAD=triton.next_power_of_2(splits),
            HEAD=head_dim, HEAD_PAD=head_pad, CHUNK=MERGED_AT_ONCE, **LAUNCH,
        )  # fmt: skip
    return out


def write_columns(
    keys: torch.Tensor, values: torch.Tensor, new_keys: torch.Tensor, new_values: torch.Tensor, positions: torch.Tensor
) -> None:
    """Writes one new column per row into both caches, in place: row b goes to column `positions[b]` of slot b.

    A position outside 0..columns-1 writes nothing, so that -1 marks a row without a sequence.

    Bytes moved, with e the bytes of a cache element and n of a new one: 2·(e + n)·B·n_kv·hd.

    Args:
        keys: (slots, n_kv, columns, hd), slots >= B.
        values: the same shape and dtype.
        new_keys: (B, n_kv, hd), any float dtype; cast to that of the cache.
        new_values: (B, n_kv, hd).
        positions: (B,) int32 or int64, contiguous.

    Raises:
        ValueError: the shapes do not fit each other or a last dimension is not contiguous.
    """
    rows, kv_heads, head_dim = new_keys.shape
    _check_caches(keys, values, rows, head_dim)
    if new_values.shape != new_keys.shape or kv_heads != keys.shape[1]:
        raise ValueError(
            f"new columns {tuple(new_keys.shape)}, {tuple(new_values.shape)}: want (B, {keys.shape[1]}, hd)"
        )
    if new_keys.stride(2) != 1 or new_values.stride(2) != 1:
        raise ValueError("new_keys and new_values want a contiguous last dimension")
    _write_columns[(rows,)](
        keys, values, new_keys, new_values, positions, keys.shape[2], *keys.stride()[:3], *values.stride()[:3],
        *new_keys.stride()[:2], *new_values.stride()[:2], KV_HEADS=kv_heads,
        KV_HEADS_PAD=triton.next_power_of_2(kv_heads), HEAD=head_dim, HEAD_PAD=triton.next_power_of_2(head_dim),
        **LAUNCH,
    )  # fmt: skip


def _check_caches(keys: torch.Tensor, values: torch.Tensor, rows: int, head_dim: int) -> None:
    if keys.shape != values.shape or keys.dtype != values.dtype:
        raise ValueError(
            f"keys {tuple(keys.shape)} {keys.dtype} and values {tuple(values.shape)} {values.dtype} differ"
        )
    if keys.shape[0] < rows or keys.shape[3] != head_dim:
        raise ValueError(f"caches {tuple(keys.shape)} have no room for {rows} rows of head_dim {head_dim}")
    if keys.stride(3) != 1 or values.stride(3) != 1:
        raise ValueError("keys and values want a contiguous last dimension")


def _operand(dtype: torch.dtype) -> tl.dtype:
    # Triton's interpreter keeps bf16 as its bits and multiplies those: there, products are taken in fp32.
    if triton.knobs.runtime.interpret:
        return tl.float32
    return {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}[dtype]
