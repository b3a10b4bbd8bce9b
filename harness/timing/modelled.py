"""Modelled time: recorded lengths combined with a timing table.

Quality is recorded once, wherever it may be; how long the same completions take elsewhere follows from their lengths
and from the times of prompts, decode passes and ends of rows that `ttc speed` measured there. What is modelled is the
engine's own schedule: waiting rows enter as soon as a place is free and get their first tokens, then each pass gives
every row one token, and rows leave as they finish. Only generation is modelled, no reward model.

`conversion_s` is another construction, for replication alone: M1's (arXiv 2504.10449), which charges every sample the
longest length at the best throughput of any batch. `timing.modelled_curves` draws accuracy against modelled time.
"""

import heapq
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from harness.errors import UserError
from harness.storage.runs import Run
from harness.timing.timing_tables import TimingTable

DRAWS = 16
"""Random subsets behind an expected time that has no closed form."""


class Job(NamedTuple):
    """A completion as the model of time sees it."""

    prompt_id: str
    prompt: int
    """Tokens."""
    length: int
    """Tokens generated, at least 1."""
    sample_index: int = 0


@dataclass(slots=True)
class Flight:
    """The rows in flight of a modelled engine."""

    table: TimingTable
    now: float = 0.0
    """Seconds."""
    passes: int = 0
    rows: int = 0
    contexts: int = 0
    """Tokens that the rows have before their next pass, summed."""

    def advance(self, passes: int) -> None:
        """So many passes over the rows in flight, at their mean context."""
        self.now += self.table.decode_s(self.rows, self.contexts / self.rows, passes)
        self.passes += passes
        self.contexts += self.rows * passes

    def leave(self, job: Job) -> float:
        """One row ends; the time at which its text is there."""
        self.now += self.table.finish_s(self.rows)
        self.rows -= 1
        self.contexts -= job.prompt + job.length - 1
        return self.now

    def enter(self, jobs: Sequence[Job], read: set[str]) -> None:
        """Rows enter with their first tokens; prompts that were read before are not read again."""
        for prompt_id, sharers in Counter(job.prompt_id for job in jobs).items():
            prompt = next(job.prompt for job in jobs if job.prompt_id == prompt_id)
            if prompt_id in read:
                self.now += self.table.enter_s(sharers, prompt)
            else:
                self.now += self.table.prefill_s(sharers, prompt)
        read.update(job.prompt_id for job in jobs)
        self.rows += len(jobs)
        self.contexts += sum(job.prompt for job in jobs)


def finish_times(table: TimingTable, jobs: Sequence[Job], limit: int | None = None) -> np.ndarray:
    """Seconds from the start to the end of each job.

    Args:
        table: of the engine.
        jobs: in the order in which they are issued.
        limit: rows in flight at most; None takes the largest batch of the table.

    Raises UserError when a batch or a context lies beyond the table.
    """
    limit = limit or table.largest_batch
    flight, read = Flight(table), set[str]()
    waiting, ends = deque(enumerate(jobs)), list[tuple[int, int]]()
    finished = np.zeros(len(jobs))
    while waiting or ends:
        boarding = [waiting.popleft() for _ in range(min(len(waiting), limit - flight.rows))]
        if boarding:
            flight.enter([job for _, job in boarding], read)
            for index, job in boarding:
                heapq.heappush(ends, (flight.passes + job.length - 1, index))
        if ends[0][0] > flight.passes:
            flight.advance(ends[0][0] - flight.passes)
        while ends and ends[0][0] == flight.passes:
            index = heapq.heappop(ends)[1]
            finished[index] = flight.leave(jobs[index])
    return finished


def batch_s(table: TimingTable, prompt: int, lengths: Sequence[int], limit: int | None = None) -> float:
    """Seconds until the last of some samples of one prompt is finished, all of them begun together."""
    return float(finish_times(table, [Job("", prompt, length) for length in lengths], limit).max(initial=0.0))


