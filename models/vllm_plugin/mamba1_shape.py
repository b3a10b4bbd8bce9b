"""The sizes of a MambaInLlama's Mamba-1 mixer, known before any layer is made."""

import math
from dataclasses import dataclass
from typing import Any

from vllm.model_executor.layers.mamba.mamba_utils import is_conv_state_dim_first


@dataclass(frozen=True, slots=True)
class Mamba1Shape:
    """`width` of the model, `inner` channels, `narrow` ones of x and B, `state` size N, `rank` of the step size."""

    width: int
    inner: int
    narrow: int
    state: int
    rank: int
    taps: int
    has_conv_bias: bool
    repeats_before_conv: bool

    @property
    def channels(self) -> int:
        """Of the convolution."""
        return self.inner if self.repeats_before_conv else self.narrow

    def state_shapes(self, processes: int) -> tuple[tuple[int, ...], ...]:
        """Of the convolution's window and of the states of one request, with so many tensor-parallel processes."""
        channels, columns = self.channels // processes, self.taps - 1
        window = (channels, columns) if is_conv_state_dim_first() else (columns, channels)
        return window, (self.inner // processes, self.state)


def mamba1_shape(width: int, mamba: dict[str, Any]) -> Mamba1Shape:
    """The sizes that a mamba_config.json gives, with the defaults of the authors' code."""
    ssm = mamba.get("ssm_cfg", {})
    rank = ssm.get("dt_rank", "auto")
    return Mamba1Shape(
        width=width,
        inner=mamba.get("d_inner") or int(ssm.get("expand", 1) * width),
        narrow=mamba.get("d_xb", 2560),
        state=ssm.get("d_state", 16),
        rank=math.ceil(width / 16) if rank == "auto" else rank,
        taps=ssm.get("d_conv", 4),
        has_conv_bias=ssm.get("conv_bias", True),
        repeats_before_conv=ssm.get("repeat_kv_before_conv", True),
    )
