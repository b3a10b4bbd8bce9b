"""Times of the native engine's own decode loop: its slots, kernels and recorded graphs, as in a bench.

A batch is put together whose rows look as if they had read a text of any length: keys, values and states are random
numbers, which take as long as real ones, so no long text has to be read first. Then the loop's own passes are timed one
by one. Every pass ends with the device idle, because the loop looks at which rows have ended.
"""

import statistics
from collections import deque
from dataclasses import replace

import torch

from harness.budgets import Clock, Deadline
from harness.models.continuous import ContinuousBatch
from harness.models.prefixes import Prefix
from harness.models.rows import Row, new_row
from harness.models.serving import PREFIX_SHARE, NativeModel
from harness.nouns import Request, Sampling
from harness.timing.speed_calls import Timed

SETTLING_PASSES = 2
"""Passes before the first one that is timed."""

ENDS = 4
"""Rows at most whose end is timed."""


class NativePasses:
    """Times passes and ends of rows of one engine.

    Args:
        engine: whose memory for rows is used; rows that it may hold are given up.
        sampling: how tokens are drawn.
        clock: in seconds.
    """

    def __init__(self, engine: NativeModel, sampling: Sampling, clock: Clock) -> None:
        self.engine, self.sampling, self.clock = engine, sampling, clock

    def time(self, batch: int, context: int, prompt: int, generated: int, passes: int) -> Timed | None:
        """The mean of some passes, and the median of some rows that end after them; None when the batch does not fit.

        Args:
            batch: rows.
            context: tokens that each has before the first timed pass.
            prompt: of these, the tokens that all rows share.
            generated: tokens of a row that ends.
            passes: to be timed.
        """
        try:
            flight = self.board(batch, context, min(prompt, context), generated, passes)
            if flight is None:
                return None
            deadline = Deadline(None, self.clock)
            self.passes(flight, deadline, SETTLING_PASSES)
            seconds = self.passes(flight, deadline, passes) / passes
            return Timed(context, seconds, statistics.median(self.ends(flight, deadline, generated)))
        except torch.OutOfMemoryError:
            self.engine.slots = None
            if self.engine.device.type == "cuda":
                torch.cuda.empty_cache()
            return None

    def board(self, batch: int, context: int, shared: int, generated: int, passes: int) -> ContinuousBatch | None:
        """A batch in flight at a context, or None where it does not fit."""
        engine, text = self.engine, (0,) * context
        rows = deque(self.row(index, text, passes + SETTLING_PASSES + 1) for index in range(batch))
        # One that has read the prompt alone, so that the slots also have room for a whole completion.
        slots = engine.make_room([*rows, self.row(0, text[:shared], generated)], batch)
        if slots.capacity < batch:
            return None
        memory = engine.memory_bytes // PREFIX_SHARE
        flight = ContinuousBatch(engine.model, slots, rows, engine.endings, engine.flops, memory)
        flight.prefixes.kept[text] = self.read(context)
        flight.shares[text] = 0.0
        flight.admit(Deadline(None, self.clock))
        # The rows of a bench share their prompt; what they generated is their own.
        slots.shared[:batch] = shared
        return flight

    def row(self, index: int, text: tuple[int, ...], limit: int) -> Row:
        """A row that has read a text and may generate so many tokens."""
        return new_row(Request("speed", index, "", replace(self.sampling, max_tokens=limit)), text, None, 0.0)

    def read(self, context: int) -> Prefix:
        """What reading a text of `context` tokens would leave, with random numbers in it."""
        model = self.engine.model
        states = model.empty_states(1, context, self.engine.state_dtype)
        for tensor in (tensor for state in states for tensor in state):
            tensor.normal_()
        return Prefix(states, model.head.weight.new_zeros(1, model.head.weight.shape[0]).normal_())

    def passes(self, flight: ContinuousBatch, deadline: Deadline, count: int) -> float:
        """Seconds of so many passes; rows that would have ended go on."""
        began = self.clock()
        for _ in range(count):
            if not deadline.expired:
                flight.advance(deadline)
        return self.clock() - began

    def ends(self, flight: ContinuousBatch, deadline: Deadline, generated: int) -> list[float]:
        """Seconds that each of a few rows takes to end: its text is made and it leaves the batch."""
        slots = flight.slots
        slots.written.random_(0, self.engine.endings.vocab_size)
        seconds = []
        for passenger in flight.passengers:
            passenger.passes = slots.passes + 1 - generated
        for _ in range(min(ENDS, slots.count)):
            self.wait()
            began = self.clock()
            flight.completion(0, "length", deadline.now)
            flight.drop([0])
            self.wait()
            seconds.append(self.clock() - began)
        return seconds

    def wait(self) -> None:
        """Until the device is idle."""
        if self.engine.device.type == "cuda":
            torch.cuda.synchronize(self.engine.device)


def passes_of(engine: object, sampling: Sampling, clock: Clock) -> NativePasses | None:
    """The direct way into an engine's decode loop, or None where there is none."""
    return NativePasses(engine, sampling, clock) if isinstance(engine, NativeModel) else None
