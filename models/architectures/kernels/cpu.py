"""The decode step's kernels for a CPU: `cpu.c`, compiled by the machine's own C compiler when it is first needed.

Compiling takes a few seconds once; the library is kept in the user's cache folder under a name made of the source, the
compiler and the processor. Where there is no compiler, or the library cannot be loaded, the plain torch code runs
instead; the two agree to rounding.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCES = ("cpu.c", "cpu_kernels.h")
FLAGS = "-O3 -march=native -fno-math-errno -fassociative-math -fno-signed-zeros -fno-trapping-math -fopenmp -fPIC"
COMPILE_TIMEOUT_S = 120.0

POINTER, INTEGER, REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
SIGNATURES = {
    "attention_step": [POINTER] * 9 + [INTEGER] * 7 + [REAL],
    "ssd_step": [POINTER] * 4 + [INTEGER] * 3 + [POINTER] * 4 + [INTEGER] * 5,
    "selective_step": [POINTER] * 7 + [INTEGER] * 4,
    "conv_step": [POINTER, POINTER, INTEGER, POINTER, POINTER, POINTER] + [INTEGER] * 3,
    "gate": [POINTER, POINTER, INTEGER, INTEGER],
    "rms_norm": [POINTER] * 3 + [INTEGER, INTEGER, REAL],
    "gated_norm": [POINTER, POINTER, INTEGER, POINTER, POINTER, INTEGER, INTEGER, INTEGER, REAL],
}
SUFFIXES = {torch.float32: "f32", torch.bfloat16: "bf16"}


def is_wanted(x: Tensor) -> bool:
    """Whether the kernels may be tried: on a CPU, where nothing is differentiated."""
    return not (x.is_cuda or torch.is_grad_enabled())


def kernel(name: str, dtype: torch.dtype) -> Any:
    """A kernel for caches or activations of a dtype, or None where it cannot be had."""
    loaded = library()
    return None if loaded is None or dtype not in SUFFIXES else loaded[f"{name}_{SUFFIXES[dtype]}"]


@cache
def library() -> dict[str, Any] | None:
    """The compiled kernels by name, or None where they cannot be had."""
    try:
        path = compiled()
        if path is None:
            return None
        loaded = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None
    functions = {}
    for name, signature in SIGNATURES.items():
        for suffix in SUFFIXES.values():
            function = getattr(loaded, f"{name}_{suffix}")
            function.argtypes, function.restype = signature, None
            functions[f"{name}_{suffix}"] = function
    return functions


def compiled() -> Path | None:
    """The shared library, compiled if this machine has not done so yet; None without a compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    here = Path(__file__).parent
    key = hashlib.sha256("".join((here / name).read_text() for name in SOURCES).encode())
    key.update(f"{FLAGS} {compiler} {processor()}".encode())
    target = cache_folder() / f"cpu-{key.hexdigest()[:16]}.so"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "cpu.o"
            # Linked without OpenMP's own library: torch has loaded one, and two would fight for the cores.
            run([compiler, *FLAGS.split(), "-c", str(here / SOURCES[0]), "-o", str(made)])
            run([compiler, "-shared", str(made), "-o", str(made.with_suffix(".so"))])
            made.with_suffix(".so").replace(target)
    return target


def run(command: list[str]) -> None:
    """Run a compiler. Raises SubprocessError when it fails or hangs."""
    subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_TIMEOUT_S)


def processor() -> str:
    """What the processor can do, for a library that is compiled for it alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16 numbers (AVX512-BF16, AMX, or ARM's)."""
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(processor().split())


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ttc-harness"


def attention_step(
    projected: Tensor,
    rotation: tuple[Tensor, Tensor] | None,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    sharing: tuple[Tensor, Tensor],
    n_heads: int,
) -> Tensor | None:
    """One token of attention for every row, written into the cache; None where there is no kernel for it.

    Args:
        projected: (b, (n_heads + 2 n_kv) * head_dim), rows [q | k | v] before rotation.
        rotation: cosines and sines, b * rotary_dim / 2 values each.
        keys: (b, n_kv, columns, head_dim), a view of whole columns of contiguous slots.
        values: the same.
        positions: (b,) the new column of each row.
        sharing: for each row another that has the same first columns, and how many; both (b,).
        n_heads: query heads.

    Returns:
        (b, n_heads * head_dim).
    """
    run_kernel = kernel("attention_step", keys.dtype)
    rows, n_kv, _, head_dim = keys.shape
    if run_kernel is None or rotation is None or head_dim > 256 or head_dim % 16 or not projected.is_contiguous():
        return None
    cosines, sines = (table.contiguous() for table in rotation)
    leaders, shared = sharing
    y = projected.new_empty(rows, n_heads * head_dim)
    run_kernel(
        projected.data_ptr(), cosines.data_ptr(), sines.data_ptr(), keys.data_ptr(), values.data_ptr(),
        positions.data_ptr(), leaders.data_ptr(), shared.data_ptr(), y.data_ptr(), rows, n_heads, n_kv, head_dim,
        cosines.shape[-1], keys.stride(0), keys.stride(1), head_dim**-0.5,
    )  # fmt: skip
    return y


