"""The engine `native`: teachers and students on one footing, in our own architectures and our own decode loop.

`native` is the engine and `load_model` the bare torch module. `architectures` holds the models, `weights` reads their
files, `slots` and `serving` decode.
"""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import UserError, choices
from harness.nouns import Facts, Model

from .checkpoints import Checkpoint, find_checkpoint
from .devices import Device, Dtype, check_settings, pick_device
from .tokenizers_ import byte_tokenizer, end_tokens, load_tokenizer

if TYPE_CHECKING:
    import torch

    from .architectures.causal_lm import CausalLM
    from .architectures.layout import Layout

StateDtype = Literal["float32", "bfloat16", "float16"]
RopeScaling = Literal["auto", "from_config", "none"]
Build = Callable[[Mapping[str, Any], Collection[str] | None], "tuple[CausalLM, Layout]"]

PRESET = "preset/"

LARGE = 100_000_000
"""Parameters from which products with weights outweigh everything else in a pass, so that bfloat16 pays on a CPU."""


def native(
    checkpoint: str,
    *,
    dtype: Dtype = "auto",
    state_dtype: StateDtype = "float32",
    device: Device = "auto",
    max_batch_size: int = 128,
    memory_gb: float = 0.0,
    cuda_graphs: bool = True,
    rope_scaling: RopeScaling = "auto",
    tokenizer: str = "",
    random_weights: bool = False,
) -> Model:
    """Load a Llama, Llamba, MambaInLlama, Phi-Mamba or Mamba-2 checkpoint and its tokenizer.

    Args:
        checkpoint: a hub id, a local folder, `zoo/NAME`, or `preset/NAME` for a published shape with random weights.
        dtype: of weights, keys and values; `auto` is bfloat16 on a GPU, and on a CPU that multiplies in it for models
            of 100 million parameters or more, which it makes two to three times as fast; else float32.
        state_dtype: of the recurrent states.
        device: `auto` takes the GPU when there is one.
        max_batch_size: rows in flight at most.
        memory_gb: for keys, values and states, in 10^9 bytes; rows that do not fit wait. 0 takes half of the free
            memory of the machine, or nine tenths of that of the GPU.
        cuda_graphs: on a GPU, record the decode passes so that each costs one launch.
        rope_scaling: whether a MambaInLlama's attention layers honour the `rope_scaling` of its config.json; `auto`
            goes by the form of its weights. Every other family ignores it.
        tokenizer: a folder or hub id to take the tokenizer from instead of the checkpoint.
        random_weights: read the checkpoint's config alone, to measure speed; its text then has a token for each byte.

    Raises UserError when there is no such checkpoint, its family is not one of this engine's, its files are damaged or
    incomplete, or a setting has no such value.
    """
    check_settings(dtype, device, max_batch_size)
    check_own_settings(state_dtype, rope_scaling, memory_gb)
    import torch

    from .serving import NativeModel

    place = torch.device(pick_device(device))
    wanted = None if dtype == "auto" else getattr(torch, dtype)
    if random_weights or checkpoint.startswith(PRESET):
        model, words, ends, context = random_model(checkpoint, wanted, place), byte_tokenizer(), frozenset[int](), None
    else:
        found = find_checkpoint(checkpoint)
        words = load_tokenizer(found, source=tokenizer)
        ends, context = end_tokens(found, words), found.config.get("max_position_embeddings")
        model = read_model(found, wanted, place, rope_scaling)
    return NativeModel(
        checkpoint,
        model,
        words,
        ends,
        context=context,
        max_batch_size=max_batch_size,
        memory_bytes=int(memory_gb * 1e9) or free_memory_bytes(place.type),
        state_dtype=getattr(torch, state_dtype),
        cuda_graphs=cuda_graphs and place.type == "cuda",
        facts=gather_facts(model, place),
    )


def check_own_settings(state_dtype: str, rope_scaling: str, memory_gb: float) -> None:
    """Raises UserError naming the values that exist."""
    for name, value, known in (
        ("state_dtype", state_dtype, ["float32", "bfloat16", "float16"]),
        ("rope_scaling", rope_scaling, ["auto", "from_config", "none"]),
    ):
        if value not in known:
            raise UserError(f"there is no {name} '{value}'; write one of {choices(known)}")
    if not 0 <= memory_gb < float("inf"):
        raise UserError(f"memory_gb must not be negative, got {memory_gb}; write for example 8, or leave it out")


