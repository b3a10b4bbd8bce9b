"""Published weights into a vLLM model: each key goes to the parameters, shards and rows that it stands for."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from vllm.model_executor.model_loader.weight_utils import default_weight_loader


class Piece(NamedTuple):
    """Rows for one parameter; `shard` is the part of a fused parameter that they are, None for the whole."""

    parameter: str
    rows: Tensor
    shard: int | str | None = None


Place = Callable[[str, Tensor], Iterable[Piece]]
"""What a published key and its tensor stand for; nothing for a key that is left out, KeyError for an unknown one."""


def fill(model: nn.Module, weights: Iterable[tuple[str, Tensor]], place: Place) -> set[str]:
    """Load every weight; returns the names of the parameters that were filled. Raises ValueError for unknown keys."""
    parameters: dict[str, Any] = dict(model.named_parameters())
    filled: set[str] = set()
    for key, tensor in weights:
        try:
            pieces = list(place(key, tensor))
            for piece in pieces:
                put(parameters[piece.parameter], piece)
        except KeyError:
            raise ValueError(f"the checkpoint has a weight '{key}' that its architecture does not have") from None
        filled.update(piece.parameter for piece in pieces)
    return filled


def put(parameter: Any, piece: Piece) -> None:
    """Copy the rows that this process needs into a parameter."""
    load = getattr(parameter, "weight_loader", default_weight_loader)
    if piece.shard is None:
        load(parameter, piece.rows)
    else:
        load(parameter, piece.rows, piece.shard)


def place_mlp(block: str, rest: str, tensor: Tensor) -> Iterator[Piece]:
    """`mlp.{gate,up,down}_proj.*` of a block."""
    _, name, kind = rest.split(".")
    if name == "down_proj":
        yield Piece(f"{block}.mlp.down_proj.{kind}", tensor)
    else:
        yield Piece(f"{block}.mlp.gate_up_proj.{kind}", tensor, {"gate_proj": 0, "up_proj": 1}[name])


def repeat_heads(rows: Tensor, head: int, times: int) -> Tensor:
    """Every `head` rows `times` times in a row: (heads * head, ...) to (heads * times * head, ...)."""
    heads: Tensor = rows.unflatten(0, (-1, head))
    return heads.repeat_interleave(times, dim=0).flatten(0, 1)


def reorder(rows: Tensor, widths: Iterable[int], order: Iterable[int]) -> Tensor:
    """Stretches of rows, so wide, in another order."""
    parts = rows.split(list(widths))
    return torch.cat([parts[number] for number in order])
