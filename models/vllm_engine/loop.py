"""Our loop over vLLM's steps: from waiting rows to completions, under a deadline.

vLLM has the rows that run and as many again that wait for them, in the order of the requests; every call of
`get_output` is one forward pass. The deadline is looked at before each; when it has passed, the rows are aborted and
yielded with the tokens they have. vLLM stamps what happens to a row with the monotonic clock, which is compared with
the deadline's once per step.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.budgets import Deadline, monotonic
from harness.models.costs.forward import ForwardFlops
from harness.models.drafting import Drafting
from harness.models.endings import Endings
from harness.models.rows import Row, failed, identity
from harness.nouns import Completion, FinishReason

QUEUED, SCHEDULED, PREEMPTED = 1, 2, 3
"""vLLM's events of a row (EngineCoreEventType)."""

REASONS: dict[int, FinishReason] = {0: "stop", 1: "length"}
"""vLLM's reasons to finish a row (FinishReason); every other is a failure."""


@dataclass(slots=True, eq=False)
class Passenger:
    """A row that vLLM has, with its tokens so far and the batch's counters before its first one."""

    row: Row
    suspects: Sequence[bool] | None
    """(V,) whether a token may complete one of the row's stop strings; None where it has none."""
    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    steps: int = 0
    row_steps: int = 0
    error: str | None = None


@dataclass(slots=True)
class Tally:
    """What an engine has done since it was started, for the manifest."""

    steps: int = 0
    row_steps: int = 0
    largest_batch: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0


