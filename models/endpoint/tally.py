"""What has happened since the client started: for the facts, for rate limits, for a server that is gone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .answers import Answer, Reader
from .failures import Failure


@dataclass(slots=True)
class Tally:
    """Counts over all requests, and what requests tell each other."""

    requests: int = 0
    retries: int = 0
    retry_wait_s: float = 0.0
    """What failed attempts and the waits after them took, summed over requests."""
    rate_limited: int = 0
    failed: int = 0
    failed_in_a_row: int = 0
    hold_until_s: float = 0.0
    """By the event loop's clock: before then no attempt begins, because the server asked for it."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    answers_without_usage: int = 0
    counted_by: dict[str, int] = field(default_factory=dict)
    prompts: dict[str, int] = field(default_factory=dict)
    """Tokens of a problem's prompt, once the server has told them."""
    latest: dict[str, int] = field(default_factory=dict)
    """The hash of the latest whole text of each problem."""
    pairs: int = 0
    equal_pairs: int = 0
    """Whole texts that came after another of their problem, and those of them that are the same text."""
    last_error: str | None = None
    fingerprint: str | None = None
    answering_model: str | None = None

    def note(self, failure: Failure) -> None:
        """An attempt failed."""
        self.last_error = failure.sentence
        self.rate_limited += failure.status == 429

    def see(self, chunk: Mapping[str, Any]) -> None:
        """What a chunk says of the server."""
        for name, key in (("fingerprint", "system_fingerprint"), ("answering_model", "model")):
            said = chunk.get(key)
            if isinstance(said, str) and said:
                setattr(self, name, said[:100])

    def add(self, reader: Reader, waited_s: float, problem_id: str, failed: bool) -> None:
        """A request has ended, well or not."""
        self.requests += 1
        self.retry_wait_s += waited_s
        self.failed += failed
        self.failed_in_a_row = self.failed_in_a_row + 1 if failed else 0
        usage = reader.usage
        if usage.prompt_tokens is not None:
            self.prompts[problem_id] = usage.prompt_tokens
        if usage.completion_tokens is None:
            self.answers_without_usage += 1
        self.prompt_tokens += usage.prompt_tokens or 0
        self.completion_tokens += usage.completion_tokens or 0
        for answer in reader.answers:
            if answer.finish is not None:
                self.compare(problem_id, hash(answer.whole_text))
            way = way_of(answer)
            if way:
                self.counted_by[way] = self.counted_by.get(way, 0) + 1

    def compare(self, problem_id: str, text: int) -> None:
        """Is it the text that came before? A server that always says the same does not sample as it was asked to."""
        if problem_id in self.latest:
            self.pairs += 1
            self.equal_pairs += self.latest[problem_id] == text
        self.latest[problem_id] = text


def way_of(answer: Answer) -> str:
    """How the tokens of an answer were counted."""
    if answer.told:
        return "usage"
    if answer.entries:
        return "log-probabilities"
    return "chunks" if answer.chunks else ""


class Load:
    """Rows in flight, summed up over time."""

    def __init__(self) -> None:
        self.rows, self.area, self.at_s = 0, 0.0, 0.0

    def change(self, by: int, now: float) -> float:
        """So many rows more or fewer from now on; returns row-seconds so far."""
        self.area += self.rows * max(0.0, now - self.at_s)
        self.at_s = now
        self.rows += by
        return self.area
