"""One request on its way through an engine of ours, and the completions that it can become without being generated."""

from dataclasses import dataclass
from typing import Any

from harness.budgets import Deadline
from harness.nouns import Completion, Request


@dataclass(slots=True, eq=False)
class Row:
    """A request with its token ids; the times are set as it moves on."""

    request: Request
    prompt_ids: tuple[int, ...]
    limit: int
    """Tokens it may generate: its own maximum, or what the model's context leaves; below 1 it cannot be served."""
    submitted_s: float
    started_s: float = 0.0
    first_token_s: float | None = None
    prefill_flops: float = 0.0
    room: int = 0
    """Tokens that its text may come to with what may go on from it."""
    fork: Any = None
    """A state that its prompt may go on from."""

    @property
    def seed(self) -> int:
        """Of its random stream; worked out when the row starts, for most rows of a long queue may never do."""
        return self.request.seed


def new_row(request: Request, prompt_ids: tuple[int, ...], context: int | None, submitted_s: float) -> Row:
    """A row that waits; `context` is the model's longest text in tokens, None where it has no limit."""
    room = context - len(prompt_ids) if context else request.sampling.max_tokens
    limit = min(request.sampling.max_tokens, room) if prompt_ids else 0
    return Row(request, prompt_ids, limit, submitted_s)


def identity(row: Row) -> dict[str, Any]:
    """The fields of a completion that its request fixes."""
    return {
        "problem_id": row.request.problem_id,
        "sample_index": row.request.sample_index,
        "seed": row.seed,
        "prompt_tokens": len(row.prompt_ids),
        "submitted_s": row.submitted_s,
    }


def failed(row: Row, error: str, deadline: Deadline) -> Completion:
    """A completion without text that says what went wrong."""
    now = deadline.elapsed_s
    return Completion(
        **identity(row),
        text="",
        finish_reason="error",
        error=error,
        completion_tokens=0,
        started_s=now,
        first_token_s=None,
        finished_s=now,
        batch_size=1.0,
    )


def refused(row: Row, context: int | None, deadline: Deadline) -> Completion:
    """A prompt that cannot be served, with the reason."""
    if not row.prompt_ids:
        return failed(row, "the prompt has no tokens", deadline)
    room = f"the prompt has {len(row.prompt_ids)} tokens and the model's context {context} has no room for it"
    return failed(row, room, deadline)