def auto_dtype(model: "CausalLM", device: "torch.device") -> "torch.dtype":
    """The dtype of the weights when the user does not say; see `native`."""
    import torch

    from .architectures.kernels import cpu

    is_large = sum(parameter.numel() for parameter in model.parameters()) >= LARGE
    return torch.bfloat16 if device.type == "cuda" or (is_large and cpu.multiplies_bfloat16()) else torch.float32


def free_memory_bytes(device: str) -> int:
    """What keys, values and states may take when the user does not say."""
    import psutil
    import torch

    if device == "cuda":
        return int(0.9 * torch.cuda.mem_get_info()[0])
    return int(0.5 * psutil.virtual_memory().available)


def gather_facts(model: "CausalLM", device: "torch.device") -> Facts:
    """What the manifest records of the loaded model and its surroundings."""
    import torch

    from harness import __version__

    from .architectures.kernels import cpu

    return {
        "engine": "native",
        "engine_version": __version__,
        "torch_version": torch.__version__,
        "dtype": str(model.embedding.weight.dtype).removeprefix("torch."),
        "device": device.type,
        "device_name": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "cpu_kernels": device.type == "cpu" and cpu.library() is not None,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def load_model(
    checkpoint: str, dtype: "torch.dtype | None" = None, device: str = "cpu", rope_scaling: RopeScaling = "auto"
) -> "CausalLM":
    """Load a checkpoint as a plain torch module, in evaluation mode.

    Its `forward(token_ids)` takes int64 ids (B, L) and gives logits (B, L, V); it is differentiable.

    Args:
        checkpoint: a hub id, a local folder, `zoo/NAME`, or `preset/NAME` for a published shape with random weights.
        dtype: of the weights; None is float32. The few on which a recurrence depends sensitively stay float32.
        device: where to put it.
        rope_scaling: whether a MambaInLlama's attention layers honour the `rope_scaling` of its config.json; `auto`
            goes by the form of its weights. Every other family ignores it.

    Raises UserError when there is no such checkpoint or preset, its family is not one of this engine's, or its files
    are damaged, incomplete or hold something else.
    """
    import torch

    wanted, place = dtype or torch.float32, torch.device(device)
    if checkpoint.startswith(PRESET):
        return random_model(checkpoint, wanted, place)
    return read_model(find_checkpoint(checkpoint), wanted, place, rope_scaling)


def read_model(
    checkpoint: Checkpoint, dtype: "torch.dtype | None", device: "torch.device", rope_scaling: RopeScaling
) -> "CausalLM":
    """Build the module without memory, then read the files into it tensor by tensor."""
    import torch

    from .architectures.initial import allocate
    from .weights import fill, open_weights

    build = builder(checkpoint)
    files = open_weights(checkpoint)
    config = dict(checkpoint.config)
    if rope_scaling != "auto":
        config["rope_scaling_in_force"] = rope_scaling == "from_config"
    try:
        with torch.device("meta"):
            model, layout = build(config, files.shapes.keys())
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the config of '{checkpoint.name}' is not that of a {checkpoint.family} "
            f"({type(error).__name__}: {error}); download it again"
        ) from error
    allocate(model, dtype or auto_dtype(model, device), device)
    fill(model, files, layout)
    return model.eval()


def builder(checkpoint: Checkpoint) -> Build:
    """The function that builds models of the checkpoint's family. Raises UserError naming the families that exist."""
    from .architectures import llama, llamba, mamba2, mamba_in_llama, phi, phi_mamba

    builders: dict[str, Build] = {
        "llama": llama.build,
        "llamba": llamba.build,
        "mamba-in-llama": mamba_in_llama.build,
        "phi-mamba": phi_mamba.build,
        "mamba2": mamba2.build,
        "phi": phi.build,
    }
    if checkpoint.family not in builders:
        raise UserError(
            f"the native engine has no family '{checkpoint.family}', which '{checkpoint.name}' is of; it has "
            f"{choices(list(builders))}; use --engine transformers"
        )
    return builders[checkpoint.family]


def random_model(checkpoint: str, dtype: "torch.dtype | None", device: "torch.device") -> "CausalLM":
    """A preset, or a checkpoint's shape, with random weights. Raises UserError naming those that exist."""
    import torch

    from .architectures.initial import allocate, randomise
    from .architectures.presets import find_preset

    if checkpoint.startswith(PRESET):
        _, build, config = find_preset(checkpoint.removeprefix(PRESET))
    else:
        found = find_checkpoint(checkpoint)
        build, config = builder(found), found.config
    with torch.device("meta"):
        model, _ = build(config, None)
    allocate(model, dtype or auto_dtype(model, device), device)
    randomise(model)
    return model.eval()
