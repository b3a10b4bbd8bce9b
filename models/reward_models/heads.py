"""What makes a score of a hidden state: the heads that published reward models have, read from their weight files."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.models.weights import WeightFiles

LINEAR = ("score.", "v_head.summary.", "classifier.")
"""What the keys of a head of one linear layer begin with."""
TWO_LAYERS = "score."
"""`score.0`, a ReLU, `score.2`: the head of Qwen2.5-Math-PRM and -RM."""


def head_of(keys: Collection[str]) -> str:
    """How the head's keys begin: `score.`, `v_head.summary.`, ..., or an empty text when there is none."""
    if f"{TWO_LAYERS}0.weight" in keys and f"{TWO_LAYERS}2.weight" in keys:
        return TWO_LAYERS
    return next((prefix for prefix in LINEAR if f"{prefix}weight" in keys), "")


def count_labels(files: WeightFiles) -> int:
    """The head's outputs; 0 when the files have no head but a language model's."""
    prefix = head_of(files.shapes.keys())
    last = f"{prefix}weight" if f"{prefix}weight" in files.shapes else f"{prefix}2.weight"
    return files.shapes[last][0] if prefix else 0


def load_head(files: WeightFiles, width: int, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The head, (n, width) to (n, labels). Raises UserError when its weights are not of the trunk's width."""
    prefix = head_of(files.shapes.keys())
    if f"{prefix}weight" in files.shapes:
        return linear(files, prefix, width, dtype, device)
    first = linear(files, f"{prefix}0.", width, dtype, device)
    second = linear(files, f"{prefix}2.", first.out_features, dtype, device)
    return nn.Sequential(first, nn.ReLU(), second)


def linear(files: WeightFiles, prefix: str, width: int, dtype: torch.dtype, device: torch.device) -> nn.Linear:
    """One linear layer."""
    return make_linear(
        files.name,
        f"{prefix}weight",
        files.tensor(f"{prefix}weight"),
        files.tensor(f"{prefix}bias") if f"{prefix}bias" in files.shapes else None,
        width,
        dtype,
        device,
    )


def make_linear(
    name: str, key: str, weight: Tensor, bias: Tensor | None, width: int, dtype: torch.dtype, device: torch.device
) -> nn.Linear:
    """A linear layer with these weights. Raises UserError when they take other than `width` channels."""
    if weight.ndim != 2 or weight.shape[1] != width:
        raise UserError(
            f"the weight '{key}' of '{name}' has the shape {tuple(weight.shape)} and the hidden states are {width} "
            "wide; check that config.json and the weights are of the same checkpoint"
        )
    layer = nn.Linear(width, len(weight), bias=bias is not None, dtype=dtype, device=device)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.requires_grad_(False)


def token_head(
    files: WeightFiles, tokens: Sequence[int], width: int, dtype: torch.dtype, device: torch.device
) -> nn.Linear:
    """The rows of a language model's head that predict these tokens; the embedding's where the head is tied."""
    for key in ("lm_head.weight", "model.embed_tokens.weight"):
        if key in files.shapes:
            rows = files.tensor(key)[list(tokens)]
            return make_linear(files.name, key, rows, None, width, dtype, device)
    raise UserError(f"'{files.name}' has no lm_head.weight and no model.embed_tokens.weight to predict a token with")


def head_flops(head: nn.Module) -> int:
    """FLOPs of one place."""
    return sum(2 * layer.weight.numel() for layer in head.modules() if isinstance(layer, nn.Linear))