class StepLoop:
    """One call of `generate`.

    Args:
        core: vLLM's engine core in this process.
        submit: hands a row to vLLM under a name; raises ValueError for one that it refuses.
        endings: when a row is at its end, and its text.
        flops: what a pass costs.
        room: rows that vLLM is given at most, running and waiting.
        names: gives each row a name that vLLM has not heard yet.
        tally: is counted on.
        drafting: where more rows come from and where what they wrote is told; None where rows are whole replies.
    """

    def __init__(
        self,
        core: Any,
        submit: Callable[[str, Row], None],
        endings: Endings,
        flops: ForwardFlops,
        room: int,
        names: Iterator[int],
        tally: Tally,
        drafting: Drafting | None = None,
    ) -> None:
        self.core, self.submit, self.endings, self.flops = core, submit, endings, flops
        self.room, self.names, self.tally = room, names, tally
        self.drafting = drafting
        self.aboard: dict[str, Passenger] = {}
        self.suspects: dict[tuple[str, ...], list[bool]] = {}

    def run(self, rows: Sequence[Row], deadline: Deadline) -> Iterator[Completion]:
        """Serve the rows in their order; leaves nothing in vLLM, however it ends."""
        waiting = deque(rows)
        try:
            while waiting or self.aboard:
                if deadline.expired:
                    yield from self.cut(deadline)
                    return
                if self.drafting is not None:
                    waiting.extend(self.drafting.take(deadline))
                yield from self.board(waiting, deadline)
                yield from self.step(deadline)
        finally:
            self.abort(list(self.aboard))

    def board(self, waiting: deque[Row], deadline: Deadline) -> Iterator[Completion]:
        """Hand waiting rows to vLLM while there is room; yields those that it refuses."""
        while waiting and len(self.aboard) < self.room:
            row, name = waiting.popleft(), str(next(self.names))
            try:
                self.submit(name, row)
            except ValueError as error:
                yield failed(row, f"vLLM refuses the request: {error}", deadline)
            else:
                self.aboard[name] = Passenger(row, self.suspects_of(row.request.sampling.stop))

    def suspects_of(self, stop: tuple[str, ...]) -> Sequence[bool] | None:
        """The tokens that may complete a stop string, remembered."""
        if stop and stop not in self.suspects:
            self.suspects[stop] = self.endings.may_complete(stop).tolist()
        return self.suspects[stop] if stop else None

    def step(self, deadline: Deadline) -> Iterator[Completion]:
        """One forward pass: a token for every row that runs; yields the rows that ended with it."""
        outputs = self.core.get_output()
        moved = [(out, self.aboard[out.request_id]) for out in outputs.outputs if out.request_id in self.aboard]
        if not moved:
            return
        # vLLM's clock is `monotonic` by another name; the deadline's may be any other.
        offset_s = deadline.elapsed_s - monotonic()
        self.tally.steps += 1
        self.tally.row_steps += len(moved)
        self.tally.largest_batch = max(self.tally.largest_batch, len(moved))
        ended: dict[str, FinishReason] = {}
        tokens = decoded = contexts = 0
        for out, passenger in moved:
            if out.events:
                self.note(passenger, out.events, offset_s, deadline)
            if passenger.ids:
                decoded += 1
                contexts += len(passenger.row.prompt_ids) + len(passenger.ids)
            else:
                self.begin(passenger, out, outputs.timestamp + offset_s, len(moved), deadline)
            passenger.ids += out.new_token_ids
            tokens += len(out.new_token_ids)
            if out.new_logprobs is not None:
                passenger.logprob += float(out.new_logprobs.logprobs[:, 0].sum())
            if reason := self.reason(passenger, out):
                ended[out.request_id] = reason
        deadline.charge(flops=self.flops.decode(decoded, contexts), tokens=tokens)
        yield from self.land(ended, [out.request_id for out, _ in moved if out.finish_reason is None], deadline)

    def land(
        self, ended: dict[str, FinishReason], unfinished: Sequence[str], deadline: Deadline
    ) -> Iterator[Completion]:
        """Yield the rows that ended; vLLM is told of those that it would go on with."""
        self.core.abort_requests([name for name in unfinished if name in ended])
        landed = [(self.aboard.pop(name), reason) for name, reason in ended.items()]
        for passenger, reason in landed:
            yield self.completion(passenger, reason, deadline)

    def note(self, passenger: Passenger, events: Sequence[Any], offset_s: float, deadline: Deadline) -> None:
        """Take over when a row was begun, and count what vLLM must compute again because it ran out of memory."""
        row = passenger.row
        for event in events:
            if event.type == SCHEDULED and not passenger.ids:
                row.started_s = max(row.submitted_s, event.timestamp + offset_s)
            elif event.type == PREEMPTED:
                self.tally.preemptions += 1
                deadline.charge(flops=self.flops.read(len(row.prompt_ids) + max(0, len(passenger.ids) - 1)))

    def begin(self, passenger: Passenger, out: Any, first_token_s: float, batch: int, deadline: Deadline) -> None:
        """A row's prompt has been read and its first token is there."""
        row = passenger.row
        row.first_token_s = max(row.started_s, first_token_s)
        passenger.steps, passenger.row_steps = self.tally.steps - 1, self.tally.row_steps - batch
        length, cached = len(row.prompt_ids), out.prefill_stats.num_cached_tokens if out.prefill_stats else 0
        self.tally.prompt_tokens += length
        self.tally.cached_tokens += cached
        row.prefill_flops = self.flops.read(length - cached, cached) + 2 * self.flops.head
        deadline.charge(flops=row.prefill_flops)

    def reason(self, passenger: Passenger, out: Any) -> FinishReason | None:
        """Why a row ended with its last token, or None when it goes on."""
        if out.finish_reason is not None and out.finish_reason not in REASONS:
            passenger.error = f"vLLM gave the request up ({out.finish_reason})"
            return "error"
        if passenger.suspects is not None and passenger.suspects[passenger.ids[-1]]:
            row = passenger.row
            return self.endings.reason(passenger.ids, row.request.sampling.stop, row.limit)
        return None if out.finish_reason is None else REASONS[out.finish_reason]

    def cut(self, deadline: Deadline) -> Iterator[Completion]:
        """Abort everything, and yield the rows that have tokens."""
        passengers = list(self.aboard.values())
        self.abort(list(self.aboard))
        for passenger in passengers:
            if passenger.ids:
                yield self.completion(passenger, "deadline", deadline)

    def abort(self, names: list[str]) -> None:
        """Take rows out of vLLM."""
        self.core.abort_requests(names)
        for name in names:
            del self.aboard[name]

    def completion(self, passenger: Passenger, reason: FinishReason, deadline: Deadline) -> Completion:
        """The finished or cut row; its clock is read when the text is there."""
        row, ids = passenger.row, passenger.ids
        if self.drafting is not None:
            self.drafting.land(row, ids, None)
        steps, row_steps = self.tally.steps - passenger.steps, self.tally.row_steps - passenger.row_steps
        found = Completion(
            **identity(row),
            text=self.endings.shown(ids, row.request.sampling.stop, cut=reason != "stop"),
            finish_reason=reason,
            completion_tokens=len(ids),
            started_s=row.started_s,
            first_token_s=row.first_token_s,
            finished_s=deadline.elapsed_s,
            batch_size=row_steps / steps,
            prefill_flops=row.prefill_flops,
            decode_flops=self.flops.decode_row(len(row.prompt_ids), len(ids) - 1),
            logprob=passenger.logprob,
            error=passenger.error,
        )
        if math.isnan(passenger.logprob):
            return replace(found, finish_reason="error", error="the model's logits were not finite", logprob=None)
        return found
