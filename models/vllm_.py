"""The engine `vllm`: checkpoints of any family that vLLM knows, and the distilled students, in the field's own engine.

vLLM schedules, caches and computes; `vllm_engine` steps it under a deadline in this process, and `vllm_plugin` teaches
it the students. Nothing of it is imported before the engine is asked for.
"""

from typing import Literal

from harness.errors import UserError, choices
from harness.nouns import Model

from .checkpoints import find_checkpoint, whole_folder
from .devices import Dtype

StateDtype = Literal["float32", "bfloat16", "float16"]
RopeScaling = Literal["auto", "from_config", "none"]


def vllm(
    checkpoint: str,
    *,
    dtype: Dtype = "auto",
    state_dtype: StateDtype = "float32",
    max_batch_size: int = 256,
    max_batch_tokens: int = 8192,
    max_model_len: int = 0,
    memory_gb: float = 0.0,
    prefix_caching: bool = False,
    enforce_eager: bool | None = None,
    tensor_parallel_size: int = 1,
    logprobs: bool = True,
    rope_scaling: RopeScaling = "auto",
    tokenizer: str = "",
    **engine_args: str,
) -> Model:
    """Load a checkpoint into vLLM.

    Args:
        checkpoint: a hub id, a local folder, or `zoo/NAME`.
        dtype: of weights, keys and values; `auto` is bfloat16 on a GPU and float32 on a CPU.
        state_dtype: of the recurrent states.
        max_batch_size: rows in flight at most (vLLM's max_num_seqs).
        max_batch_tokens: tokens of one forward pass at most (vLLM's max_num_batched_tokens); on a GPU longer prompts
            are read in several.
        max_model_len: longest text in tokens; 0 takes the checkpoint's, or on a GPU what fits into the memory, on a CPU
            what fits into a forward pass.
        memory_gb: for keys, values and states, in 10^9 bytes. 0 takes nine tenths of a GPU with the weights in it,
            beside reward models eight tenths of what they leave; without a GPU half of the free memory, 4 at most.
        prefix_caching: keep what was computed of a prompt for the others that begin alike in the same call. Off, every
            sample reads its prompt, on equal terms for attention and recurrent states.
        enforce_eager: neither compile nor record CUDA graphs; none does both on a GPU and neither on a CPU.
        tensor_parallel_size: devices that share each layer.
        logprobs: sum the log-probabilities of the tokens, at the price of one more pass over the logits.
        rope_scaling: whether a MambaInLlama's attention layers honour the `rope_scaling` of its config.json; `auto`
            goes by the form of its weights. Every other family ignores it.
        tokenizer: a folder or hub id to take the tokenizer from instead of the checkpoint.
        engine_args: any other field of vLLM's `EngineArgs`, as a string.

    Raises UserError when vLLM is not installed or is another version, when there is no such checkpoint, or when a
    setting has no such value.
    """
    from .vllm_engine.installation import check_installed

    check_installed()
    check_settings(dtype, state_dtype, rope_scaling)
    for name, value, least in (
        ("max_batch_size", max_batch_size, 1),
        ("max_batch_tokens", max_batch_tokens, 1),
        ("max_model_len", max_model_len, 0),
        ("memory_gb", memory_gb, 0),
        ("tensor_parallel_size", tensor_parallel_size, 1),
    ):
        if not least <= value < float("inf"):
            raise UserError(f"{name} must be at least {least}, got {value}")
    from .vllm_engine.settings import Settings
    from .vllm_engine.startup import load

    settings = Settings(
        dtype=dtype,
        state_dtype=state_dtype,
        max_batch_size=max_batch_size,
        max_batch_tokens=max_batch_tokens,
        max_model_len=max_model_len,
        memory_bytes=int(memory_gb * 1e9),
        prefix_caching=prefix_caching,
        enforce_eager=enforce_eager,
        tensor_parallel_size=tensor_parallel_size,
        rope_scaling=rope_scaling,
        engine_args=engine_args,
    )
    found = find_checkpoint(checkpoint)
    whole_folder(found)
    loaded: Model = load(found, settings, tokenizer=tokenizer, logprobs=logprobs)
    return loaded


def check_settings(dtype: str, state_dtype: str, rope_scaling: str) -> None:
    """Raises UserError naming the values that exist."""
    for name, value, known in (
        ("dtype", dtype, ["auto", "float32", "bfloat16", "float16"]),
        ("state_dtype", state_dtype, ["float32", "bfloat16", "float16"]),
        ("rope_scaling", rope_scaling, ["auto", "from_config", "none"]),
    ):
        if value not in known:
            raise UserError(f"there is no {name} '{value}'; write one of {choices(known)}")