def ssd_step(
    state: Tensor, x: Tensor, scale: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Tensor | None:
    """One token of `ssd.ssd_step`, float32; None where there is no kernel for it."""
    run_kernel = kernel("ssd_step", state.dtype)
    inputs = (x, B, C)
    if run_kernel is None or any(tensor.dtype != torch.float32 or not is_packed(tensor) for tensor in inputs):
        return None
    rows, heads, width, size = state.shape
    scale, log_decay, y = scale.contiguous(), log_decay.contiguous(), torch.empty(rows, heads, width)
    run_kernel(
        state.data_ptr(), x.data_ptr(), B.data_ptr(), C.data_ptr(), x.stride(0), B.stride(0), C.stride(0),
        scale.data_ptr(), log_decay.data_ptr(), D.data_ptr(), y.data_ptr(), rows, heads, B.shape[1], width, size,
    )  # fmt: skip
    return y


def selective_step(state: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor | None:
    """One token of `selective_scan.selective_step`, float32; None where there is no kernel for it."""
    run_kernel = kernel("selective_step", state.dtype)
    if run_kernel is None:
        return None
    rows, channels, size = state.shape
    x, delta, A, B, C = (tensor.float().contiguous() for tensor in (x, delta, A, B, C))
    y = torch.empty(rows, channels)
    run_kernel(
        state.data_ptr(), x.data_ptr(), delta.data_ptr(), A.data_ptr(), B.data_ptr(), C.data_ptr(), y.data_ptr(), rows,
        channels, B.shape[1], size,
    )  # fmt: skip
    return y


def conv_step(window: Tensor, x: Tensor, taps: Tensor, bias: Tensor, is_silu: bool) -> Tensor | None:
    """One token of `ShortConv.step`, float32; `taps` (4, channels) and `bias` float32; None without a kernel for it."""
    run_kernel = kernel("conv_step", window.dtype)
    if run_kernel is None or len(taps) != 4 or x.dtype != window.dtype or x.stride(1) != 1:
        return None
    rows, channels = x.shape
    y = torch.empty(rows, channels)
    run_kernel(
        window.data_ptr(), x.data_ptr(), x.stride(0), taps.data_ptr(), bias.data_ptr(), y.data_ptr(), rows, channels,
        is_silu,
    )  # fmt: skip
    return y


def gate(gate_up: Tensor) -> Tensor | None:
    """silu(gate) * up of rows (..., 2 * inner), [gate | up]; None where there is no kernel for it."""
    run_kernel = kernel("gate", gate_up.dtype)
    if run_kernel is None or not gate_up.is_contiguous():
        return None
    *rows, width = gate_up.shape
    y = gate_up.new_empty(*rows, width // 2)
    run_kernel(gate_up.data_ptr(), y.data_ptr(), gate_up.numel() // width, width // 2)
    return y


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor | None:
    """X / sqrt(mean(x^2) + eps) * weight over rows (..., width); None where there is no kernel for it."""
    run_kernel = kernel("rms_norm", x.dtype)
    if run_kernel is None or x.dtype != weight.dtype or not x.is_contiguous():
        return None
    y, width = torch.empty_like(x), x.shape[-1]
    run_kernel(x.data_ptr(), weight.data_ptr(), y.data_ptr(), x.numel() // width, width, eps)
    return y


def gated_norm(y: Tensor, z: Tensor, weight: Tensor, groups: int, eps: float) -> Tensor | None:
    """`GatedRMSNorm` of float32 rows y (b, width) by gates z of any dtype; None where there is no kernel for it."""
    run_kernel = kernel("gated_norm", z.dtype)
    if run_kernel is None or y.ndim != 2 or y.dtype != torch.float32 or not y.is_contiguous():
        return None
    rows, width = y.shape
    out = z.new_empty(rows, width)
    scale = weight.float()
    run_kernel(y.data_ptr(), z.data_ptr(), z.stride(0), scale.data_ptr(), out.data_ptr(), rows, groups, width, eps)
    return out


def is_packed(tensor: Tensor) -> bool:
    """Whether each row of (b, heads, width) is contiguous, wherever the rows lie."""
    return tensor.stride(2) == 1 and tensor.stride(1) == tensor.shape[2]
