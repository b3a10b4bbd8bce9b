"""What is still to be asked of a model: the scopes of a run, their requests and what earlier sittings used up.

Nothing here is kept per completion but a byte and a number in an array, for a run may have millions of them.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

from harness.budgets import Budget, Clock, Deadline
from harness.nouns import Problem, Request, Sampling

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True, slots=True, eq=False)
class Requests(Sequence[Request]):
    """Requests that come into being when they are looked at: sample `place // n` of problem `place % n` of n."""

    problems: Sequence[Problem]
    places: "np.ndarray"
    sampling: Sampling

    def __len__(self) -> int:
        return len(self.places)

    def request(self, place: int) -> Request:
        """The request of one place."""
        index, number = divmod(place, len(self.problems))
        problem = self.problems[number]
        return Request(problem.id, index, problem.prompt, self.sampling)

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> "Requests": ...
    def __getitem__(self, index: int | slice) -> "Request | Requests":
        if isinstance(index, slice):
            return Requests(self.problems, self.places[index], self.sampling)
        return self.request(int(self.places[index]))

    def __iter__(self) -> Iterator[Request]:
        for start in range(0, len(self.places), 4096):
            yield from map(self.request, self.places[start : start + 4096].tolist())


@dataclass(frozen=True, slots=True)
class Scope:
    """What one deadline covers: the requests still to make, and what earlier sittings used of the budget.

    Of a scope that is not `fresh` some completions are stored already.
    """

    problem_id: str | None
    requests: Sequence[Request]
    used_s: float = 0.0
    used_flops: float = 0.0
    used_tokens: int = 0
    fresh: bool = True

    def start(self, budget: Budget | None, clock: Clock) -> Deadline:
        """Start the scope's clock where the earlier sittings left it."""
        deadline = Deadline(budget, clock, self.used_s)
        deadline.charge(flops=self.used_flops, tokens=self.used_tokens)
        return deadline


class Awaited:
    """Which of a scope's requests have not been answered: a byte for each."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.flags: dict[str, bytearray] = {}
        for request in requests:
            flags = self.flags.setdefault(request.problem_id, bytearray())
            if len(flags) <= request.sample_index:
                flags.extend(bytes(request.sample_index + 1 - len(flags)))
            flags[request.sample_index] = 1

    def waits_for(self, request: Request) -> bool:
        """Whether a request of the scope has not been crossed off."""
        return bool(self.flags[request.problem_id][request.sample_index])

    def answered(self, problem_id: str, sample_index: int) -> bool:
        """Cross a request off; False when it was not asked for, or is crossed off already."""
        flags = self.flags.get(problem_id)
        if flags is None or not 0 <= sample_index < len(flags) or not flags[sample_index]:
            return False
        flags[sample_index] = 0
        return True


@dataclass(slots=True)
class Tally:
    """What is stored of a run, by problem in task order.

    `done` (problems, samples) says which completions there are; `finished_s` is when the last of a problem's finished,
    `flops` and `tokens` are what they cost, `is_cut` whether the deadline cut one; `reasons` counts all of them.
    """

    problem_ids: Sequence[str]
    done: "np.ndarray"
    finished_s: "np.ndarray"
    flops: "np.ndarray"
    tokens: "np.ndarray"
    is_cut: "np.ndarray"
    reasons: Counter[str] = field(default_factory=Counter)

    @classmethod
    def empty(cls, problem_ids: Sequence[str], samples: int) -> "Tally":
        """Nothing is stored yet."""
        import numpy as np

        n = len(problem_ids)
        done, tokens = np.zeros((n, samples), bool), np.zeros(n, np.int64)
        return cls(problem_ids, done, np.zeros(n), np.zeros(n), tokens, np.zeros(n, bool))

    def add(self, part: "pa.Table") -> None:
        """Take a part in; `STORED_COLUMNS` are needed. Of two rows for one completion the first counts."""
        import numpy as np
        import pyarrow as pa

        problems, samples = self.places(part)
        keep = (problems >= 0) & (samples >= 0) & (samples < self.done.shape[1])
        keys = np.where(keep, problems * self.done.shape[1] + samples, -1)
        first = np.zeros(len(keys), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        keep &= first
        keep[keep] = ~self.done[problems[keep], samples[keep]]
        rows = part.filter(pa.array(keep))
        problems, samples = problems[keep], samples[keep]
        self.done[problems, samples] = True
        columns = {name: rows[name].to_numpy() for name in STORED_COLUMNS[3:]}
        np.maximum.at(self.finished_s, problems, columns["finished_s"])
        np.add.at(self.flops, problems, columns["prefill_flops"] + columns["decode_flops"])
        np.add.at(self.tokens, problems, columns["completion_tokens"])
        # Where a strategy counted what it spent, that is the whole and not a part of it.
        np.maximum.at(self.flops, problems, np.nan_to_num(columns["spent_flops"]))
        np.maximum.at(self.tokens, problems, np.nan_to_num(columns["spent_tokens"]).astype(np.int64))
        counts = rows["finish_reason"].value_counts().to_pylist()
        self.reasons.update({each["values"]: each["counts"] for each in counts})
        self.is_cut[problems[rows["finish_reason"].to_numpy(zero_copy_only=False) == "deadline"]] = True

    def places(self, part: "pa.Table") -> tuple["np.ndarray", "np.ndarray"]:
        """The problem's number, -1 for one that the task has not, and the sample index of every row of a part."""
        import numpy as np

        order = {name: number for number, name in enumerate(self.problem_ids)}
        encoded = part["problem_id"].combine_chunks().dictionary_encode()
        numbers = np.array([order.get(name, -1) for name in encoded.dictionary.to_pylist()], np.int64)
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        samples = part["sample_index"].to_numpy().astype(np.int64)
        return numbers[codes] if len(codes) else np.zeros(0, np.int64), samples


