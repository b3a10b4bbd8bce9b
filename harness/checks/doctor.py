"""`ttc doctor`: is this machine in order? Of a run `harness.storage.integrity` tells."""

import importlib.util
import shutil
from pathlib import Path

from harness import plugins
from harness.budgets import Clock, monotonic
from harness.checks.check import Finding
from harness.storage.manifest import machine, versions

FREE_BYTES = 2 * 2**30
CLOCK_STEP_S = 1e-3
OPTIONAL = {"vllm": "vllm", "mamba": "mamba_ssm", "ray": "ray", "openai": "openai"}


def examine_machine(clock: Clock = monotonic) -> list[Finding]:
    """Versions, links, memory, disk, clock, threads and what is optional. Nothing is changed."""
    import torch

    facts = machine()
    free = shutil.disk_usage(Path.cwd()).free
    gpus = ", ".join(gpu["name"] for gpu in facts["gpus"]) or "none"
    threads = torch.get_num_threads()
    missing = [name for name, module in OPTIONAL.items() if importlib.util.find_spec(module) is None]
    rooms: list[plugins.Group] = ["tasks", "models", "selectors", "reports"]
    empty = [room for room in rooms if not plugins.builtins(room)]
    return [
        Finding("versions", True, ", ".join(f"{name} {number}" for name, number in versions().items())),
        Finding(
            "the rooms are found",
            not empty,
            f"no plug-ins in {', '.join(empty)}: were the links lost?" if empty else "",
        ),
        Finding(
            "processor", True, f"{facts['cpu']}, {facts['usable_cores']} cores, {facts['memory_bytes'] / 2**30:.0f} GiB"
        ),
        Finding("GPU", True, gpus),
        Finding("threads", threads <= facts["usable_cores"], f"torch uses {threads} of {facts['usable_cores']} cores"),
        Finding("clock", clock_step_s(clock) <= CLOCK_STEP_S, f"steps of {1e9 * clock_step_s(clock):.0f} ns"),
        Finding("disk", free > FREE_BYTES, f"{free / 2**30:.0f} GiB free here"),
        Finding("optional engines", True, f"not installed: {', '.join(missing)}" if missing else "all installed"),
    ]


def clock_step_s(clock: Clock) -> float:
    """The smallest difference between two readings of the clock that is not zero, over a thousand pairs."""
    steps = (abs(clock() - clock()) for _ in range(1000))
    return min((step for step in steps if step > 0), default=0.0)
