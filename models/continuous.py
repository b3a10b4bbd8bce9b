"""Continuous batching under a deadline: from a queue of rows to completions.

Waiting rows enter as soon as a slot is free, in the order of their requests. A prompt is read once, its state is copied
to its samples' slots and kept while more of them wait. Then each pass gives every row one token, finished rows are
yielded and leave, and the deadline is polled. No Python runs per row and pass: a row is touched when it enters, when it
may have ended, and when it leaves.
"""

import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from harness.budgets import Clock, Deadline
from harness.nouns import Completion, FinishReason

from .architectures.causal_lm import CausalLM
from .endings import Endings
from .flops import ForwardFlops
from .prefixes import Prefix, Prefixes, PromptIds
from .rows import Row, identity
from .slots import Slots

PREFILL_TOKENS = 4096
"""Padded prompt tokens that one forward pass reads at most, unless a single prompt is longer."""


@dataclass(slots=True)
class Passenger:
    """A row in flight, and the batch's counters when it entered."""

    row: Row
    passes: int
    row_passes: int
    batch_size: int


class ContinuousBatch:
    """One queue's way through the slots.

    Args:
        model: reads the prompts; the slots have it too.
        slots: whose rows, if any, are given up.
        queue: rows of one sampler that wait; it loses each row that enters.
        endings: when a row is at its end.
        flops: what a pass costs.
        prefix_bytes: memory for prompts that wait for more of their samples.
    """

    def __init__(
        self,
        model: CausalLM,
        slots: Slots,
        queue: deque[Row],
        endings: Endings,
        flops: ForwardFlops,
        prefix_bytes: int,
    ) -> None:
        self.model, self.slots, self.queue, self.endings, self.flops = model, slots, queue, endings, flops
        self.sampling = queue[0].request.sampling
        self.passengers: list[Passenger] = []
        """The rows in flight, in the order of their slots."""
        self.boarding: list[Row] = []
        """Rows that have left the queue and have no slot yet."""
        self.landed: list[Row] = []
        """Rows that were yielded and still have a slot."""
        self.row_passes = 0
        """Rows in flight, summed over the passes."""
        self.prefixes = Prefixes((row.prompt_ids for row in queue), prefix_bytes)
        self.numbers = {prompt: number for number, prompt in enumerate({row.prompt_ids: None for row in queue})}
        self.shares: dict[PromptIds, float] = {}
        """FLOPs of reading each prompt, per sample that waited for it."""
        stops = list({row.request.sampling.stop: None for row in queue})
        self.stop_class = {stop: number for number, stop in enumerate(stops)}
        slots.prepare(self.sampling, endings.table(stops))

    def run(self, deadline: Deadline) -> Iterator[Completion]:
        """Serve until nothing waits or flies; at the deadline yield what flies as it is."""
        while self.queue or self.passengers:
            if deadline.expired:
                yield from self.cut(deadline.elapsed_s)
                return
            can_enter = self.queue and self.slots.count < self.slots.capacity
            places = self.admit(deadline) if can_enter else self.advance(deadline)
            ended = {place: reason for place in places if (reason := self.reason(place))}
            # Before any is handed over: what is done with one must not make the next one late.
            done = [self.completion(place, reason, deadline.now) for place, reason in ended.items()]
            self.landed += [self.passengers[place].row for place in ended]
            yield from done
            if ended:
                self.drop(list(ended))
                self.landed.clear()

    def admit(self, deadline: Deadline) -> list[int]:
        """Let waiting rows into free slots, reading the prompts that are new; the places that may have ended."""
        rows = self.boarding = self.board(deadline)
        fresh = list({row.prompt_ids: None for row in rows if row.prompt_ids not in self.prefixes.kept})
        places: list[int] = []
        for prompt in {row.prompt_ids: None for row in rows if row.prompt_ids in self.prefixes.kept}:
            sharers = [row for row in rows if row.prompt_ids == prompt]
            places += self.enter(sharers, [prompt], self.prefixes.kept[prompt], deadline)
        if fresh:
            newcomers = [row for row in rows if row.prompt_ids not in self.prefixes.kept]
            boarding = Counter(row.prompt_ids for row in newcomers)
            prefix = self.prefill(fresh, boarding, deadline)
            places += self.enter(newcomers, fresh, prefix, deadline)
            for number, prompt in enumerate(fresh):
                self.prefixes.keep(prompt, prefix.states, prefix.logits, number)
        self.prefixes.tidy()
        self.boarding = []
        return places

    def in_flight(self) -> list[Row]:
        """The rows that have left the queue and were not yielded."""
        flying = [passenger.row for passenger in self.passengers]
        rows = {id(row): row for row in flying + self.boarding}
        return [row for row in rows.values() if row not in self.landed]

    def board(self, deadline: Deadline) -> list[Row]:
        """Take the next rows off the queue: as many as have a slot and as can be read in one pass."""
        started_s = deadline.elapsed_s
        rows: list[Row] = []
        fresh: set[PromptIds] = set()
        longest = 0
        while self.queue and len(rows) < self.slots.capacity - self.slots.count:
            prompt = self.queue[0].prompt_ids
            if prompt not in self.prefixes.kept and prompt not in fresh:
                longest = max(longest, len(prompt))
                if fresh and longest * (len(fresh) + 1) > PREFILL_TOKENS:
                    break
                fresh.add(prompt)
            rows.append(self.queue.popleft())
            rows[-1].started_s = started_s
            self.prefixes.waiting[prompt] -= 1
        return rows

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[PromptIds], boarding: Counter[PromptIds], deadline: Deadline) -> Prefix:
        """Read prompts side by side; one row of states for each. `boarding` counts the samples that enter with it."""
        lengths, device = [len(prompt) for prompt in prompts], self.slots.rows.device
        longest = max(lengths)
        ids = torch.tensor([prompt + (0,) * (longest - len(prompt)) for prompt in prompts], device=device)
        is_padded = min(lengths) < longest
        logits, states = self.model.prefill(ids, torch.tensor(lengths, device=device) if is_padded else None)
        for prompt in prompts:
            flops = self.flops.prefill(len(prompt))
            deadline.charge(flops=flops)
            sharers = boarding[prompt] + self.prefixes.waiting[prompt]
            self.shares[prompt] = self.shares.get(prompt, 0.0) + flops / sharers
        return Prefix(states, logits)

    def enter(self, rows: Sequence[Row], prompts: Sequence[PromptIds], prefix: Prefix, deadline: Deadline) -> list[int]:
        """Give rows their slots, states and first tokens; `prefix` has one row for each of `prompts`."""
        order = {prompt: number for number, prompt in enumerate(prompts)}
        sources = [order[row.prompt_ids] for row in rows]
        new = self.slots.enter(
            prefix.states,
            sources,
            [self.numbers[row.prompt_ids] for row in rows],
            [len(row.prompt_ids) for row in rows],
            [row.seed for row in rows],
            [row.limit for row in rows],
            [self.stop_class[row.request.sampling.stop] for row in rows],
        )
        self.slots.draw(new, prefix.logits[sources], self.sampling)
        places = self.slots.ended_places(new)
        deadline.charge(tokens=len(rows))
        first_token_s = deadline.elapsed_s
        for row in rows:
            row.first_token_s = first_token_s
            row.prefill_flops = self.shares[row.prompt_ids]
            self.passengers.append(Passenger(row, self.slots.passes, self.row_passes, self.slots.count))
        return places

    def advance(self, deadline: Deadline) -> list[int]:
        """One token for every row in flight; the places that may have ended."""
        deadline.charge(flops=self.flops.decode(self.slots.count, self.slots.contexts()))
        self.row_passes += self.slots.count
        places = self.slots.advance(self.sampling)
        deadline.charge(tokens=self.slots.count)
        return places

    def generated(self, place: int) -> list[int]:
        """The token ids of a row so far."""
        return self.slots.generated(place, self.slots.passes - self.passengers[place].passes + 1)

    def reason(self, place: int) -> FinishReason | None:
        """Why a row ended with its last token, or None when it goes on."""
        row = self.passengers[place].row
        return self.endings.reason(self.generated(place), row.request.sampling.stop, row.limit)

    def drop(self, places: Sequence[int]) -> None:
        """Free the slots of the rows that ended."""
        for source, target in self.slots.leave(places):
            self.passengers[target] = self.passengers[source]
        del self.passengers[self.slots.count :]

    def cut(self, stopped_s: float) -> list[Completion]:
        """What flies, as it is; the batch is over."""
        found = [self.completion(place, "deadline", lambda: stopped_s) for place in range(len(self.passengers))]
        self.passengers.clear()
        return found

    def completion(self, place: int, reason: FinishReason, clock: Clock) -> Completion:
        """The finished or cut row; the scope's clock is read when the text is there."""
        passenger, ids = self.passengers[place], self.generated(place)
        row, passes = passenger.row, self.slots.passes - passenger.passes
        logprob: float = self.slots.logprobs[place].item()
        found = Completion(
            **identity(row),
            text=self.endings.shown(ids, row.request.sampling.stop, cut=reason != "stop"),
            finish_reason=reason,
            completion_tokens=len(ids),
            started_s=row.started_s,
            first_token_s=row.first_token_s,
            finished_s=clock(),
            batch_size=(passenger.batch_size + self.row_passes - passenger.row_passes) / (passes + 1),
            prefill_flops=row.prefill_flops,
            decode_flops=self.flops.decode_row(len(row.prompt_ids), passes),
            logprob=logprob,
        )
        if math.isnan(logprob):
            return replace(found, finish_reason="error", error="the model's logits were not finite", logprob=None)
        return found
