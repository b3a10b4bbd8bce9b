"""Decode passes recorded as CUDA graphs, one for each of a few batch sizes, so that a pass costs one launch.

A pass over fewer rows than were recorded runs on the free slots too: what it writes there is never read. They are set
back to the start of an empty text whenever rows have come or gone, and cannot run past their columns before the rows in
flight do.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from harness.nouns import Sampling

if TYPE_CHECKING:
    from .slots import Slots

WARM_UP_PASSES = 3
"""Before recording, so that kernels are compiled and libraries have their workspaces."""

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Records a function of fixed tensors; calling what it returns runs it again."""


class CudaRecorder:
    """Records functions as CUDA graphs that share one memory pool; the largest should come first."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """Run the function a few times, then record it."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_PASSES):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            function()
        replay: Callable[[], None] = graph.replay
        return replay


class DecodeGraphs:
    """The recorded passes over one `Slots`, whose tensors they hold on to."""

    def __init__(self, slots: "Slots", record: Record) -> None:
        self.slots, self.record = slots, record
        self.passes: dict[tuple[int, float, int, float], Callable[[], None]] = {}

    @torch.inference_mode()
    def prepare(self, sampling: Sampling) -> None:
        """Record what is missing for a sampler. The slots must be empty: recording writes garbage into them."""
        for rows in reversed(buckets(self.slots.capacity)):
            key = (rows, sampling.temperature, sampling.top_k, sampling.top_p)
            if key not in self.passes:
                self.slots.restart(0)
                self.passes[key] = self.record(lambda rows=rows: self.slots.take_pass(rows, sampling))  # type: ignore[misc]
        self.slots.restart(0)

    def replay(self, count: int, sampling: Sampling) -> None:
        """One pass over the first `count` slots, and over the free ones that the smallest recorded pass takes along."""
        rows = next(size for size in buckets(self.slots.capacity) if size >= count)
        self.passes[rows, sampling.temperature, sampling.top_k, sampling.top_p]()


def buckets(capacity: int) -> list[int]:
    """The batch sizes that are recorded: powers of two, three quarters of the larger ones, and the capacity."""
    sizes = {1 << power for power in range(capacity.bit_length()) if 1 << power <= capacity}
    sizes |= {3 * size // 4 for size in sizes if size >= 32}
    return sorted(sizes | {capacity})
