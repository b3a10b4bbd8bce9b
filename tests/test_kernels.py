"""The Triton kernels of the decode step against plain float64 formulas.

On a machine with a GPU the compiled kernels are tested. Anywhere else Triton's interpreter runs them on the CPU, in a
process of its own: it has to be chosen before triton is first imported, for the whole process.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
if INTERPRETED or torch.cuda.is_available():
    from harness.models.architectures.kernels import decode_attention as attention_module
    from harness.models.architectures.kernels import state_update as state_module
    from harness.models.architectures.kernels.conv_update import conv_step
    from harness.models.architectures.kernels.decode_attention import (
        columns_per_block,
        decode_attention,
        split_count,
        write_columns,
    )
    from harness.models.architectures.kernels.state_update import (
        lines_per_program,
        rows_per_program,
        selective_step,
        ssd_step,
    )

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
FAR = 2**30
"""Elements between two slots of a cache: a number of 32 bits, which twice that is not."""


def runs_kernels(test: Callable[..., None]) -> Callable[..., None]:
    missing = not INTERPRETED and not torch.cuda.is_available()
    test = pytest.mark.skipif(missing, reason="needs a GPU; the interpreter's run covers it")(test)
    return test if INTERPRETED else pytest.mark.gpu(test)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's run")
def test_the_kernels_under_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-p", "no:cacheprovider", "-m", "not gpu"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a few programs filled the GPU: few rows are then divided as hundreds are on a real one."""
    monkeypatch.setattr(attention_module, "MULTIPROCESSORS", 1)
    monkeypatch.setattr(state_module, "PROGRAMS_WANTED", 2)


def draw(*shape: int, dtype: torch.dtype = FP32, seed: int = 0) -> Tensor:
    """Standard normal numbers, rounded to `dtype`; the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype).to(DEVICE)


def assert_close(found: Tensor, wanted: Tensor, rounding: torch.dtype | None = None, slack: float = 2.0) -> None:
    """Equal to float64 numbers but for sums in fp32 and results rounded to `rounding`, by default their own dtype."""
    unit = torch.finfo(rounding or found.dtype).eps
    scale = wanted.abs().max().item()
    torch.testing.assert_close(found.double(), wanted, rtol=slack * unit, atol=slack * unit * scale + 1e-6 * scale)


def attention(queries: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, scale: float) -> Tensor:
    """The softmax formula, row by row and head by head, in float64."""
    out = torch.zeros(queries.shape, dtype=torch.float64, device=DEVICE)
    group = queries.shape[1] // keys.shape[1]
    for row, length in enumerate(lengths.tolist()):
        for head in range(queries.shape[1]):
            seen, kept = keys[row, head // group, :length].double(), values[row, head // group, :length].double()
            out[row, head] = torch.softmax(seen @ queries[row, head].double() * scale, 0) @ kept
    return out


def caches(slots: int, kv_heads: int, columns: int, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Keys and values as views of one buffer that keeps them side by side for every token."""
    both = draw(slots, columns, 2, kv_heads, head_dim, dtype=dtype, seed=1)
    keys, values = both.permute(2, 0, 3, 1, 4).unbind()
    return keys, values


ATTENTION_SHAPES = {
    # rows, n_heads, n_kv, columns, head_dim, lengths
    "one_row_many_splits": (1, 8, 2, 700, 64, [700]),
    "one_token": (2, 4, 2, 130, 64, [1, 1]),
    "odd_lengths": (4, 6, 2, 200, 32, [1, 37, 129, 200]),
    "around_a_block": (5, 4, 4, 192, 64, [63, 64, 65, 128, 191]),
    "llama_3b": (2, 6, 2, 300, 128, [299, 17]),
    "padded_head": (3, 4, 2, 150, 96, [150, 97, 64]),
    "wide_head": (2, 2, 1, 90, 256, [90, 33]),
    "one_head_per_group": (2, 3, 3, 100, 64, [100, 51]),
    "group_above_sixteen": (2, 20, 1, 100, 32, [99, 3]),
    "one_block": (2, 4, 2, 16, 64, [16, 5]),
    "one_column": (2, 4, 2, 1, 64, [1, 1]),
}


