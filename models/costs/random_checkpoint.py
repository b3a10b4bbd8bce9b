"""Checkpoints of a published shape with random weights, for engines that can only read files."""

from pathlib import Path

import torch

from harness.errors import UserError
from harness.models.architectures.initial import allocate, randomise
from harness.models.architectures.presets import find_preset
from harness.models.checkpoints import find_checkpoint
from harness.models.distillation.saving import save_checkpoint
from harness.models.native import PRESET, builder
from harness.models.tokenizers_ import byte_tokenizer


def write_random(name: str, folder: Path, dtype: str) -> Path:
    """Write a checkpoint of the shape of `name` with random weights and a tokenizer of single bytes.

    Args:
        name: a hub id, a local folder, `zoo/NAME` or `preset/NAME`; only its config is read.
        folder: to be made.
        dtype: of the weights; `auto` is bfloat16.

    Returns the folder. Raises UserError when there is no such checkpoint or it is of a family that this program does
    not build itself.
    """
    if name.startswith(PRESET):
        preset = find_preset(name.removeprefix(PRESET))
        family, build, config = preset.family, preset.build, dict(preset.config)
    else:
        found = find_checkpoint(name)
        family, config = found.family, dict(found.config)
        try:
            build = builder(found)
        except UserError:
            raise UserError(
                f"random weights cannot be made for '{name}' of the family {family}; leave out --random-weights"
            ) from None
    with torch.device("meta"):
        model, layout = build(config, None)
    kind = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    allocate(model, kind, torch.device("cpu"))
    randomise(model)
    mamba = config.pop("mamba_config", None)
    config |= {"model_type": "llama" if family == "mamba-in-llama" else family, "torch_dtype": str(kind)[6:]}
    save_checkpoint(folder, model, layout, config, mamba, byte_tokenizer(), kind)
    return folder
