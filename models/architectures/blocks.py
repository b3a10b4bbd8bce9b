"""The ways in which a mixer, its norm and a feed-forward layer make a block of the residual stream."""

from torch import Tensor, nn

from .attention import Attention
from .discrete_mamba2 import DiscreteMamba2
from .mamba1 import Mamba1Mixer
from .mamba2_mixer import Mamba2Mixer
from .mlps import GatedMLP, GeluMLP
from .norms import RMSNorm
from .passes import LayerState, Span, Step

Mixer = Attention | DiscreteMamba2 | Mamba1Mixer | Mamba2Mixer
"""A layer that mixes tokens. Every one has the same surface:

`forward(u, span)` takes (b, L, width) to (b, L, width) and gives the state after each row's last token; `step(u, state,
step)` takes (b, width) to (b, width) and updates the state in place; `empty_state(slots, columns, state_dtype)` is
uninitialised room for `slots` rows of at most `columns` tokens; `attention_width` is n_heads * head_dim of an attention
layer, else 0; `scan_flops` are the FLOPs per token outside attention and outside products with weights.
"""


class SequentialBlock(nn.Module):
    """h += mixer(norm(h)); h += mlp(norm(h)): Llama, Llamba and MambaInLlama."""

    def __init__(self, mixer_norm: nn.Module, mixer: Mixer, mlp_norm: nn.Module, mlp: GatedMLP) -> None:
        super().__init__()
        self.mixer_norm, self.mixer, self.mlp_norm, self.mlp = mixer_norm, mixer, mlp_norm, mlp

    def forward(self, h: Tensor, span: Span) -> tuple[Tensor, LayerState]:
        """(b, L, width) to (b, L, width) and the mixer's state."""
        mixed, state = self.mixer(self.mixer_norm(h), span)
        h = h + mixed
        return h + self.mlp(self.mlp_norm(h)), state

    def step(self, h: Tensor, state: LayerState, step: Step) -> Tensor:
        """(b, width) to (b, width)."""
        h = h + self.mixer.step(self.mixer_norm(h), state, step)
        h = h + self.mlp(self.mlp_norm(h))
        return h


class ParallelBlock(nn.Module):
    """h += mixer(norm(h)) + mlp(norm(h)) with one norm for both: Phi-Mamba."""

    def __init__(self, norm: nn.Module, mixer: Mixer, mlp: GeluMLP) -> None:
        super().__init__()
        self.norm, self.mixer, self.mlp = norm, mixer, mlp

    def forward(self, h: Tensor, span: Span) -> tuple[Tensor, LayerState]:
        """(b, L, width) to (b, L, width) and the mixer's state."""
        normed = self.norm(h)
        mixed, state = self.mixer(normed, span)
        return h + mixed + self.mlp(normed), state

    def step(self, h: Tensor, state: LayerState, step: Step) -> Tensor:
        """(b, width) to (b, width)."""
        normed = self.norm(h)
        h = h + self.mixer.step(normed, state, step) + self.mlp(normed)
        return h


class MixerBlock(nn.Module):
    """h += mixer(norm(h)) without a feed-forward layer: Mamba-2. The stream h is float32 if `residual_in_fp32`."""

    def __init__(self, norm: RMSNorm, mixer: Mixer, *, residual_in_fp32: bool) -> None:
        super().__init__()
        self.norm, self.mixer, self.residual_in_fp32 = norm, mixer, residual_in_fp32

    def forward(self, h: Tensor, span: Span) -> tuple[Tensor, LayerState]:
        """(b, L, width) to (b, L, width) and the mixer's state."""
        mixed, state = self.mixer(self.normed(h), span)
        return self.stream(h) + mixed, state

    def step(self, h: Tensor, state: LayerState, step: Step) -> Tensor:
        """(b, width) to (b, width)."""
        return self.stream(h) + self.mixer.step(self.normed(h), state, step)

    def normed(self, h: Tensor) -> Tensor:
        """The mixer's input, in the weights' dtype."""
        normed: Tensor = self.norm(h.to(self.norm.weight.dtype))
        return normed

    def stream(self, h: Tensor) -> Tensor:
        """The residual stream in its dtype."""
        return h.float() if self.residual_in_fp32 else h


Block = SequentialBlock | ParallelBlock | MixerBlock