STORED_COLUMNS = (
    "problem_id",
    "sample_index",
    "finish_reason",
    "finished_s",
    "completion_tokens",
    "prefill_flops",
    "decode_flops",
    "spent_flops",
    "spent_tokens",
)
"""The columns of completions that a tally reads."""


def plan(
    problems: Sequence[Problem], samples: int, sampling: Sampling, protocol: str, stored: Tally | None = None,
    ended: Collection[str | None] = (), owing: Collection[str | None] = (),
) -> list[Scope]:  # fmt: skip
    """The scopes that are left to run, given the completions already stored and the scopes whose budget is used up.

    A scope in which a row was cut by the deadline has used its budget too. Any other's missing samples are asked for on
    a clock that starts where the stored ones ended, so that the outage is not charged and no budget is given twice.
    A scope in `owing` is left too when all its samples are there: with no requests, for its completions are not all
    scored. `ended` and `owing` hold problem ids, or None for the scope of a whole run.
    """
    import numpy as np

    tally = stored or Tally.empty([problem.id for problem in problems], samples)
    if protocol == "throughput":
        # Sample by sample, and within a sample problem by problem.
        waves = Requests(problems, np.flatnonzero(~tally.done.T), sampling)
        over = None in ended or bool(tally.is_cut.any())
        used = float(tally.finished_s.max(initial=0.0)), float(tally.flops.sum()), int(tally.tokens.sum())
        done = not len(waves) and None not in owing
        return [] if over or done else [Scope(None, waves, *used, fresh=not tally.done.any())]
    scopes = []
    owes = np.array([problem.id in owing for problem in problems], bool)
    for number in np.flatnonzero(~tally.is_cut & (~tally.done.all(axis=1) | owes)).tolist():
        problem = problems[number]
        if problem.id not in ended:
            wanted = Requests([problem], np.flatnonzero(~tally.done[number]), sampling)
            used = float(tally.finished_s[number]), float(tally.flops[number]), int(tally.tokens[number])
            scopes.append(Scope(problem.id, wanted, *used, fresh=not tally.done[number].any()))
    return scopes
