"""What has come of one request: the text, tokens and times of each of its samples, chunk by chunk.

A token is counted by the server's own log-probability entry for it; of a request for one sample the server's usage
counts it where there is none; else a chunk that brings text counts as one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.nouns import FinishReason, Request

from .failures import Nonsense

FINISHES: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
THOUGHTS = ("reasoning_content", "reasoning")
"""Where servers put what they take for the reasoning part of an answer."""


@dataclass(slots=True)
class Answer:
    """One sample as far as it has come. `entries` are the tokens the server listed, `chunks` those that brought text.

    Times are seconds on the scope's clock.
    """

    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    entries: int = 0
    chunks: int = 0
    logprob: float = 0.0
    finish: str | None = None
    first_s: float | None = None
    last_s: float = 0.0
    told: int | None = None
    """Tokens by the server's usage, where it tells of this sample alone."""

    @property
    def tokens(self) -> int:
        """The best count there is."""
        return self.told or self.entries or self.chunks

    @property
    def whole_text(self) -> str:
        """The text, with the reasoning that the server split off put back where the model wrote it."""
        thoughts, text = "".join(self.thoughts), "".join(self.text)
        return f"<think>{thoughts}</think>{text}" if thoughts else text

    def add(self, text: str, thoughts: str, logprobs: Sequence[float], now: float) -> int:
        """Take a chunk in; returns how many tokens more there are."""
        before = self.tokens
        if text or thoughts or logprobs:
            self.first_s = now if self.first_s is None else self.first_s
            self.last_s = now
            self.chunks += 1
            self.text += [text] if text else []
            self.thoughts += [thoughts] if thoughts else []
            self.entries += len(logprobs)
            self.logprob += math.fsum(logprobs)
        return self.tokens - before


@dataclass(slots=True)
class Usage:
    """Tokens as the server counted them, over all samples of a request; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Reader:
    """Reads the chunks of one request into its answers; raises Nonsense on what cannot be one.

    `counts` says that the server has told a sample's tokens before its end, as vLLM does when asked to.
    """

    def __init__(self, requests: Sequence[Request], chat: bool) -> None:
        self.answers = [Answer() for _ in requests]
        self.longest = 2 * requests[0].sampling.max_tokens + 64
        self.chat = chat
        self.usage = Usage()
        self.chunks = 0
        self.counts = False

    def take(self, chunk: Any, now: float) -> tuple[int, list[int]]:
        """Take one chunk in; returns how many tokens came with it, and which answers ended."""
        if not isinstance(chunk, dict):
            raise Nonsense("the server answered with a chunk that is no object")
        self.chunks += 1
        came, ended = 0, []
        for choice in chunk.get("choices") or ():
            if not isinstance(choice, dict):
                raise Nonsense(f"the server answered with a choice that is no object ({choice!r:.20})")
            came += self.take_choice(choice, now)
            if choice.get("finish_reason"):
                ended.append(choice["index"])
        return came + self.take_usage(chunk.get("usage")), ended

    def take_choice(self, choice: Mapping[str, Any], now: float) -> int:
        """One sample's part of a chunk."""
        index = choice.get("index")
        if not isinstance(index, int) or not 0 <= index < len(self.answers):
            raise Nonsense(f"the server answered with a choice number {index!r:.20} that was not asked for")
        answer = self.answers[index]
        said = (choice.get("delta") or {}) if self.chat else choice
        if not isinstance(said, dict):
            raise Nonsense(f"the server answered with a delta that is no object ({said!r:.20})")
        text = said.get("content" if self.chat else "text") or ""
        thoughts = next((part for name in THOUGHTS if (part := said.get(name))), "")
        if not isinstance(text, str) or not isinstance(thoughts, str):
            raise Nonsense("the server answered with a text that is none")
        came = answer.add(text, thoughts, logprobs_of(choice, self.chat), now)
        if finish := choice.get("finish_reason"):
            answer.finish = str(finish)
            answer.last_s = now
        if max(answer.tokens, answer.chunks) > self.longest:
            raise Nonsense("the server went on far past max_tokens")
        return came

    def take_usage(self, usage: Any) -> int:
        """The server's own counts so far; of one sample they replace ours."""
        if not isinstance(usage, dict):
            return 0
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        prompt, completion = (n if isinstance(n, int) and 0 <= n < 2**31 else None for n in counts)
        self.usage = Usage(prompt or self.usage.prompt_tokens, completion or self.usage.completion_tokens)
        if len(self.answers) > 1 or not completion:
            return 0
        self.counts |= self.answers[0].finish is None
        before, self.answers[0].told = self.answers[0].tokens, completion
        return completion - before


def logprobs_of(choice: Mapping[str, Any], chat: bool) -> list[float]:
    """The log-probabilities of a chunk's tokens, none where the server gives none."""
    given = choice.get("logprobs")
    if given is None:
        return []
    if chat:
        return [float(entry["logprob"]) for entry in given.get("content") or ()]
    # The first token of an echoed prompt has none.
    return [float(value or 0.0) for value in given.get("token_logprobs") or ()]


def reason_of(answer: Answer) -> tuple[FinishReason, str | None]:
    """How a sample ended whose stream ended, and the sentence where that is no end of an answer."""
    if answer.finish in FINISHES:
        return FINISHES[answer.finish], None
    if answer.finish is None:
        return "error", "the server's stream ended before the completion did"
    return "error", f"the server ended the completion for another reason ({answer.finish[:40]})"
