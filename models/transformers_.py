"""The engine `transformers`: any causal language model that Hugging Face transformers can load.

It is the plain reference: no compiled kernels, no CUDA graphs, one batch after the other. `stepwise` decodes; this
module finds, checks and loads.
"""

from typing import Any

from harness.errors import UserError, choices
from harness.nouns import Facts, Model

from .checkpoints import Checkpoint, check_no_kernels, find_checkpoint
from .devices import Device, Dtype, check_settings, pick_device
from .tokenizers_ import load_tokenizer

OWN_FAMILIES = {
    "mamba-in-llama": "MambaInLlama (it has a mamba_config.json; as a plain Llama its replaced layers would be random)",
    "llamba": "Llamba",
    "phi-mamba": "Phi-Mamba",
}
"""Families whose weights transformers has no class for."""


def transformers(
    checkpoint: str,
    *,
    dtype: Dtype = "auto",
    device: Device = "auto",
    max_batch_size: int = 128,
    trust_remote_code: bool = False,
) -> Model:
    """Load a causal language model and its tokenizer.

    Args:
        checkpoint: a hub id, a local folder, or `zoo/NAME`.
        dtype: `auto` is float32 on a CPU and the checkpoint's own on a GPU.
        device: `auto` takes the GPU when there is one.
        max_batch_size: rows in flight at most.
        trust_remote_code: let the checkpoint run its own Python code.

    Raises UserError when there is no such checkpoint, when its family is not one of transformers', when weights are
    missing or left over, or when a setting has no such value.
    """
    check_settings(dtype, device, max_batch_size)
    found = find_checkpoint(checkpoint)
    if found.family in OWN_FAMILIES:
        raise UserError(
            f"the transformers engine cannot run '{checkpoint}', of the family {OWN_FAMILIES[found.family]}; use "
            "--engine native"
        )
    from .stepwise import StepwiseModel

    place = pick_device(device)
    tokenizer = load_tokenizer(found, trust_remote_code=trust_remote_code)
    model = load_weights(found, dtype, place, trust_remote_code)
    if not model._supports_default_dynamic_cache():
        raise UserError(
            f"the transformers engine cannot step through '{checkpoint}': a {found.family} keeps its state in a form "
            "of its own; use another engine"
        )
    return StepwiseModel(checkpoint, model, tokenizer, max_batch_size, gather_facts(model, place))


def load_weights(checkpoint: Checkpoint, dtype: str, device: str, trust_remote_code: bool) -> Any:
    """The model in evaluation mode on its device. Raises UserError when the weights do not fit the architecture."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    if not trust_remote_code:
        check_no_kernels(checkpoint)
    disable_progress_bar()  # the harness shows its own
    wanted = "float32" if dtype == "auto" and device == "cpu" else dtype
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            checkpoint.source, dtype=wanted, output_loading_info=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise UserError(
            f"transformers cannot load '{checkpoint.name}' ({first_line(error)}); check that its files are whole, or "
            "use another engine"
        ) from error
    check_keys(checkpoint.name, report)
    return model.eval().to(device)


def check_keys(name: str, report: dict[str, Any]) -> None:
    """Raises UserError listing the weights that are missing or left over; a tied head is no missing weight."""
    for kind, keys in (("lacks", report["missing_keys"]), ("has unknown", report["unexpected_keys"])):
        if keys:
            raise UserError(
                f"the checkpoint '{name}' {kind} {len(keys)} weights of its architecture: {choices(list(keys))}; "
                "check config.json's model_type and that all weight files are there"
            )


def gather_facts(model: Any, device: str) -> Facts:
    """What the manifest records of the loaded model and its surroundings."""
    import torch
    from transformers import __version__

    return {
        "engine": "transformers",
        "engine_version": __version__,
        "torch_version": torch.__version__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "attention": model.config._attn_implementation,
        "cuda_graphs": False,
        "parameters": model.num_parameters(),
        "model_type": model.config.model_type,
    }


def first_line(error: Exception) -> str:
    """The first line of an error, to be quoted within a sentence."""
    return (
        f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}".rstrip(
            "."
        )
    )
