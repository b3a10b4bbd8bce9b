"""Requests for the tests of the engines, and what their completions are compared by."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from harness.budgets import Deadline
from harness.models.decode_graphs import WARM_UP_PASSES
from harness.nouns import Completion, Message, Model, Request, Sampling

SAMPLED = Sampling(temperature=1.0, top_k=5, max_tokens=24, seed=5)
"""Few candidates: where one text is drawn twice, the rounding of logits must not carry a variate over a boundary."""
GREEDY = Sampling(temperature=0, max_tokens=24)
PROMPTS = ["Add 2 and 3.", "What?", "A somewhat longer question, with words."]
CHAT = (Message("system", "Be brief."), Message("user", "1+1?"), Message("assistant", "2"), Message("user", "2+2?"))


def ask(prompts: Sequence[Any], samples: int = 1, sampling: Sampling = SAMPLED) -> list[Request]:
    """Some samples of every prompt, one prompt after the other."""
    return [
        Request(f"p{number}", sample, prompt, sampling)
        for number, prompt in enumerate(prompts)
        for sample in range(samples)
    ]


def run(engine: Model, requests: Sequence[Request], deadline: Deadline | None = None) -> list[Completion]:
    """All completions, in the order in which they are yielded."""
    return list(engine.generate(requests, deadline or Deadline(None, lambda: 0.0)))


def by_key(completions: Sequence[Completion]) -> dict[tuple[str, int], Completion]:
    """Completions by problem and sample, of which none may come twice."""
    found = {(completion.problem_id, completion.sample_index): completion for completion in completions}
    assert len(found) == len(completions)
    return found


def texts(completions: Sequence[Completion]) -> dict[tuple[str, int], tuple[Any, ...]]:
    """What of a completion may not depend on the company in which it was generated, its logprob aside."""
    return {
        key: (found.text, found.completion_tokens, found.finish_reason, found.seed)
        for key, found in by_key(completions).items()
    }


def warped(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Log-probabilities (rows, V) after the cuts of transformers' own generation."""
    ids = torch.zeros(len(logits), 1, dtype=torch.int64)
    logits = TemperatureLogitsWarper(sampling.temperature)(ids, logits)
    if sampling.top_k:
        logits = TopKLogitsWarper(sampling.top_k)(ids, logits)
    if sampling.top_p < 1:
        logits = TopPLogitsWarper(sampling.top_p)(ids, logits)
    return logits.double().log_softmax(-1)


class Recorder:
    """Stands in for recorded CUDA graphs: runs a function a few times first, as they do, and again when asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """Record a function."""
        self.count += 1
        for _ in range(WARM_UP_PASSES):
            function()
        return function
