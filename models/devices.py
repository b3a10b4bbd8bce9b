"""Where a model runs and in which precision: the settings that every engine of ours has."""

from typing import Literal

from harness.errors import UserError, choices

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]


def check_settings(dtype: str, device: str, max_batch_size: int) -> None:
    """Raises UserError naming the values that exist."""
    for name, value, known in (
        ("dtype", dtype, ["auto", "float32", "bfloat16", "float16"]),
        ("device", device, ["auto", "cpu", "cuda"]),
    ):
        if value not in known:
            raise UserError(f"there is no {name} '{value}'; write one of {choices(known)}")
    if max_batch_size < 1:
        raise UserError(f"max_batch_size must be at least 1, got {max_batch_size}; write for example 128")


def pick_device(device: str) -> str:
    """`cpu` or `cuda`. Raises UserError when a GPU is asked for and there is none."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here; write device=cpu or leave it out")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
