"""Reward models from checkpoints: outcome and process models of every published format become plug-ins.

`forms` tells the format, `texts` writes what is read, `trunks` and `heads` hold the weights, `scoring` batches.
"""

from typing import Any

from harness.errors import UserError
from harness.models.checkpoints import find_checkpoint
from harness.models.devices import Device, Dtype, check_settings, pick_device
from harness.models.tokenizers_ import load_tokenizer
from harness.nouns import RewardModel

from .forms import FORMS, FormName

FROM_FORMAT = "auto"


def reward(
    checkpoint: str,
    *,
    format: FormName = "auto",  # noqa: A002 (the option's name on the command line)
    separator: str = FROM_FORMAT,
    system: str = FROM_FORMAT,
    dtype: Dtype = "auto",
    device: Device = "auto",
    max_batch_size: int = 32,
) -> RewardModel:
    r"""Load an outcome or process reward model.

    Args:
        checkpoint: a hub id, a local folder, or `zoo/NAME`.
        format: how it reads a solution, if the files do not tell: `outcome`, a sequence classifier, raw scores (Skywork
            Reward); `orm` and `prm`, trained by `ttc distill`; `turns`, RLHFlow's PRMs; `tags`, Math-Shepherd;
            `separators`, Qwen2.5-Math-PRM; `values`, Skywork-o1-Open-PRM; `classes`, token classifiers of TRL.
        separator: what parts the steps, `\n` and `\n\n` as typed; `auto` is the format's own.
        system: the system message before the question; `auto` is the format's own.
        dtype: of the weights; `auto` is float32 on a CPU and bfloat16 on a GPU.
        device: `auto` takes the GPU when there is one.
        max_batch_size: texts that are read at once at most.

    Raises UserError when there is no such checkpoint, it is no reward model, its files are damaged or incomplete, or a
    setting has no such value.
    """
    check_settings(dtype, device, max_batch_size)
    if not separator:
        raise UserError(r"the separator of steps must not be empty; write for example separator=\n\n")
    found = find_checkpoint(checkpoint)
    tokenizer = load_tokenizer(found)
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of '{checkpoint}' has no tokenizer.json, which tells where steps end; add one")
    return build(found, tokenizer, format, separator, system, dtype, pick_device(device), max_batch_size)


def build(
    found: Any, tokenizer: Any, name: FormName, separator: str, system: str, dtype: str, device: str, rows: int
) -> RewardModel:
    """Read the weights of a checkpoint that was found."""
    import torch

    from harness.models.weights import open_weights

    from .forms import BY_TOKENS, find_form, verdict_tokens
    from .heads import load_head, token_head
    from .reading import Settings, TrainedRewardModel
    from .trunks import load_trunk

    place = torch.device(device)
    kind = {"cpu": "float32", "cuda": "bfloat16"}[place.type] if dtype == "auto" else dtype
    precision = getattr(torch, kind)
    files = open_weights(found)
    form_name = find_form(name, found, files, tokenizer)
    form = FORMS[form_name]
    trunk = load_trunk(found, files, precision, place)
    width = found.config["hidden_size"]
    head: torch.nn.Module
    if form_name in BY_TOKENS:
        head = token_head(files, verdict_tokens(found.name, form_name, tokenizer), width, precision, place)
    else:
        head = load_head(files, width, precision, place)
    settings = Settings(
        form_name,
        form.separator if separator == FROM_FORMAT else separator.replace("\\n", "\n"),
        form.system if system == FROM_FORMAT else system,
        found.config.get("max_position_embeddings"),
        rows,
    )
    return TrainedRewardModel(found.name, settings, trunk, head, tokenizer)
