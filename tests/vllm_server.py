"""vLLM's own server in a process of its own, for tests and benchmarks of the engine `openai`."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from harness.budgets import monotonic

STARTS_S = 300.0


class Served(NamedTuple):
    """A server that is ready: its address with /v1, and the process that leads its group."""

    url: str
    process: "subprocess.Popen[bytes]"


@contextmanager
def serving(model: Path, log: Path, max_model_len: int, options: Sequence[str] = ()) -> Iterator[Served]:
    """Serve a checkpoint under the name of its folder, in float32 on one thread, until the end of the block.

    Raises RuntimeError with the end of the log when the server does not come up.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name",
        model.name, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len",
        str(max_model_len), "--enforce-eager", "--no-enable-prefix-caching", *options,
    ]  # fmt: skip
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield Served(f"http://127.0.0.1:{port}/v1", process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until the address answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    ends = monotonic() + STARTS_S
    while monotonic() < ends and process.poll() is None:
        try:
            opener.open(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"vLLM's server did not start: {log.read_text(errors='replace')[-2000:]}")