@runs_kernels
@pytest.mark.parametrize("dtype", [BF16, FP16, FP32], ids=str)
@pytest.mark.parametrize("name", ATTENTION_SHAPES)
def test_attention_is_the_softmax_of_the_valid_columns(name: str, dtype: torch.dtype) -> None:
    rows, heads, kv_heads, columns, head_dim, lengths = ATTENTION_SHAPES[name]
    keys, values = caches(rows + 1, kv_heads, columns, head_dim, dtype)
    for row, length in enumerate(lengths):
        keys[row, :, length:] = values[row, :, length:] = float("nan")
    before = keys.clone(), values.clone()
    queries = draw(rows, heads + 3, head_dim, dtype=dtype, seed=2)[:, 1 : heads + 1]
    lengths_on_device = torch.tensor(lengths, device=DEVICE, dtype=torch.int32 if dtype == BF16 else torch.int64)
    found = decode_attention(queries, keys, values, lengths_on_device, head_dim**-0.5)
    assert found.dtype == dtype
    assert found.is_contiguous()
    assert_close(found, attention(queries, keys, values, lengths_on_device, head_dim**-0.5))
    assert all(torch.equal(bits(was), bits(now)) for was, now in zip(before, (keys, values), strict=True))


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


@runs_kernels
@pytest.mark.usefixtures("small_device")
@pytest.mark.parametrize("dtype", [BF16, FP32], ids=str)
@pytest.mark.parametrize(("kv_heads", "splits"), [(2, 1), (1, 2)])
def test_attention_of_many_rows_walks_several_blocks(kv_heads: int, splits: int, dtype: torch.dtype) -> None:
    rows, columns = 3, 300
    assert split_count(rows, kv_heads, columns, 64) == splits
    keys, values = caches(rows, kv_heads, columns, 32, dtype)
    queries = draw(rows, kv_heads, 32, dtype=dtype, seed=2)
    lengths = torch.tensor([300, 1, 193], device=DEVICE)
    found = decode_attention(queries, keys, values, lengths, 0.3)
    assert_close(found, attention(queries, keys, values, lengths, 0.3))


@runs_kernels
@pytest.mark.parametrize("columns", [130, 60], ids=["split", "whole"])
def test_a_row_of_length_zero_gives_zeros_and_too_long_a_row_is_cut(columns: int) -> None:
    keys, values = caches(2, 2, columns, 32, FP32)
    keys[0] = values[0] = float("nan")
    queries, lengths = draw(2, 2, 32, seed=2), torch.tensor([0, 1000], device=DEVICE)
    found = decode_attention(queries, keys, values, lengths, 0.2)
    assert torch.equal(found[0], torch.zeros_like(found[0]))
    assert_close(found[1:2], attention(queries[1:2], keys[1:2], values[1:2], lengths[1:2].clamp(max=columns), 0.2))


@runs_kernels
def test_scores_far_apart_do_not_overflow() -> None:
    keys, values = caches(1, 1, 400, 64, FP32)
    queries, lengths = draw(1, 4, 64, seed=2) * 1000, torch.tensor([333], device=DEVICE)
    found = decode_attention(queries, keys, values, lengths, 1.0)
    assert_close(found, attention(queries, keys, values, lengths, 1.0), slack=2000.0)


@runs_kernels
def test_a_nan_in_a_valid_column_is_not_hidden() -> None:
    keys, values = caches(2, 1, 300, 32, FP32)
    keys[0, 0, 250, 3] = float("nan")
    found = decode_attention(draw(2, 1, 32), keys, values, torch.tensor([300, 300], device=DEVICE), 0.2)
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


