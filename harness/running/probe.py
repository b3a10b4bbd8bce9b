"""Whether the machine stayed the same while a run was measured: short probes before, between and after its scopes.

A probe is a fixed piece of work, repeated. What it takes in processor seconds shows a processor that changed its speed
(heat, power, a neighbour on the same core or memory); what it takes in wall seconds beyond those, how much of the
processor other programs had. Knows nothing of models; never runs inside a budget.
"""

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from harness.budgets import Clock, ClockWatch, monotonic, thread_s

REPEATS = 15
EVERY_S = 30.0
"""Seconds between the probes of a run whose scopes leave room for them."""
JUDGED_S = 10.0
"""A run that sampled for less is not judged by its probes: they would say more of the machine than of the run."""
DRIFT = {"compute_s": 1.25, "memory_s": 1.75, "gpu_s": 1.25}
"""How much slower the 90th percentile of a run's probes may be than the 10th, by what is probed (docs/runs.md)."""
LOST_SHARE = 0.2
"""The share of its processor that a probe may lose to other programs, in the median over a run's probes."""
BLOCK = bytes(1 << 18)


class Probe(NamedTuple):
    """Medians over the repeats of one probe."""

    compute_s: float
    """Processor seconds to hash 2 MiB."""
    memory_s: float
    """Processor seconds to copy 32 MB."""
    lost_share: float
    """The share of the wall seconds in which the thread had no processor."""
    gpu_s: float | None
    """Seconds of a matrix product on the GPU in use; None where there is none."""


def take_probe() -> Probe:
    """Probe the machine; takes about a tenth of a second."""
    from statistics import median

    copy = copier()
    compute = [spent(hash_blocks) for _ in range(REPEATS)]
    memory = [spent(copy) for _ in range(REPEATS)]
    wall, cpu = (sum(column) for column in zip(*compute, *memory, strict=True))
    return Probe(
        median(seconds for _, seconds in compute),
        median(seconds for _, seconds in memory),
        max(0.0, 1 - cpu / wall),
        probe_gpu(),
    )


def spent(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    wall, cpu = monotonic(), thread_s()
    work()
    return monotonic() - wall, thread_s() - cpu


def hash_blocks() -> None:
    """Work that needs nothing but a core."""
    digest = hashlib.sha256()
    for _ in range(8):
        digest.update(BLOCK)


def copier() -> Callable[[], None]:
    """Work that needs memory bandwidth: what it moves is larger than the caches."""
    import numpy as np

    source = np.ones(4_000_000)
    target = np.empty_like(source)
    np.copyto(target, source)
    return lambda: np.copyto(target, source)


def probe_gpu() -> float | None:
    """The median seconds of a product of two 4096 x 4096 matrices; None where torch uses no GPU, or it is full."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    from statistics import median

    try:
        matrix = torch.ones(4096, 4096, device="cuda", dtype=torch.bfloat16)
        times = []
        for _ in range(2 * REPEATS):
            torch.cuda.synchronize()
            began = monotonic()
            torch.mm(matrix, matrix)
            torch.cuda.synchronize()
            times.append(monotonic() - began)
    except torch.OutOfMemoryError:
        return None
    return median(times[REPEATS:])  # the first half brings the clocks of an idle GPU up


class Surroundings:
    """What is noticed of the machine and its clocks while one sitting of a run samples.

    A clock other than `harness.budgets.monotonic` is somebody's own, and nothing of the machine is measured beside it.
    """

    def __init__(self, clock: Clock, watch: ClockWatch | None = None) -> None:
        self.clock, self.is_real = clock, clock is monotonic
        self.watch = watch or ClockWatch(clock)
        self.probes: list[Probe] = []
        self.probed_at = clock()

    def probe(self) -> None:
        """Take a probe now; call it outside every budget."""
        if self.is_real:
            self.probes.append(take_probe())
        self.probed_at = self.clock()

    def between_scopes(self) -> None:
        """Compare the clocks, and take a probe if the last one is old."""
        self.watch.look()
        if self.clock() - self.probed_at >= EVERY_S:
            self.probe()

    def facts(self) -> dict[str, Any]:
        """For the manifest's entry of the sitting: the probes by what was probed, and the steps of the clocks."""
        self.watch.look()
        columns = {name: [getattr(one, name) for one in self.probes] for name in Probe._fields}
        return {
            "probes": {name: values for name, values in columns.items() if values and None not in values},
            "clock_steps_s": dict(self.watch.steps),
        }


def drift(probes: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """For each kind of probe how much slower the slow ones of a run were than the fast ones.

    The 90th over the 10th percentile, so that of many probes a single slow one decides nothing.
    """
    import numpy as np

    found = {}
    for name in DRIFT:
        if len(values := probes.get(name) or ()) > 1:
            slow, fast = np.percentile(values, [90, 10])
            found[name] = float(slow / fast)
    return found