def expected_s(
    table: TimingTable, prompt: int, lengths: Sequence[int], k: int, limit: int | None = None, seed: int = 0
) -> float:
    """The expected `batch_s` of a random subset of `k` of the lengths.

    It is exact where the k rows fit together: the number of rows still in flight at a pass is hypergeometric, and it
    changes only where a length ends. Otherwise it is the mean over `DRAWS` seeded random subsets.
    """
    if k > (limit or table.largest_batch):
        rng = random.Random(f"{seed}/{k}/{len(lengths)}")
        drawn = (rng.sample(list(lengths), k) for _ in range(DRAWS))
        return float(np.mean([batch_s(table, prompt, subset, limit) for subset in drawn]))
    total = table.prefill_s(k, prompt) + sum(table.finish_s(rows) for rows in range(1, k + 1))
    ordered = sorted(lengths)
    before = 1
    for index, length in enumerate(ordered):
        passes = length - before
        if passes > 0:
            # Rows that are at least this long; of k drawn from all, how many are among them.
            chances = hypergeometric(len(ordered), len(ordered) - index, k)
            context = prompt + before - 1
            total += sum(
                float(chance) * table.decode_s(rows, context, passes)
                for rows, chance in enumerate(chances)
                if rows and chance > 0
            )
            before = length
    return total


def hypergeometric(population: int, marked: int, drawn: int) -> np.ndarray:
    """(drawn + 1,): the chance of each number of marked ones among `drawn` of a population."""
    from scipy.stats import hypergeom

    chances: np.ndarray = hypergeom.pmf(np.arange(drawn + 1), population, marked, drawn)
    return chances


def recorded_jobs(run: Run) -> dict[str, list[Job]]:
    """What a run recorded, by problem in order of sample index; completions without a token are left out.

    A completion that the deadline cut counts with the tokens it had. Raises UserError when no token counts were
    recorded.
    """
    rows = {(row["problem_id"], row["sample_index"]): row for row in run.completions()}
    jobs: dict[str, list[Job]] = {problem["problem_id"]: [] for problem in run.problems()}
    for (problem_id, index), row in sorted(rows.items()):
        if row["completion_tokens"] > 0 and row["prompt_tokens"] > 0:
            jobs[problem_id].append(Job(problem_id, row["prompt_tokens"], row["completion_tokens"], index))
    if not any(jobs.values()):
        raise UserError(f"'{run.path}' has no token counts, from which time could be modelled; bench it again")
    return {problem_id: own for problem_id, own in jobs.items() if own}


def waves(jobs: Sequence[Sequence[Job]]) -> list[Job]:
    """The jobs of several problems as the throughput protocol issues them: the first of each, then the second, ..."""
    longest = max(map(len, jobs), default=0)
    return [own[index] for index in range(longest) for own in jobs if index < len(own)]


def expected_run_s(
    table: TimingTable, jobs: Sequence[Sequence[Job]], k: int, limit: int | None = None, seed: int = 0
) -> float:
    """The expected seconds of a run in which `k` random samples of every problem are in flight, issued in waves.

    The mean over `DRAWS` seeded draws of subsets, of which one is enough where k is all of them.
    """
    rng = random.Random(f"{seed}/{k}")
    draws = 1 if all(len(own) <= k for own in jobs) else DRAWS
    times = []
    for _ in range(draws):
        drawn = [own if len(own) <= k else rng.sample(list(own), k) for own in jobs]
        times.append(finish_times(table, waves(drawn), limit).max(initial=0.0))
    return float(np.mean(times))


def generation_s(table: TimingTable, batch: int, prompt: int, generated: int, start: int | None = None) -> float:
    """Seconds of `batch` samples of one prompt, `generated` tokens each, the first pass at `start` or the prompt."""
    return table.prefill_s(batch, prompt) + table.decode_s(batch, prompt if start is None else start, generated - 1)


def conversion_s(table: TimingTable, samples: int, longest: int, prompt: int, generated: int) -> float:
    """M1's conversion: `samples` times the longest length over the best throughput of any measured batch.

    Throughput is that of `generated` tokens after `prompt` in batches of that size. It charges one sample at the rate
    of a full device and every sample the longest length: for replication of that paper's figures only.
    """
    batches = sorted({cell.batch for cell in table.cells if cell.phase == "decode"})
    best = max(batch * generated / generation_s(table, batch, prompt, generated) for batch in batches)
    return samples * longest / best
