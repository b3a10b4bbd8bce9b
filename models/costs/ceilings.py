"""What this machine can do at best: bytes per second of its memory, FLOP per second of its matrix products."""

import statistics
from collections.abc import Callable

import torch

from harness.budgets import Clock

REPEATS = 5
SIZES = {"cuda": (2**28, 8192), "cpu": (2**27, 1536)}
"""Bytes of each array that is copied, and the side of the matrices that are multiplied."""


def measure_ceilings(device: str, dtype: str, clock: Clock) -> dict[str, float | str]:
    """The ceilings of a device, each the median of five measurements after two that are not counted.

    `copy_bytes_per_s` reads one array and writes another; `triad_bytes_per_s` reads two and writes a third
    (a = b + s c); `bytes_per_s` is the larger. `flops_per_s` is that of square matrices in `dtype`.

    Args:
        device: `cpu` or `cuda`.
        dtype: of the products: `float32`, `bfloat16` or `float16`.
        clock: in seconds.
    """
    place, (count, side) = torch.device(device), SIZES[device]
    copied, triad = bandwidths(place, count, clock)
    left = torch.randn(side, side, device=place).to(getattr(torch, dtype))
    out = torch.empty_like(left)
    flops = 2 * side**3 / seconds_of(lambda: torch.mm(left, left, out=out), place, clock)
    return {
        "dtype": dtype,
        "copy_bytes_per_s": copied,
        "triad_bytes_per_s": triad,
        "bytes_per_s": max(copied, triad),
        "flops_per_s": flops,
    }


def bandwidths(device: torch.device, count: int, clock: Clock) -> tuple[float, float]:
    """Bytes per second of a copy and of a triad over arrays of `count` bytes."""
    a, b, c = (torch.zeros(count // 4, device=device) for _ in range(3))
    copy_s = seconds_of(lambda: a.copy_(b), device, clock)
    triad_s = seconds_of(lambda: torch.add(b, c, alpha=3.0, out=a), device, clock)
    return 2 * count / copy_s, 3 * count / triad_s


def seconds_of(work: Callable[[], object], device: torch.device, clock: Clock) -> float:
    """The median time of some work on a device that is otherwise idle."""
    seconds = []
    with torch.inference_mode():
        for _ in range(2 + REPEATS):
            synchronize(device)
            began = clock()
            work()
            synchronize(device)
            seconds.append(clock() - began)
    return statistics.median(seconds[2:])


def synchronize(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
