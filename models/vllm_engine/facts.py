"""What the manifest records of a started vLLM, read back from the config that it settled on."""

from typing import Any

from harness.nouns import Facts

from .loop import Tally
from .settings import Settings


def gather_facts(config: Any, settings: Settings, tally: Tally) -> Facts:
    """Version, precision, limits, graphs, caches, and what has happened since the start.

    Args:
        config: vLLM's `VllmConfig`.
        settings: what was asked for.
        tally: what was done.
    """
    import torch
    import vllm
    from vllm.platforms import current_platform

    device = current_platform.device_type
    model, cache, scheduler = config.model_config, config.cache_config, config.scheduler_config
    compilation = config.compilation_config
    return {
        "engine": "vllm",
        "engine_version": vllm.__version__,
        "torch_version": torch.__version__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": model.quantization,
        "kv_cache_dtype": cache.cache_dtype,
        "state_dtype": cache.mamba_ssm_cache_dtype,
        "device": device,
        "device_name": "cpu" if device == "cpu" else current_platform.get_device_name(),
        "threads": torch.get_num_threads(),
        "tensor_parallel_size": config.parallel_config.tensor_parallel_size,
        "multiprocessing": False,
        "architecture": model.architecture,
        "max_batch_size": scheduler.max_num_seqs,
        "max_batch_tokens": scheduler.max_num_batched_tokens,
        "max_model_len": model.max_model_len,
        "chunked_prefill": scheduler.enable_chunked_prefill,
        "async_scheduling": bool(scheduler.async_scheduling),
        "enforce_eager": model.enforce_eager,
        "compiled": compilation.mode.name,
        "cuda_graphs": compilation.cudagraph_mode.name if device != "cpu" else "NONE",
        "prefix_caching": cache.enable_prefix_caching,
        "mamba_cache_mode": cache.mamba_cache_mode,
        "block_size": cache.block_size,
        "cache_blocks": cache.num_gpu_blocks,
        "state_memory_bytes": cache.kv_cache_memory_bytes,
        "engine_args": dict(settings.engine_args),
        "preemptions": tally.preemptions,
        "steps": tally.steps,
        "mean_batch_size": tally.row_steps / tally.steps if tally.steps else None,
        "largest_batch_size": tally.largest_batch,
        "prompt_tokens": tally.prompt_tokens,
        "cached_prompt_tokens": tally.cached_tokens,
        "prefix_sharing": "vLLM's prefix cache, emptied for each call" if cache.enable_prefix_caching else "none",
        "batching": "continuous",
        "sampler": "vLLM's, one torch.Generator per completion with the completion's own seed",
    }
