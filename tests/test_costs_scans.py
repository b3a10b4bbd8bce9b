"""The recurrences' operations, counted one by one with numbers that count, against the formulas."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from harness.models.architectures.selective_scan import selective_scan_naive
from harness.models.architectures.ssd import ssd_naive
from harness.models.costs.layers import SelectiveLayer, SsdLayer

TAPS = 4


class Tally:
    """Makes numbers whose arithmetic it counts."""

    def __init__(self) -> None:
        self.operations = 0

    def __call__(self, value: float) -> "Counted":
        return Counted(self, value)


class Counted:
    """A number; each product, sum and exponential is one operation."""

    def __init__(self, tally: Tally, value: float) -> None:
        self.tally, self.value = tally, value

    def made(self, value: float) -> "Counted":
        self.tally.operations += 1
        return Counted(self.tally, value)

    def __mul__(self, other: "Counted") -> "Counted":
        return self.made(self.value * other.value)

    def __add__(self, other: "Counted") -> "Counted":
        return self.made(self.value + other.value)

    def exp(self) -> "Counted":
        return self.made(math.exp(self.value))


def inner_product(tally: Tally, left: Sequence[Counted], right: Sequence[Counted]) -> Counted:
    """From zero, as matrix products are counted: two operations per pair."""
    total = tally(0.0)
    for a, b in zip(left, right, strict=True):
        total = total + a * b
    return total


def convolve(tally: Tally, channels: int) -> None:
    """One token through a short convolution of every channel, onto its bias."""
    for _ in range(channels):
        total = tally(0.1)
        for tap in range(TAPS):
            total = total + tally(0.2) * tally(float(tap))


def test_a_mamba2_token() -> None:
    heads, width, size, groups = 4, 3, 5, 2
    torch.manual_seed(0)
    x, B, C = torch.randn(1, 2, heads, width), torch.randn(1, 2, groups, size), torch.randn(1, 2, groups, size)
    log_decay, skip = -torch.rand(1, 2, heads), torch.randn(heads)
    tally = Tally()
    state = [[[tally(0.0) for _ in range(size)] for _ in range(width)] for _ in range(heads)]
    outputs: list[Any] = []
    for t in range(2):
        tally.operations = 0
        for h in range(heads):
            # One exponential per head is not counted: it does not grow with the state.
            decay = tally(math.exp(log_decay[0, t, h]))
            write, read = ([tally(float(v)) for v in tensor[0, t, h // (heads // groups)]] for tensor in (B, C))
            for p in range(width):
                value = tally(float(x[0, t, h, p]))
                state[h][p] = [decay * old + value * b for old, b in zip(state[h][p], write, strict=True)]
                y = inner_product(tally, state[h][p], read) + tally(float(skip[h])) * value
                outputs.append(y.value)
        convolve(tally, channels=9)
    expected, _ = ssd_naive(x, log_decay, B, C)
    torch.testing.assert_close(torch.tensor(outputs).view(expected.shape), expected + skip[:, None] * x)
    assert tally.operations == SsdLayer(heads, width, size, groups, channels=9, taps=TAPS).step_flops


def test_a_mamba1_token() -> None:
    channels, size, groups = 6, 3, 2
    torch.manual_seed(0)
    x, delta = torch.randn(1, 2, channels), torch.rand(1, 2, channels)
    A, B, C = -torch.rand(channels, size), torch.randn(1, 2, groups, size), torch.randn(1, 2, groups, size)
    skip = torch.randn(channels)
    tally = Tally()
    state = [[tally(0.0) for _ in range(size)] for _ in range(channels)]
    outputs: list[Any] = []
    for t in range(2):
        tally.operations = 0
        for i in range(channels):
            write, read = ([tally(float(v)) for v in tensor[0, t, i // (channels // groups)]] for tensor in (B, C))
            step, value = tally(float(delta[0, t, i])), tally(float(delta[0, t, i] * x[0, t, i]))
            decays = [(step * tally(float(a))).exp() for a in A[i]]
            state[i] = [d * old + value * b for d, old, b in zip(decays, state[i], write, strict=True)]
            y = inner_product(tally, state[i], read) + tally(float(skip[i])) * tally(float(x[0, t, i]))
            outputs.append(y.value)
        convolve(tally, channels=7)
    expected, _ = selective_scan_naive(x, delta, A, B, C)
    torch.testing.assert_close(torch.tensor(outputs).view(expected.shape), expected + skip * x)
    assert tally.operations == SelectiveLayer(channels, size, channels=7, taps=TAPS).step_flops


def test_the_chunked_products_are_those_of_the_paper() -> None:
    heads, width, size, groups, chunk, chunks = 4, 3, 5, 2, 8, 3
    layer = SsdLayer(heads, width, size, groups, channels=9, taps=TAPS)
    scores = 2 * chunk * chunk * size * groups
    weighted = 2 * chunk * chunk * width * heads
    written = read = 2 * chunk * size * width * heads
    assert layer.chunk_products(chunks * chunk, chunk) == chunks * (scores + weighted + written + read)
    assert layer.chunk_products((chunks - 1) * chunk + 1, chunk) == chunks * (scores + weighted + written + read)
    assert layer.chunk_products(1, chunk) == 2 * (size * groups + heads * width) + 4 * size * heads * width
