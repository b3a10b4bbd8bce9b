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
from .drafting import Drafting, Tally
from .endings import Endings
from .flops import ForwardFlops
from .forks import Fork, Forks, flops_of, go_on
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


def may_go_on(row: Row) -> bool:
    """Whether its prompt need not be read from the beginning."""
    return row.fork is not None and row.fork.leads_to(row.prompt_ids)


class ContinuousBatch:
    """One queue's way through the slots.

    Args:
        model: reads the prompts; the slots have it too.
        slots: whose rows, if any, are given up.
        queue: rows of one sampler that wait; it loses each row that enters.
        endings: when a row is at its end.
        flops: what a pass costs.
        prefix_bytes: memory for prompts that wait for more of their samples.
        drafting: where more rows come from and where what they wrote is told; None where rows are whole replies.
        forks: keeps states of what was written, with `drafting`.
        tally: counts what was read, with `drafting`.
    """

    def __init__(
        self,
        model: CausalLM,
        slots: Slots,
        queue: deque[Row],
        endings: Endings,
        flops: ForwardFlops,
        prefix_bytes: int,
        drafting: Drafting | None = None,
        forks: Forks | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.model, self.slots, self.queue, self.endings, self.flops = model, slots, queue, endings, flops
        self.drafting, self.forks, self.tally = drafting, forks, tally or Tally()
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
                yield from self.cut(deadline)
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
            if self.drafting is not None and self.drafting.waiting:
                self.join(self.drafting, deadline)

    def join(self, drafting: Drafting, deadline: Deadline) -> None:
        """Let rows that were added meanwhile wait in the queue; those that do not fit into the slots stay behind."""
        for row in drafting.take(deadline):
            fits = row.limit <= self.slots.limit and len(row.prompt_ids) + row.limit <= self.slots.columns
            if fits and row.request.sampling.stop in self.stop_class:
                self.queue.append(row)
                self.prefixes.waiting[row.prompt_ids] += 1
                self.numbers.setdefault(row.prompt_ids, len(self.numbers))
            else:
                drafting.later.append(row)

    def admit(self, deadline: Deadline) -> list[int]:
        """Let waiting rows into free slots, reading the prompts that are new; the places that may have ended."""
        rows = self.boarding = self.board(deadline)
        fresh = list({row.prompt_ids: None for row in rows if row.prompt_ids not in self.prefixes.kept})
        places: list[int] = []
        for prompt in {row.prompt_ids: None for row in rows if row.prompt_ids in self.prefixes.kept}:
            sharers = [row for row in rows if row.prompt_ids == prompt]
            places += self.enter(sharers, [prompt], self.prefixes.kept[prompt], deadline)
        forks = {row.prompt_ids: row.fork for row in rows if may_go_on(row)}
        going_on = [prompt for prompt in fresh if prompt in forks]
        unread = [prompt for prompt in fresh if prompt not in forks]
        for prompts in filter(None, (unread, going_on)):
            newcomers = [row for row in rows if row.prompt_ids in set(prompts)]
            boarding = Counter(row.prompt_ids for row in newcomers)
            if prompts is unread:
                prefix = self.prefill(prompts, boarding, deadline)
                self.fork_read(newcomers, prompts, prefix)
            else:
                reached = self.go_on(prompts, [forks[prompt] for prompt in prompts], boarding, deadline)
                if reached is None:
                    break
                prefix = reached
            places += self.enter(newcomers, prompts, prefix, deadline)
            for number, prompt in enumerate(prompts):
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
            if prompt not in self.prefixes.kept and prompt not in fresh and not may_go_on(self.queue[0]):
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
            self.share(prompt, flops, boarding)
            self.tally.read += len(prompt)
        return Prefix(states, logits)

    def go_on(
        self, prompts: Sequence[PromptIds], forks: Sequence[Fork], boarding: Counter[PromptIds], deadline: Deadline
    ) -> Prefix | None:
        """Read what forks leave of texts; as `prefill`, but None when the deadline strikes meanwhile."""

        def may_pass(rows: int, contexts: int) -> bool:
            if is_in_time := not deadline.expired:
                deadline.charge(flops=self.flops.decode(rows, contexts))
            return is_in_time

        prefix = go_on(self.model, self.slots, forks, prompts, may_pass)
        for prompt, fork in zip(prompts, forks, strict=True) if prefix is not None else ():
            self.share(prompt, flops_of(self.flops, fork, prompt), boarding)
            self.tally.stepped += len(prompt) - len(fork.token_ids)
            self.tally.reused += len(fork.token_ids)
        return prefix

    def share(self, prompt: PromptIds, flops: float, boarding: Counter[PromptIds]) -> None:
        """Share out the reading of a text among the rows that need it."""
        self.shares[prompt] = self.shares.get(prompt, 0.0) + flops / (boarding[prompt] + self.prefixes.waiting[prompt])

    def fork_read(self, rows: Sequence[Row], prompts: Sequence[PromptIds], prefix: Prefix) -> None:
        """Keep the states of texts that have been read, for those who go on from them again."""
        if self.forks is None or self.drafting is None:
            return
        grows = self.slots.grows
        kept = {prompt: self.forks.of_prefix(prompt, prefix, row, grows) for row, prompt in enumerate(prompts)}
        for row in rows:
            self.drafting.note_state(row, kept[row.prompt_ids])

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

    def cut(self, deadline: Deadline) -> list[Completion]:
        """What flies, as it is; the batch is over."""
        stopped_s = deadline.elapsed_s
        if not deadline.held_back:
            self.forks = None  # nothing can go on from here
        found = [self.completion(place, "deadline", lambda: stopped_s) for place in range(len(self.passengers))]
        self.passengers.clear()
        return found

    def completion(self, place: int, reason: FinishReason, clock: Clock) -> Completion:
        """The finished or cut row; the scope's clock is read when the text is there."""
        passenger, ids = self.passengers[place], self.generated(place)
        row, passes = passenger.row, self.slots.passes - passenger.passes
        if self.drafting is not None:
            read = (*row.prompt_ids, *ids[:-1])
            self.drafting.land(row, ids, self.forks and self.forks.of_slot(read, self.slots, place))
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
