"""The recurrences are written naively, in chunks and as one step, in C too: all are the same function."""

import pytest
import torch
from torch import Tensor

from harness.models.architectures.kernels import cpu
from harness.models.architectures.selective_scan import selective_scan, selective_scan_naive, selective_step
from harness.models.architectures.ssd import mixing_matrix, ssd_chunked, ssd_naive, ssd_step

LENGTHS = [1, 2, 7, 31, 32, 33, 64, 100]
SSD_SHAPES = [(4, 1, 8, 16), (4, 2, 5, 3), (4, 4, 32, 32), (6, 3, 16, 64)]
SCAN_SHAPES = [(32, 2, 16), (12, 1, 5), (48, 3, 16)]


@pytest.fixture(params=["compiled", "plain"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(cpu, "library", lambda: None)
    elif cpu.library() is None:
        pytest.skip("there is no C compiler")


def ssd_inputs(length: int, heads: int, groups: int, width: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(length)
    log_decay = -torch.rand(2, length, heads) * 3
    log_decay[:, length // 2, 0] = 0.0  # a token that forgets nothing
    B, C = torch.randn(2, 2, length, groups, size).unbind()
    return torch.randn(2, length, heads, width), log_decay, B, C


def scan_inputs(length: int, channels: int, groups: int, size: int) -> tuple[Tensor, ...]:
    torch.manual_seed(length)
    B, C = torch.randn(2, 2, length, groups, size).unbind()
    delta = torch.rand(2, length, channels)
    return torch.randn(2, length, channels), delta, -torch.rand(channels, size) * 16, B, C


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-4, rtol=1e-4)


def test_the_naive_recurrences_are_those_of_two_tokens_worked_out_by_hand() -> None:
    half = torch.full((1, 2, 1), 0.5).log()
    x, B, C = (
        torch.tensor([[[[3.0]], [[5.0]]]]),
        torch.tensor([[[[2.0]], [[7.0]]]]),
        torch.tensor([[[[1.0]], [[10.0]]]]),
    )
    y, state = ssd_naive(x, half, B, C)
    assert y.flatten().tolist() == [6.0, 380.0]  # 3 * 2 * 1; (6 / 2 + 5 * 7) * 10
    assert state.item() == 38.0
    delta, A = torch.tensor([[[1.0], [2.0]]]), torch.full((1, 1), 0.5).log()
    y, state = selective_scan_naive(x.flatten(2), delta, A, B, C)
    torch.testing.assert_close(y.flatten(), torch.tensor([6.0, 715.0]))  # 3 * 2; (6 / 4 + 2 * 5 * 7) * 10
    torch.testing.assert_close(state.flatten(), torch.tensor([71.5]))


@pytest.mark.parametrize("shape", SSD_SHAPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_ssd_in_chunks_is_the_naive_recurrence(length: int, shape: tuple[int, int, int, int]) -> None:
    inputs = ssd_inputs(length, *shape)
    expected = ssd_naive(*(tensor.double() for tensor in inputs))
    for chunk in (32, 8, 5):
        for found, wanted in zip(ssd_chunked(*inputs, chunk), expected, strict=True):
            close(found, wanted)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("shape", SSD_SHAPES)
def test_ssd_step_by_step_is_the_naive_recurrence(shape: tuple[int, int, int, int]) -> None:
    x, log_decay, B, C = ssd_inputs(9, *shape)
    scale, D = torch.rand(2, 9, shape[0]), torch.randn(shape[0])
    expected, last = ssd_naive((x * scale[..., None]).double(), log_decay.double(), B.double(), C.double())
    state = torch.zeros(2, shape[0], shape[2], shape[3])
    for t in range(9):
        y = ssd_step(state, x[:, t], log_decay[:, t], B[:, t], C[:, t], D, scale[:, t])
        close(y, expected[:, t] + D[:, None] * x[:, t])
    close(state, last)


@pytest.mark.parametrize("shape", SSD_SHAPES)
def test_the_mixing_matrix_is_the_recurrence(shape: tuple[int, int, int, int]) -> None:
    x, log_decay, B, C = (tensor.double() for tensor in ssd_inputs(33, *shape))
    expected, _ = ssd_naive(x, log_decay, B, C)
    close(torch.einsum("bhij,bjhp->bihp", mixing_matrix(log_decay, B, C).double(), x), expected)


@pytest.mark.parametrize("shape", SCAN_SHAPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_the_selective_scan_in_chunks_is_the_naive_recurrence(length: int, shape: tuple[int, int, int]) -> None:
    inputs = scan_inputs(length, *shape)
    expected = selective_scan_naive(*(tensor.double() for tensor in inputs))
    for chunk in (32, 5):
        for found, wanted in zip(selective_scan(*inputs, chunk), expected, strict=True):
            close(found, wanted)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("shape", SCAN_SHAPES)
def test_the_selective_scan_step_by_step_is_the_naive_recurrence(shape: tuple[int, int, int]) -> None:
    x, delta, A, B, C = scan_inputs(9, *shape)
    expected, last = selective_scan_naive(x.double(), delta.double(), A.double(), B.double(), C.double())
    state = torch.zeros(2, shape[0], shape[2])
    for t in range(9):
        close(selective_step(state, x[:, t], delta[:, t], A, B[:, t], C[:, t]), expected[:, t])
    close(state, last)


def test_padding_leaves_the_states_as_they_were() -> None:
    x, log_decay, B, C = ssd_inputs(50, 4, 2, 8, 16)
    real = torch.arange(50) < 37
    padded = ssd_chunked(x * real[:, None, None], log_decay * real[:, None], B, C)[1]
    close(padded, ssd_naive(x[:, :37], log_decay[:, :37], B[:, :37], C[:, :37])[1])
    x, delta, A, B, C = scan_inputs(50, 32, 2, 16)
    padded = selective_scan(x, delta * real[:, None], A, B, C)[1]
    close(padded, selective_scan_naive(x[:, :37], delta[:, :37], A, B[:, :37], C[:, :37])[1])


def test_autocast_rounds_nothing_inside() -> None:
    inputs, scan = ssd_inputs(40, 4, 2, 8, 16), scan_inputs(40, 32, 2, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, found_scan = ssd_chunked(*inputs)[0], selective_scan(*scan)[0]
    close(found, ssd_naive(*inputs)[0])
    close(found_scan, selective_scan_naive(*scan)[0])
