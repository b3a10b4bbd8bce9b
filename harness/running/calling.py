"""Calls of a model as what they are, a stranger's: what it yields is checked, what it raises is a Fault.

A call that raises costs the requests that it alone can be blamed for, each a row `error` with the sentence, and the run
goes on with the next. It bears three such calls, or one in ten of its problems if that is more; more, or three in a row
without a completion between them, end it.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import get_args

from harness.budgets import Deadline
from harness.faults import Fault, boundary
from harness.nouns import Completion, FinishReason, Model, Request
from harness.running.scopes import Awaited, Requests, Scope
from harness.running.watchdog import Watchdog

BORNE_CALLS = 3
"""Calls that may raise in any run."""
BORNE_SHARE = 0.1
"""Calls that may raise, as a share of the problems of a run in the latency protocol."""
IN_A_ROW = 3
"""Calls that raise one after the other, with no completion in between, which end the run."""
REASONS = frozenset(get_args(FinishReason))


class Patience:
    """What a sitting bears of its model: how many calls may still raise, and how long one may take.

    `scopes` is how many the sitting has; without a watchdog a call may take for ever.
    """

    def __init__(self, scopes: int, watchdog: Watchdog | None = None) -> None:
        self.borne = max(BORNE_CALLS, int(BORNE_SHARE * scopes))
        self.raised = self.in_a_row = 0
        self.watchdog = watchdog

    def watching(self, scope: Scope, deadline: Deadline) -> AbstractContextManager[object]:
        """Have the watchdog look at a scope while it lasts."""
        return nullcontext() if self.watchdog is None else self.watchdog.watch(scope.problem_id, deadline)

    def answered(self) -> None:
        """The model gave a completion."""
        self.in_a_row = 0
        if self.watchdog is not None:
            self.watchdog.alive()

    def bear(self, fault: Fault) -> None:
        """A call raised. Raises Fault when it was one too many; whole completions are stored by then."""
        self.raised += 1
        self.in_a_row += 1
        if self.in_a_row >= IN_A_ROW or self.raised > self.borne:
            count = f"{self.in_a_row} calls in a row" if self.in_a_row >= IN_A_ROW else f"{self.raised} calls"
            raise Fault(
                f"{fault}; {count} have failed so and the run stops: what was finished is stored, mend the model and "
                "type the same command to go on"
            ) from fault


def answers(model: Model, requests: Sequence[Request], deadline: Deadline, awaited: Awaited) -> Iterator[Completion]:
    """What a model yields for these requests, each crossed off `awaited`.

    Raises Fault for an exception of the model, a completion that was not asked for or comes twice, and anything that is
    no completion; a UserError of the model passes.
    """
    with boundary(f"model {model.name}"):
        for completion in model.generate(requests, deadline):
            check(completion)
            if not awaited.answered(completion.problem_id, completion.sample_index):
                key = (completion.problem_id, completion.sample_index)
                raise ValueError(f"it returned a completion that was not asked for, or twice: {key}")
            yield completion


def check(completion: Completion) -> None:
    """Raises TypeError or ValueError on what cannot be stored as a completion."""
    if not isinstance(completion, Completion):
        raise TypeError(f"it yielded {completion!r:.60}, not a Completion")
    if not isinstance(completion.text, str) or completion.finish_reason not in REASONS:
        raise ValueError(f"it yielded a completion with the text {completion.text!r:.40} and the finish_reason "
                         f"{completion.finish_reason!r:.40}; {', '.join(sorted(REASONS))} exist")  # fmt: skip
    if not (0 <= completion.prompt_tokens < 2**31 and 0 <= completion.completion_tokens < 2**31):
        raise ValueError(
            f"it yielded a completion of {completion.prompt_tokens} and {completion.completion_tokens} tokens"
        )
    # Not a number in one of these is a TypeError here rather than when a whole part is stored.
    math.fsum((
        completion.submitted_s, completion.started_s, completion.first_token_s or 0.0, completion.finished_s,
        completion.batch_size, completion.prefill_flops, completion.decode_flops, completion.logprob or 0.0,
    ))  # fmt: skip


def every_answer(
    model: Model, scope: Scope, deadline: Deadline, awaited: Awaited, patience: Patience
) -> Iterator[Completion]:
    """A scope's completions, and a row for each request that a call's exception struck; the others are asked again.

    Raises Fault when patience is at its end, and the model's UserError.
    """
    requests = scope.requests
    while len(requests):
        began_s, trouble = deadline.elapsed_s, None
        try:
            for completion in answers(model, requests, deadline, awaited):
                patience.answered()
                yield completion
        except Fault as fault:
            trouble = fault
        if trouble is None:
            return
        left = unanswered(requests, awaited)
        lost = struck(scope, left)
        for request in lost:
            awaited.answered(request.problem_id, request.sample_index)
            yield error_row(request, trouble, began_s, deadline.elapsed_s)
        patience.bear(trouble)
        requests = left[len(lost) :]


def struck(scope: Scope, left: Sequence[Request]) -> Sequence[Request]:
    """The requests that a call which raised costs: a problem's all, of a whole run's the first that is unanswered.

    Which of a run's rows brought the engine down cannot be told from outside; one is given up, so that the same failure
    cannot come back for ever, and the others are asked for again.
    """
    return left if scope.problem_id is not None else left[:1]


def unanswered(requests: Sequence[Request], awaited: Awaited) -> Sequence[Request]:
    """Those of the requests that have no answer yet, in their order."""
    import numpy as np

    waiting = np.fromiter((awaited.waits_for(request) for request in requests), bool, len(requests))
    if isinstance(requests, Requests):
        return Requests(requests.problems, requests.places[waiting], requests.sampling)
    return [request for request, waits in zip(requests, waiting, strict=True) if waits]


def error_row(request: Request, fault: Fault, began_s: float, now: float) -> Completion:
    """The row of a request that a call's exception struck: no text, and the sentence."""
    return Completion(
        problem_id=request.problem_id,
        sample_index=request.sample_index,
        text="",
        finish_reason="error",
        prompt_tokens=0,
        completion_tokens=0,
        seed=request.seed,
        submitted_s=began_s,
        started_s=began_s,
        first_token_s=None,
        finished_s=now,
        batch_size=math.nan,
        error=str(fault),
    )