@runs_kernels
def test_splits_fill_the_device_and_stay_whole_blocks() -> None:
    for rows in (1, 2, 8, 64, 512):
        for kv_heads in (1, 8, 32):
            for columns in (1, 64, 2048, 8192, 131072):
                splits = split_count(rows, kv_heads, columns, 64)
                assert 1 <= splits <= max(1, -(-columns // 64))
                if columns >= 8192 and kv_heads > 1:
                    assert splits * rows * kv_heads >= 2 * 132
                if splits < 128:
                    assert -(-columns // splits) <= 2048
    assert [columns_per_block(64, 2), columns_per_block(96, 2), columns_per_block(256, 4)] == [64, 64, 16]


@runs_kernels
@pytest.mark.parametrize("dtype", [BF16, FP32], ids=str)
@pytest.mark.parametrize(("kv_heads", "head_dim"), [(2, 64), (3, 96), (8, 32), (1, 128)])
def test_new_columns_go_to_their_positions_and_nowhere_else(kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
    keys, values = caches(6, kv_heads, 33, head_dim, dtype)
    # The interpreter cuts fp32 off to bf16 instead of rounding it; the other way round is exact everywhere.
    fused = draw(4, 2 * kv_heads + 1, head_dim, dtype=BF16 if INTERPRETED else FP32, seed=3)
    new_keys, new_values = fused[:, 1 : kv_heads + 1], fused[:, kv_heads + 1 :]
    wanted = keys.clone(), values.clone()
    for row, position in ((0, 32), (2, 0)):
        wanted[0][row, :, position] = new_keys[row].to(dtype)
        wanted[1][row, :, position] = new_values[row].to(dtype)
    write_columns(keys, values, new_keys, new_values, torch.tensor([32, -1, 0, 33], device=DEVICE))
    assert torch.equal(bits(keys), bits(wanted[0]))
    assert torch.equal(bits(values), bits(wanted[1]))


SSD_SHAPES = {
    # rows, H, P, N, G
    "llamba_1b": (2, 4, 64, 64, 4),
    "llamba_3b": (1, 3, 96, 64, 3),
    "square": (1, 2, 128, 128, 2),
    "shared_groups": (3, 6, 32, 16, 2),
    "odd_sizes": (2, 3, 7, 20, 1),
    "large_batch": (3, 2, 40, 128, 1),
}


@runs_kernels
@pytest.mark.parametrize("dtype", [FP32, BF16, FP16], ids=str)
@pytest.mark.parametrize("name", SSD_SHAPES)
def test_ssd_step_is_the_recurrence(name: str, dtype: torch.dtype, request: pytest.FixtureRequest) -> None:
    if name == "large_batch":
        request.getfixturevalue("small_device")
    rows, heads, width, size, groups = SSD_SHAPES[name]
    whole = draw(rows + 2, heads, width + 1, size, dtype=dtype)
    state, before = whole[:, :, :width], whole.clone()
    fused = draw(rows, heads * width + 2 * groups * size, dtype=dtype, seed=1)
    x, B, C = fused.split((heads * width, groups * size, groups * size), 1)
    x, B, C = x.unflatten(1, (heads, width)), B.unflatten(1, (groups, size)), C.unflatten(1, (groups, size))
    log_decay = -draw(rows, heads, seed=2).abs()
    y = ssd_step(state, x, log_decay, B, C)
    write, read = (tensor.double().repeat_interleave(heads // groups, 1) for tensor in (B, C))
    wanted = torch.einsum("bh,bhpn->bhpn", log_decay.double().exp(), before[:rows, :, :width].double())
    wanted = wanted + torch.einsum("bhp,bhn->bhpn", x.double(), write)
    assert_close(state[:rows], wanted)
    assert_close(y, torch.einsum("bhpn,bhn->bhp", wanted, read))
    assert y.dtype == dtype
    assert torch.equal(bits(whole[rows:]), bits(before[rows:]))
    assert torch.equal(bits(whole[:, :, width:]), bits(before[:, :, width:]))


@runs_kernels
def test_ssd_steps_in_a_row_are_the_masked_attention_form() -> None:
    steps, rows, heads, width, size = 12, 2, 3, 16, 8
    x, B, C = draw(steps, rows, heads, width), draw(steps, rows, 1, size, seed=1), draw(steps, rows, 1, size, seed=2)
    log_decay, state = -draw(steps, rows, heads, seed=3).abs(), torch.zeros(rows, heads, width, size, device=DEVICE)
    found = torch.stack([ssd_step(state, x[t], log_decay[t], B[t], C[t]) for t in range(steps)])
    since = log_decay.double().cumsum(0)
    decay = (since[:, None] - since[None]).exp() * torch.ones(steps, steps, device=DEVICE).tril()[..., None, None]
    scores = torch.einsum("ibgn,jbgn->ijb", C.double(), B.double())
    assert_close(found, torch.einsum("ijb,ijbh,jbhp->ibhp", scores, decay, x.double()), slack=20.0)


SELECTIVE_SHAPES = {
    # rows, I, N, G
    "mamba_in_llama": (2, 160, 16, 10),
    "one_group": (3, 100, 16, 1),
    "odd_sizes": (2, 66, 5, 3),
    "rows_together": (21, 130, 4, 5),
}


@runs_kernels
@pytest.mark.parametrize("dtype", [FP32, BF16, FP16], ids=str)
@pytest.mark.parametrize("name", SELECTIVE_SHAPES)
def test_selective_step_is_the_recurrence(name: str, dtype: torch.dtype, request: pytest.FixtureRequest) -> None:
    if name == "rows_together":
        request.getfixturevalue("small_device")
    rows, channels, size, groups = SELECTIVE_SHAPES[name]
    whole = draw(rows + 2, channels + 1, size, dtype=dtype)
    state, before = whole[:, :channels], whole.clone()
    x, delta = draw(rows, 2 * channels, dtype=dtype, seed=1)[:, channels:], draw(rows, channels, seed=2).abs()
    A = -draw(channels, size, seed=3).exp()
    B, C = draw(rows, groups, 2 * size, dtype=dtype, seed=4).split(size, 2)
    y = selective_step(state, x, delta, A, B, C)
    write, read = (tensor.double().repeat_interleave(channels // groups, 1) for tensor in (B, C))
    wanted = torch.exp(delta.double()[..., None] * A.double()) * before[:rows, :channels].double()
    wanted = wanted + (delta.double() * x.double())[..., None] * write
    assert_close(state[:rows], wanted)
    assert_close(y, (wanted * read).sum(-1))
    assert y.dtype == dtype
    assert torch.equal(bits(whole[rows:]), bits(before[rows:]))
    assert torch.equal(bits(whole[:, channels:]), bits(before[:, channels:]))


@runs_kernels
def test_work_is_divided_by_shape() -> None:
    assert (lines_per_program(32, 64, 64), lines_per_program(2048, 64, 64)) == (16, 64)
    assert (lines_per_program(4096, 96, 64), lines_per_program(1, 2, 4096), lines_per_program(9, 1, 8)) == (64, 1, 1)
    assert [rows_per_program(programs) for programs in (1, 1055, 1056, 10**6)] == [1, 1, 2, 8]


@runs_kernels
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("dtype", [FP32, BF16, FP16], ids=str)
@pytest.mark.parametrize(("rows", "channels", "taps"), [(1, 256, 4), (2, 300, 4), (3, 7, 4), (2, 512, 3), (2, 8, 1)])
def test_conv_steps_are_a_causal_convolution(
    rows: int, channels: int, taps: int, dtype: torch.dtype, silu: bool
) -> None:
    steps = 6
    inputs = draw(steps, rows, channels + 3, dtype=dtype)[..., 1 : channels + 1]
    weight, bias = draw(channels, taps, dtype=dtype, seed=1), draw(channels, dtype=dtype, seed=2) if silu else None
    whole = draw(rows + 1, taps, channels + 2, dtype=dtype, seed=3)
    window, spare = whole[..., :channels], whole.clone()
    window[:rows] = 0
    found = torch.stack([conv_step(window, x, weight, bias, silu) for x in inputs])
    padded = torch.nn.functional.pad(inputs.double().permute(1, 2, 0), (taps - 1, 0))
    wanted = torch.nn.functional.conv1d(
        padded, weight.double()[:, None], None if bias is None else bias.double(), groups=channels
    ).permute(2, 0, 1)
    assert_close(found, torch.nn.functional.silu(wanted) if silu else wanted)
    assert found.dtype == dtype
    assert torch.equal(window[:rows], inputs[-taps:].transpose(0, 1))
    assert torch.equal(bits(whole[rows]), bits(spare[rows]))
    assert torch.equal(bits(whole[..., channels:]), bits(spare[..., channels:]))


def far_slots(*shape: int) -> Tensor:
    """Three bf16 slots 2³⁰ elements apart: the memory between them is reserved and never touched."""
    size = torch.Size(shape).numel()
    slots = torch.empty(2 * FAR + size, dtype=BF16, device=DEVICE).as_strided((3, size), (FAR, 1))
    slots.copy_(draw(3, size, dtype=BF16))
    return slots.unflatten(1, shape)


@runs_kernels
def test_columns_further_apart_than_32_bits_count() -> None:
    keys, values = far_slots(2, 20, 32), far_slots(2, 20, 32)
    new_keys, new_values = draw(3, 2, 32, dtype=BF16, seed=5), draw(3, 2, 32, dtype=BF16, seed=6)
    write_columns(keys, values, new_keys, new_values, torch.tensor([3, 0, 19], device=DEVICE))
    assert torch.equal(keys[2, :, 19], new_keys[2])
    assert torch.equal(values[2, :, 19], new_values[2])
    queries, lengths = draw(3, 4, 32, dtype=BF16, seed=7), torch.tensor([4, 1, 20], device=DEVICE)
    found = decode_attention(queries, keys, values, lengths, 0.2)
    assert_close(found, attention(queries, keys, values, lengths, 0.2))


@runs_kernels
def test_states_further_apart_than_32_bits_count() -> None:
    far, x, B = far_slots(2, 20, 32), draw(3, 2, 20, dtype=BF16), draw(3, 2, 32, dtype=BF16)
    near, log_decay = far.clone(), -draw(3, 2).abs()
    assert torch.equal(ssd_step(far, x, log_decay, B, B), ssd_step(near, x, log_decay, B, B))
    assert torch.equal(far, near)
    far, x, A = far[:, 0], x[:, 0], -draw(20, 32).abs()
    near = far.clone()
    assert torch.equal(selective_step(far, x, x.abs(), A, B, B), selective_step(near, x, x.abs(), A, B, B))
    assert torch.equal(far, near)
    near, weight = far.clone(), draw(32, 20, dtype=BF16)
    assert torch.equal(conv_step(far, B[:, 0], weight, None, True), conv_step(near, B[:, 0], weight, None, True))
    assert torch.equal(far, near)


@runs_kernels
def test_what_does_not_fit_is_refused() -> None:
    keys, values = caches(2, 2, 8, 32, FP32)
    queries, lengths = draw(2, 4, 32), torch.ones(2, device=DEVICE, dtype=torch.int64)
    with pytest.raises(ValueError, match="differ"):
        decode_attention(queries, keys, values[:, :1], lengths, 1.0)
    with pytest.raises(ValueError, match="no room for 3 rows of head_dim 32"):
        decode_attention(draw(3, 4, 32), keys, values, lengths, 1.0)
    with pytest.raises(ValueError, match="do not fit"):
        decode_attention(draw(2, 3, 32), keys, values, lengths, 1.0)
    with pytest.raises(ValueError, match="contiguous last dimension"):
        write_columns(keys, values, draw(2, 32, 2).mT, draw(2, 2, 32), lengths)
    with pytest.raises(ValueError, match="new columns"):
        write_columns(keys, values, draw(2, 1, 32), draw(2, 1, 32), lengths)
    with pytest.raises(ValueError, match="does not fit"):
        ssd_step(draw(1, 2, 8, 4), draw(2, 2, 8), draw(2, 2), draw(2, 1, 4), draw(2, 1, 4))
    with pytest.raises(ValueError, match="log_decay, B, C: want"):
        ssd_step(draw(2, 2, 8, 4), draw(2, 2, 8), draw(2, 1), draw(2, 1, 4), draw(2, 1, 4))
    with pytest.raises(ValueError, match="delta, A, B, C: want"):
        selective_step(draw(2, 8, 4), draw(2, 8), draw(2, 8), draw(8, 5), draw(2, 1, 4), draw(2, 1, 4))
    with pytest.raises(ValueError, match="every last dimension"):
        selective_step(draw(2, 8, 4), draw(2, 8), draw(2, 8), draw(4, 8).T, draw(2, 1, 4), draw(2, 1, 4))
    with pytest.raises(ValueError, match="do not fit"):
        conv_step(draw(2, 4, 8), draw(2, 8), draw(8, 3), None, False)
    with pytest.raises(ValueError, match="want to be contiguous"):
        conv_step(draw(2, 4, 8), draw(2, 8), draw(4, 8).T, None, False)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_step_follows_what_is_in_its_buffers() -> None:
    rows, heads, kv_heads, columns, head_dim = 3, 8, 2, 500, 64
    keys, values = caches(rows, kv_heads, columns, head_dim, BF16)
    queries, new = draw(rows, heads, head_dim, dtype=BF16), draw(rows, kv_heads, head_dim, dtype=BF16, seed=4)
    positions = torch.zeros(rows, dtype=torch.int64, device=DEVICE)

    def step() -> Tensor:
        write_columns(keys, values, new, new, positions)
        return decode_attention(queries, keys, values, positions + 1, 0.125)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    for place in ([0, 63, 499], [498, 64, 1]):
        positions.copy_(torch.tensor(place))
        new.copy_(draw(rows, kv_heads, head_dim, dtype=BF16, seed=place[0] + 9))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(keys[torch.arange(rows), :, positions], new)
        assert_close(found, attention(queries, keys, values, positions + 1, 0.125))
