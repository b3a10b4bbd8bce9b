"""The engine `native` around a loaded model: which rows share slots, how much memory they get, what if it runs out."""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from harness.budgets import Deadline
from harness.nouns import Completion, Facts, Prompt, Request
from harness.running.drafts import Ask, Draft

from . import text
from .architectures.causal_lm import CausalLM
from .continuous import ContinuousBatch
from .decode_graphs import CudaRecorder
from .drafting import Drafting, Tally
from .endings import Endings
from .flops import count_native_flops
from .forks import Forks
from .rows import Row, failed, new_row, refused
from .sampling import check_sampling
from .slots import Slots

BLOCK = 64
"""Slots have room for a multiple of so many tokens."""

PREFIX_SHARE = 8
"""One part in so many of the state memory is for prompts that wait for more of their samples."""


class NativeModel:
    """A `harness.nouns.Model` around a `CausalLM` and a transformers tokenizer.

    Args:
        name: what the user calls the checkpoint.
        model: in evaluation mode on its device.
        tokenizer: its tokenizer.
        ends: token ids that end a completion.
        context: longest text in tokens that the model was made for; None where there is no such length.
        max_batch_size: rows in flight at most; halved whenever the device runs out of memory.
        memory_bytes: for keys, values and states; rows that do not fit wait.
        state_dtype: of the recurrent states.
        cuda_graphs: record the decode passes; needs a CUDA device.
        facts: what the loader knows for the manifest; the engine's own facts are added.
    """

    def __init__(
        self,
        name: str,
        model: CausalLM,
        tokenizer: Any,
        ends: frozenset[int],
        *,
        context: int | None,
        max_batch_size: int,
        memory_bytes: int,
        state_dtype: torch.dtype,
        cuda_graphs: bool,
        facts: Facts,
    ) -> None:
        self.name, self.model, self.tokenizer, self.context = name, model, tokenizer, context
        self.asked_batch_size = max_batch_size
        self.max_batch_size, self.memory_bytes, self.state_dtype = max_batch_size, memory_bytes, state_dtype
        self.device = model.embedding.weight.device
        self.endings = Endings(tokenizer, ends, model.head.weight.shape[0], self.device)
        self.flops = count_native_flops(model)
        self.cuda_graphs = cuda_graphs
        self.slots: Slots | None = None
        self.out_of_memory = 0
        self.forks = Forks(memory_bytes // PREFIX_SHARE // 2)
        self.tally = Tally()
        self.loader_facts = facts

    @property
    def facts(self) -> Facts:
        """What the manifest records of this engine."""
        return {
            **self.loader_facts,
            "max_batch_size": self.max_batch_size,
            "slots": self.slots.capacity if self.slots else None,
            "slot_tokens": self.slots.columns if self.slots else None,
            "state_memory_bytes": self.memory_bytes,
            "cuda_graphs": self.cuda_graphs,
            "state_dtype": str(self.state_dtype).removeprefix("torch."),
            "out_of_memory": self.out_of_memory,
            "vocab_size": self.endings.vocab_size,
            "end_tokens": sorted(self.endings.ends),
            "chat_template": bool(self.tokenizer.chat_template),
            "prefix_sharing": "k samples of a problem share one prefill",
            "batching": "continuous",
            "sampler": "inverse CDF, one SplitMix64 stream per completion, top-p within top-k",
            **({"drafts": asdict(self.tally) | {"dropped_states": self.forks.dropped}} if self.tally.reused else {}),
        }

    def render(self, prompt: Prompt) -> str:
        """The exact text that the model reads."""
        return text.render(self.tokenizer, prompt)

    def close(self) -> None:
        """Free the model's memory; the engine cannot be used afterwards."""
        self.slots = None
        del self.model
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def prepare(self, calls: Sequence[Sequence[Request]]) -> None:
        """Allocate the slots that the largest of these calls needs; see `harness.nouns.Model`."""
        rows = [[row for row in self.rows(requests) if row.limit > 0] for requests in calls]
        everything = [row for call in rows for row in call]
        if everything:
            slots = self.make_room(everything, max(map(len, rows)))
            stops = list({row.request.sampling.stop: None for row in everything})
            slots.prepare(everything[0].request.sampling, self.endings.table(stops))

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        """Yield each completion when it finishes; see `harness.nouns.Model`.

        `completion_tokens` and `logprob` include the end token. Work that a lack of memory undid is charged to the
        deadline and to no completion. Raises UserError for sampling settings that mean nothing.
        """
        submitted_s = deadline.elapsed_s
        for sampling in {request.sampling for request in requests}:
            check_sampling(sampling)
        return self.serve(requests, submitted_s, deadline)

    def serve(self, requests: Sequence[Request], submitted_s: float, deadline: Deadline) -> Iterator[Completion]:
        """Serve the rows of one sampler after those of another; nearly always there is one."""
        queues: dict[tuple[float, int, float], deque[Row]] = {}
        for row in self.rows(requests, submitted_s, deadline):
            if row.limit < 1:
                yield refused(row, self.context, deadline)
            else:
                sampling = row.request.sampling
                queues.setdefault((sampling.temperature, sampling.top_k, sampling.top_p), deque()).append(row)
        for queue in queues.values():
            while queue and not deadline.expired:
                yield from self.serve_queue(queue, deadline)

    def rows(
        self, requests: Sequence[Request], submitted_s: float = 0.0, deadline: Deadline | None = None
    ) -> list[Row]:
        """The requests with their token ids, a prompt tokenised once; none if the deadline strikes meanwhile."""
        encoded: dict[Prompt, tuple[int, ...]] = {}
        for prompt in {request.prompt: None for request in requests}:
            if deadline is not None and deadline.expired:
                return []
            encoded[prompt] = text.encode(self.tokenizer, prompt)
        return [new_row(request, encoded[request.prompt], self.context, submitted_s) for request in requests]

    def extend(self, waiting: deque[Ask], deadline: Deadline) -> Iterator[Draft]:
        """Go on with replies, whose states are kept from piece to piece; see `harness.running.drafts`."""
        drafting = Drafting(waiting, self.tokenizer, self.endings.ends, self.context)
        queue: deque[Row] = deque()
        while not deadline.expired:
            queue.extend(drafting.take(deadline))
            if queue:
                check_sampling(queue[0].request.sampling)
                for completion in self.serve_queue(queue, deadline, drafting):
                    yield drafting.draft(completion)
            yield from drafting.refused(deadline)
            if not (queue or waiting or drafting.later):
                return

    def serve_queue(
        self, queue: deque[Row], deadline: Deadline, drafting: Drafting | None = None
    ) -> Iterator[Completion]:
        """Serve a queue to its end, or until memory runs out; rows that this drives out go back to its head."""
        batch: ContinuousBatch | None = None
        boarding: list[Row] = []
        try:
            slots = self.make_room(queue, len(queue))
            forks = self.forks if drafting else None
            prefix_bytes = self.memory_bytes // PREFIX_SHARE - (forks.max_bytes if forks else 0)
            batch = ContinuousBatch(
                self.model,
                slots,
                queue,
                self.endings,
                self.flops,
                prefix_bytes,
                drafting,
                forks,
                self.tally if drafting else None,
            )
            yield from batch.run(deadline)
            return
        except torch.OutOfMemoryError:
            self.out_of_memory += 1
        # Outside the handler, whose traceback would keep the dead batch's tensors.
        boarding = batch.in_flight() if batch else []
        batch = None
        yield from self.shrink(queue, boarding, deadline)

    def shrink(self, queue: deque[Row], driven_out: Sequence[Row], deadline: Deadline) -> Iterator[Completion]:
        """After a lack of memory: halve the slots, or give up on a row that does not fit alone."""
        queue.extendleft(reversed(driven_out))
        had_slots = self.slots is not None
        tried = min(self.max_batch_size, self.slots.capacity if self.slots else len(queue))
        self.slots = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if tried == 1:
            # Where not even one slot could be had, the longest row is to blame, for which it would have been made.
            row = queue[0] if had_slots else max(queue, key=lambda row: len(row.prompt_ids) + row.limit)
            queue.remove(row)
            self.max_batch_size = self.asked_batch_size  # the others may well fit together
            yield failed(row, "the device ran out of memory with this completion alone", deadline)
        else:
            self.max_batch_size = tried // 2

    def make_room(self, rows: Collection[Row], at_once: int) -> Slots:
        """Slots in which up to `at_once` of these rows fit: the present ones, or new ones where needed."""
        limit = max(max(row.limit, row.room - len(row.prompt_ids)) for row in rows)
        columns = -(-max(max(len(row.prompt_ids) + row.limit, row.room) for row in rows) // BLOCK) * BLOCK
        room = self.memory_bytes * (PREFIX_SHARE - 1) // PREFIX_SHARE
        capacity = max(1, min(self.max_batch_size, at_once, room // self.slot_bytes(columns)))
        if self.slots is None or not self.slots.fits(capacity, columns, limit, self.max_batch_size):
            self.slots = None  # first, so that the old and the new ones are never there together
            record = CudaRecorder() if self.cuda_graphs else None
            self.slots = Slots(self.model, capacity, columns, limit, self.state_dtype, self.endings.is_end, record)
        return self.slots

    def slot_bytes(self, columns: int) -> int:
        """What one row of so many tokens occupies."""
        return sum(tensor.nbytes for state in self.model.empty_states(1, columns, self.state_dtype) for tensor in state)
