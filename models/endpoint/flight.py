"""Requests in flight under one deadline, in the event loop: so many at once, each tried again while it has no token.

A sample's time is that of the attempt which succeeded: what failed attempts and the waits between them took is taken
out of its times and added to its deadline, and told in the facts. The deadline is kept by cancelling the request, which
closes its connection; servers then stop decoding.
"""

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from harness.budgets import Deadline
from harness.nouns import Completion, Request

from .answers import Reader
from .asks import Ask, grouped
from .failures import Failure, judge
from .fields import Taken, body_of
from .settings import Settings
from .streams import open_stream
from .tally import Load, Tally

TICK_S = 0.05
"""Seconds between two looks at the deadline and at streams that say nothing; the last look comes when it strikes."""
BACK_OFF_S, LONGEST_BACK_OFF_S = 0.5, 30.0
GIVEN_UP = 8
"""Requests that failed for good one after the other, after which each of the next has a single attempt."""


class Flight:
    """One call of `generate`. `rows` receives completions as they come, an exception if there is one, and then None."""

    def __init__(
        self, client: Any, settings: Settings, taken: Taken, tally: Tally, requests: Sequence[Request],
        deadline: Deadline,
    ) -> None:  # fmt: skip
        self.client, self.settings, self.taken, self.tally = client, settings, taken, tally
        self.groups = grouped(requests, settings.samples_per_request)
        self.workers = min(settings.max_concurrency, len(requests))
        self.deadline = deadline
        self.submitted_s = deadline.elapsed_s
        self.rows: SimpleQueue[Completion | BaseException | None] = SimpleQueue()
        self.tokens, self.used_tokens = 0, deadline.tokens
        budget = deadline.budget
        self.ends_s = budget.amount if budget is not None and budget.unit == "seconds" else math.inf
        self.load = Load()
        self.asks: set[Ask] = set()

    async def run(self) -> None:
        """Ask for everything, until it is there or the budget is used up."""
        watcher = asyncio.create_task(self.watch())
        workers = [asyncio.create_task(self.work()) for _ in range(self.workers)]
        try:
            await asyncio.gather(*workers)
        except Exception as error:
            self.rows.put(error)
        finally:
            for task in (watcher, *workers, *(ask.task for ask in self.asks if ask.task)):
                task.cancel()
            self.rows.put(None)

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up; tokens count that the harness has not been told of yet."""
        budget = self.deadline.budget
        if budget is not None and budget.unit == "tokens":
            return self.used_tokens + self.tokens >= budget.amount
        return self.deadline.expired

    async def watch(self) -> None:
        """Stop what is past its deadline, and what has said nothing for too long."""
        while True:
            now = self.deadline.elapsed_s
            flying = [ask for ask in self.asks if ask.is_flying]
            for ask in flying:
                if now - ask.waited_s >= self.ends_s:
                    ask.stop("deadline")
                elif now - ask.heard_s >= self.settings.stall_s:
                    ask.stop("stall")
            left_s = [self.ends_s + ask.waited_s - now for ask in flying if not ask.cut]
            await asyncio.sleep(max(0.0, min([TICK_S, *left_s])))

    async def work(self) -> None:
        """Ask for one group after the other."""
        for group in self.groups:
            if self.is_over:
                return
            reader = Reader(group, self.settings.protocol == "chat")
            ask = Ask(group, reader, self.submitted_s, self.deadline.elapsed_s)
            ask.task = asyncio.create_task(self.answer(ask))
            self.asks.add(ask)
            await asyncio.wait([ask.task])
            self.asks.discard(ask)
            if not ask.task.cancelled():
                ask.task.result()
            self.finish(ask)

    async def answer(self, ask: Ask) -> None:
        """Try until the answer is there, a part of it was lost, or trying is of no use."""
        last = 0 if self.tally.failed_in_a_row >= GIVEN_UP else self.settings.max_retries
        for attempt in range(last + 1):
            was_held = await self.hold_back()
            now = self.deadline.elapsed_s
            if attempt == 0 and not was_held:
                ask.began_s = now
            self.take_off(ask, now)
            try:
                await self.read(ask)
                return
            except Exception as error:
                failure = judge(error, self.settings)
            self.tally.note(failure)
            if attempt == last or ask.reader.chunks or not self.may_retry(failure):
                ask.failure = failure.sentence
                return
            self.land(ask)
            self.tally.retries += 1
            await asyncio.sleep(self.pause_s(failure, attempt))

    def may_retry(self, failure: Failure) -> bool:
        """Whether another attempt may succeed before long."""
        return failure.again and (failure.wait_s or 0.0) <= self.settings.longest_wait_s

    def pause_s(self, failure: Failure, attempt: int) -> float:
        """Seconds until the next attempt; what a rate limit asks for holds every other request back too."""
        wait_s: float = min(LONGEST_BACK_OFF_S, BACK_OFF_S * 2**attempt) * random.uniform(0.75, 1.25)
        if failure.wait_s is not None:
            wait_s = max(wait_s, failure.wait_s)
            if failure.status == 429:
                self.tally.hold_until_s = max(self.tally.hold_until_s, loop_s() + failure.wait_s)
        return wait_s

    async def hold_back(self) -> bool:
        """Wait while the server's rate limit asks for it; returns whether it did."""
        was_held = False
        while (wait_s := self.tally.hold_until_s - loop_s()) > 0:
            was_held = True
            await asyncio.sleep(wait_s)
        return was_held

    def take_off(self, ask: Ask, now: float) -> None:
        """An attempt begins."""
        ask.waited_s, ask.took_off_s, ask.heard_s = now - ask.began_s, now, now
        ask.area = self.load.change(len(ask.requests), now)
        ask.is_flying = True

    def land(self, ask: Ask) -> float:
        """An attempt has ended; returns the mean number of rows that were in flight with it."""
        mean_rows = self.mean_rows(ask)
        if ask.is_flying:
            ask.is_flying = False
            self.load.change(-len(ask.requests), self.deadline.elapsed_s)
        return mean_rows

    def mean_rows(self, ask: Ask) -> float:
        """The mean number of rows in flight since the present attempt began."""
        now = self.deadline.elapsed_s
        area, passed_s = self.load.change(0, now) - ask.area, now - ask.took_off_s
        return float(area / passed_s if passed_s > 0 else self.load.rows)

    async def read(self, ask: Ask) -> None:
        """One attempt: send the request and read its stream."""
        body = body_of(self.settings, self.taken, ask.requests)
        async with await open_stream(self.client, self.settings, body) as stream:
            async for chunk in stream:
                ask.heard_s = self.deadline.elapsed_s
                if ask.heard_s - ask.waited_s >= self.ends_s:
                    ask.stop("deadline")
                if ask.cut:  # what had arrived already is read without a pause in which it could be cancelled
                    return
                came, ended = ask.reader.take(chunk, ask.heard_s - ask.waited_s)
                self.tally.see(chunk)
                self.count(came)
                for index in ended if len(ask.requests) > 1 else ():
                    self.give(ask, index, self.mean_rows(ask))

    def count(self, came: int) -> None:
        """More tokens are there; when they use the budget up, everything stops."""
        self.tokens += came
        budget = self.deadline.budget
        if came and budget is not None and budget.unit == "tokens" and self.is_over:
            for ask in self.asks:
                ask.stop("deadline")

    def finish(self, ask: Ask) -> None:
        """Give out what an ended request leaves."""
        mean_rows = self.land(ask)
        failed = bool(ask.failure) or ask.cut == "stall"
        self.tally.add(ask.reader, ask.waited_s, ask.requests[0].problem_id, failed)
        if ask.cut == "stall":
            self.tally.last_error = f"the server sent nothing for {self.settings.stall_s:g} s"
        for index in range(len(ask.requests)):
            self.give(ask, index, mean_rows)

    def give(self, ask: Ask, index: int, mean_rows: float) -> None:
        """Give out one sample, unless it was given out before."""
        if index in ask.given:
            return
        ask.given.add(index)
        request = ask.requests[index]
        usage = ask.reader.usage.prompt_tokens
        prompt_tokens = self.tally.prompts.get(request.problem_id, 0) if usage is None else usage
        row = ask.completion(index, self.deadline.elapsed_s, mean_rows, prompt_tokens, self.settings.stall_s)
        # A server that answers with what it was sent, as one for debugging does, has the key in its text.
        error = row.error and self.settings.hide(row.error)
        self.rows.put(replace(row, text=self.settings.hide(row.text), error=error))


def loop_s() -> float:
    """The event loop's own clock: it orders waits and measures nothing that is recorded."""
    return asyncio.get_running_loop().time()
