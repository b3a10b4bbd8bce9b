"""Where the tensors of a checkpoint's files belong in a model."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Rows of a parameter along dim 0, from `start` to where the next key's begin, or to its end."""

    parameter: str
    """Dotted name in the module."""
    start: int = 0


Layout = Mapping[str, Place | None]
"""From every key of the weight files to its place; None for a key that is known and not used."""
