"""What every layer of a model is told about the tokens of one pass, beside their hidden states."""

from dataclasses import dataclass

from torch import Tensor

from .rope import Rotation

LayerState = tuple[Tensor, ...]
"""What one layer keeps of the past, rows first: keys and values, or convolution window and recurrent state, or none."""


@dataclass(frozen=True, slots=True)
class Span:
    """A pass over whole texts, from their first tokens."""

    rotation: Rotation | None
    """For positions 0, 1, ...; (1, L, 1, rotary_dim / 2)."""
    lengths: Tensor | None = None
    """(b,) int64 true lengths of right-padded rows; None where every row is full."""
    real: Tensor | None = None
    """(b, L, 1) bool, False at the padding."""


@dataclass(frozen=True, slots=True)
class Step:
    """A pass over the next token of every row."""

    rotation: Rotation | None
    """(b, 1, 1, rotary_dim / 2)."""
    rows: Tensor
    """(b,) int64: 0, 1, ..."""
    positions: Tensor
    """(b,) int64: how many tokens came before, which is also the column of the new one."""
    columns: int
    """The largest position and one."""
    visible: Tensor | None
    """(b, 1, 1, columns) bool: columns up to a row's own position; None where all positions are equal."""
    sharing: tuple[Tensor, Tensor]
    """For each row, (b,) int64 both: another row that begins with the same tokens, and how many they are at least."""
