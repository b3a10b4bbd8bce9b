"""From the user's options to vLLM's `EngineArgs`, whose fields are known by introspection."""

import dataclasses
import difflib
import gc
import io
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch

from harness.errors import UserError
from harness.models.checkpoints import Checkpoint

OWN_SPELLING = {
    "max_num_seqs": "max_batch_size",
    "max_num_batched_tokens": "max_batch_tokens",
    "mamba_ssm_cache_dtype": "state_dtype",
    "enable_prefix_caching": "prefix_caching",
    "kv_cache_memory_bytes": "memory_gb",
    "hf_overrides": "rope_scaling",
    "model": "MODEL",
}
"""Fields that this engine sets from options of other names."""

OURS = {
    "skip_tokenizer_init": "the harness tokenises",
    "generation_config": "the sampling comes from the command line",
    "logprobs_mode": "log-probabilities are those of the distribution that is sampled from",
    "disable_log_stats": "the times of a completion come from vLLM's events",
    "use_tqdm_on_load": "the harness shows its own progress",
    "served_model_name": "nothing is served",
    "stream_interval": "the harness takes every token",
    "scheduling_policy": "completions are begun in the order of their requests",
}
"""Fields that this engine's loop depends on, and why they are not for the user."""

RECURRENT = ("llamba", "mamba-in-llama", "mamba2", "mamba")
"""Families whose prefixes are cached in pieces of a prompt."""

FREE_SHARE, EMPTY_SHARE = 0.8, 0.95
"""Of a GPU's free memory what is vLLM's beside other models, and how much of it is free when there are none."""

CPU_BYTES = 4_000_000_000
"""For keys, values and states on a machine without a GPU, unless the user says otherwise."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of `harness.models.vllm_.vllm`, checked; `memory_bytes` and `max_model_len` 0 for the default."""

    dtype: str
    state_dtype: str
    max_batch_size: int
    max_batch_tokens: int
    max_model_len: int
    memory_bytes: int
    prefix_caching: bool
    enforce_eager: bool | None
    tensor_parallel_size: int
    rope_scaling: str
    engine_args: Mapping[str, str]


def engine_args_of(settings: Settings, checkpoint: Checkpoint) -> Any:
    """The `EngineArgs`. Raises UserError for a field that does not exist, has no such value or is not the user's."""
    from vllm import EngineArgs
    from vllm.platforms import current_platform

    is_cpu = current_platform.is_cpu()
    length, tokens = limits(settings, checkpoint, is_cpu)
    fields: dict[str, Any] = {
        "model": checkpoint.source,
        "dtype": ("float32" if is_cpu else "bfloat16") if settings.dtype == "auto" else settings.dtype,
        "mamba_ssm_cache_dtype": settings.state_dtype,
        "max_num_seqs": settings.max_batch_size,
        "max_num_batched_tokens": tokens,
        "max_model_len": length,
        "enable_prefix_caching": settings.prefix_caching,
        "enforce_eager": is_cpu if settings.enforce_eager is None else settings.enforce_eager,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "kv_cache_memory_bytes": settings.memory_bytes or (default_cpu_bytes() if is_cpu else None),
        # vLLM's CPU worker fails on a piece of a prompt whose sampling has a seed: it cannot rewind the generator.
        "enable_chunked_prefill": not is_cpu,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs",
        "use_tqdm_on_load": False,
        "hf_overrides": overrides(settings, checkpoint),
        "seed": 0,
    }
    if is_cpu and settings.prefix_caching and checkpoint.family in RECURRENT:
        raise UserError(
            f"vLLM cannot cache the prefixes of a {checkpoint.family} on a CPU where each completion has a seed; leave "
            "out prefix_caching"
        )
    return EngineArgs(**{**fields, **share_left(is_cpu), **read_fields(settings.engine_args)})


def share_left(is_cpu: bool) -> dict[str, float]:
    """The share of a GPU that is vLLM's where this process has put something already, such as reward models.

    vLLM reckons with a share of the whole device, nine tenths unless told, and does not start where that is not free.
    The rest of what is free is for the passes of the others.
    """
    if is_cpu or not torch.cuda.is_initialized():
        return {}
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": FREE_SHARE * free / total} if free < EMPTY_SHARE * total else {}


def limits(settings: Settings, checkpoint: Checkpoint, is_cpu: bool) -> tuple[int, int]:
    """The longest text, -1 for what fits into the memory, and the tokens of a forward pass.

    On a CPU, where prompts are read whole, a pass has room for the longest text; unless the user says how long that is,
    it is what the checkpoint allows and a pass holds.
    """
    tokens = max(settings.max_batch_tokens, settings.max_batch_size)
    if not is_cpu:
        return settings.max_model_len or -1, tokens
    length = settings.max_model_len or min(checkpoint.config.get("max_position_embeddings") or tokens, tokens)
    return length, max(tokens, length)


def default_cpu_bytes() -> int:
    """Half of the free memory, 4 GB at most."""
    import psutil

    return int(min(CPU_BYTES, psutil.virtual_memory().available // 2))


def overrides(settings: Settings, checkpoint: Checkpoint) -> dict[str, Any]:
    """What the config.json is read otherwise than it says."""
    if settings.rope_scaling == "auto" or checkpoint.family != "mamba-in-llama":
        return {}
    from harness.models.vllm_plugin.configs import rope_parameters

    is_scaled = settings.rope_scaling == "from_config"
    return {"rope_parameters": rope_parameters(checkpoint.config, is_scaled=is_scaled)}


def read_fields(pairs: Mapping[str, str]) -> dict[str, Any]:
    """The fields that the user sets by vLLM's names, read as vLLM's own command line reads them."""
    if not pairs:
        return {}
    from vllm import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    known = {field.name: field for field in dataclasses.fields(EngineArgs)}
    flags: list[str] = []
    for name, text in pairs.items():
        check_name(name, known.keys())
        flags += as_flags(name, text)
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    spoken = io.StringIO()
    try:
        with redirect_stderr(spoken):
            read = parser.parse_args(flags)
    except SystemExit:
        said = spoken.getvalue().strip().splitlines()[-1:] or ["no reason given"]
        raise UserError(f"vLLM does not take these engine arguments ({said[0].partition('error: ')[2]})") from None
    return {name: getattr(read, name) for name in pairs}


def check_name(name: str, known: Any) -> None:
    """Raises UserError for a name that vLLM does not have, or that is not for the user to set."""
    if name in OWN_SPELLING:
        raise UserError(f"the engine vllm sets {name} itself; write {OWN_SPELLING[name]} instead")
    if name in OURS:
        raise UserError(f"the engine vllm sets {name} itself, because {OURS[name]}; leave it out")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"near it are {', '.join(near)}" if near else "`vllm serve --help=all` names them"
        raise UserError(f"the engine vllm takes no option '{name}', and neither does vLLM's EngineArgs; {hint}")


def as_flags(name: str, text: str) -> list[str]:
    """`--name text`, or what vLLM's command line has for a yes or a no."""
    dashed = name.replace("_", "-")
    if text.lower() in ("true", "yes"):
        return [f"--{dashed}"]
    if text.lower() in ("false", "no"):
        return [f"--no-{dashed}"]
    return [f"--{dashed}", text]
