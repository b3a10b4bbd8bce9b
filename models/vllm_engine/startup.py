"""Starting vLLM in this process and ending it, without a trace on stdout and in the environment."""

import gc
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from harness.errors import UserError
from harness.models.checkpoints import Checkpoint
from harness.models.tokenizers_ import end_tokens, load_tokenizer

from .settings import Settings, engine_args_of

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
"""What this engine insists on."""

DEFAULTS = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ALLREDUCE_USE_SYMM_MEM": "0"}
"""What the user's environment may say otherwise."""


def load(checkpoint: Checkpoint, settings: Settings, *, tokenizer: str, logprobs: bool) -> Any:
    """A warm-able model around a started engine. Raises UserError when vLLM cannot start with these settings."""
    from .serving import VllmModel

    words = load_tokenizer(checkpoint, source=tokenizer)
    before = dict(os.environ)
    engine = start(checkpoint, settings)
    try:
        return VllmModel(checkpoint, engine, words, end_tokens(checkpoint, words), settings, logprobs, before)
    except BaseException:
        shut_down(engine, before)
        raise


def start(checkpoint: Checkpoint, settings: Settings) -> Any:
    """A started `LLMEngine` with the checkpoint in it."""
    before = dict(os.environ)
    os.environ.update({**ENVIRONMENT, **{name: os.environ.get(name, value) for name, value in DEFAULTS.items()}})
    set_num_threads, excepthook = torch.set_num_threads, sys.excepthook
    try:
        with stdout_to_stderr():
            from vllm.v1.engine.llm_engine import LLMEngine

            from harness.models.vllm_plugin.registration import register

            register()
            return LLMEngine.from_engine_args(engine_args_of(settings, checkpoint))
    except (ValueError, RuntimeError, OSError, AssertionError) as error:
        forget(before)
        raise UserError(f"vLLM cannot start with '{checkpoint.name}' ({first_line(error)})") from error
    except BaseException:
        forget(before)
        raise
    finally:
        # vLLM's CPU worker replaces the one by nothing, and torch.distributed the other.
        torch.set_num_threads, sys.excepthook = set_num_threads, excepthook


def shut_down(engine: Any, environment: Mapping[str, str]) -> None:
    """End the engine and the processes of its tensor parallelism, and give its memory back."""
    logging.getLogger("vllm").setLevel(logging.ERROR)
    engine.engine_core.shutdown()
    engine.renderer.shutdown()
    gc.collect()
    restore(environment)


def forget(environment: Mapping[str, str]) -> None:
    """Take back what a start that failed half-way has left in the process."""
    if "vllm.distributed.parallel_state" in sys.modules:
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
    restore(environment)


def restore(environment: Mapping[str, str]) -> None:
    """Give the process the environment that it had: what vLLM sets is meant for its own children."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send to stderr what Python and libraries write to stdout, which belongs to results."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def first_line(error: Exception) -> str:
    """The beginning of an error, to be quoted within a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}".rstrip(".")
