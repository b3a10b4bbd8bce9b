"""One request for some samples of a problem: where it stands, and the completions it comes to."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.nouns import Completion, FinishReason, Request

from .answers import Answer, Reader, reason_of
from .fields import has_logprob

Cut = Literal["", "deadline", "stall"]


@dataclass(slots=True, eq=False)
class Ask:
    """Times are on the scope's clock; `waited_s` is what failed attempts and waits took before the present attempt."""

    requests: Sequence[Request]
    reader: Reader
    submitted_s: float
    began_s: float
    waited_s: float = 0.0
    took_off_s: float = 0.0
    heard_s: float = 0.0
    area: float = 0.0
    """Row-seconds of all requests when the present attempt began."""
    is_flying: bool = False
    cut: Cut = ""
    failure: str = ""
    given: set[int] = field(default_factory=set)
    task: "asyncio.Task[None] | None" = None

    def stop(self, why: Cut) -> None:
        """End it now, with what there is."""
        if not self.cut and self.task is not None:
            self.cut = why
            self.task.cancel()

    def ending(self, answer: Answer, stall_s: float) -> tuple[FinishReason, str | None]:
        """How a sample ended, and the sentence where it failed."""
        if answer.finish is not None:
            return reason_of(answer)
        if self.cut == "deadline":
            return "deadline", None
        if self.cut == "stall":
            return "error", f"the server sent nothing for {stall_s:g} s"
        return ("error", self.failure) if self.failure else reason_of(answer)

    def completion(self, index: int, now: float, mean_rows: float, prompt_tokens: int, stall_s: float) -> Completion:
        """The row of one sample; `now` is its end where the server told none."""
        answer, request = self.reader.answers[index], self.requests[index]
        reason, sentence = self.ending(answer, stall_s)
        return Completion(
            problem_id=request.problem_id,
            sample_index=request.sample_index,
            text=answer.whole_text,
            finish_reason=reason,
            error=sentence,
            prompt_tokens=prompt_tokens,
            completion_tokens=answer.tokens,
            seed=request.seed,
            submitted_s=self.submitted_s,
            started_s=self.began_s,
            first_token_s=answer.first_s,
            finished_s=answer.last_s if answer.finish is not None else now - self.waited_s,
            batch_size=mean_rows,
            logprob=answer.logprob if has_logprob(request.sampling) and answer.entries else None,
        )


def grouped(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    """Consecutive requests of one problem, at most `size` together."""
    for _, same in itertools.groupby(requests, key=lambda request: request.problem_id):
        while group := list(itertools.islice(same, size)):
            yield group
