"""Writing a student as a checkpoint of its family: the files and keys of the published ones."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from harness.models.architectures.initial import FLOAT32_NAMES
from harness.models.architectures.layout import Layout
from harness.models.weights import collect
from harness.storage.storing import sync_folder, sync_tree


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    layout: Layout,
    config: Mapping[str, Any],
    mamba_config: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
    dtype: torch.dtype = torch.float32,
    generation_config: Mapping[str, Any] | None = None,
) -> None:
    """Write config.json, model.safetensors and what else is given, for `harness.models.native.load_model` to read.

    The folder is made whole under another name and renamed into place; one that is there is replaced.

    Args:
        folder: to be made.
        model: as `layout` describes it.
        layout: the keys of the published weight files.
        config: of the family, as in its config.json.
        mamba_config: of a MambaInLlama, as in its mamba_config.json.
        tokenizer: a transformers tokenizer, whose files are written too.
        dtype: of the weights in the file; the few on which a recurrence depends sensitively stay float32.
        generation_config: which tokens end a completion.

    Raises ValueError when the layout does not suit the model.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    files = {"config.json": config, "mamba_config.json": mamba_config, "generation_config.json": generation_config}
    for name, held in files.items():
        if held is not None:
            (unfinished / name).write_text(json.dumps(dict(held), indent=2) + "\n", encoding="utf-8")
    weights = {
        key: tensor if is_sensitive(layout, key) else tensor.to(dtype) for key, tensor in collect(model, layout).items()
    }
    save_file(weights, unfinished / "model.safetensors", metadata={"format": "pt"})
    # safetensors makes files that their owner alone may read.
    (unfinished / "model.safetensors").chmod((unfinished / "config.json").stat().st_mode)
    if tokenizer is not None:
        tokenizer.save_pretrained(unfinished)
    sync_tree(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    sync_folder(folder.parent)


def is_sensitive(layout: Layout, key: str) -> bool:
    """Whether the engine keeps this weight in float32 whatever the model's dtype."""
    place = layout[key]
    return place is not None and place.parameter.rsplit(".", 1)[-1] in FLOAT32_NAMES
