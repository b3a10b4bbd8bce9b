"""The body of a request: what every server takes, and what a server may refuse.

Values that mean "off" are sent too, because servers have defaults of their own: vLLM those of the checkpoint's
generation_config.json, llama.cpp a top_k of 40 and a min_p of 0.05.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError
from harness.models.text import encode, plain
from harness.nouns import Prompt, Request, Sampling

from .settings import Settings

OPTIONAL = (
    "continuous_usage_stats",
    "repetition_penalty",
    "min_p",
    "top_k",
    "logprobs",
    "stream_options",
    "seed",
    "top_p",
    "temperature",
)
"""In the order in which they are given up when a server does not say which it minds."""
SEED_MASK = 0x7FFFFFFF
"""Servers read the seed as 32, 53 or 64 bits, signed or not; these all of them read alike."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Which fields the server takes, what it calls the longest completion, whether it counts tokens as they come."""

    fields: frozenset[str]
    limit: str = "max_tokens"
    counts: bool = False

    def check(self, sampling: Sampling, protocol: str) -> None:
        """Raises UserError when a completion cannot be drawn as asked."""
        for name, off, value in (("temperature", 1.0, sampling.temperature), ("top_p", 1.0, sampling.top_p),
                                 ("top_k", 0, sampling.top_k)):  # fmt: skip
            if value != off and name not in self.fields:
                raise UserError(
                    f"the server takes no {name} in the {protocol} protocol, so {value:g} cannot be kept; add "
                    f"--{name.replace('_', '-')} {off:g} or use another server"
                )


def wished(settings: Settings) -> Taken:
    """What is asked of a server that has not refused anything yet."""
    return Taken(frozenset(OPTIONAL) - (set() if settings.logprobs else {"logprobs"}))


def has_logprob(sampling: Sampling) -> bool:
    """Whether a server's log-probabilities, which are the model's, are those of the distribution that is sampled."""
    return (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 1.0, 0)


def body_of(settings: Settings, taken: Taken, requests: Sequence[Request]) -> dict[str, Any]:
    """The JSON of one request for the samples of one problem."""
    sampling = requests[0].sampling
    chat = settings.protocol == "chat"
    values: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": requests[0].seed & SEED_MASK,
        "logprobs": True if chat else 1,
        "stream_options": {"include_usage": True}
        | ({"continuous_usage_stats": True} if "continuous_usage_stats" in taken.fields else {}),
    }
    if taken.counts and not has_logprob(sampling):  # two fifths of what a token costs vLLM's front end
        del values["logprobs"]
    return (
        {"model": settings.model, "stream": True, taken.limit: sampling.max_tokens}
        | ({"messages": messages_of(requests[0].prompt)} if chat else {"prompt": text_of(settings, requests[0].prompt)})
        | {name: value for name, value in values.items() if name in taken.fields}
        | ({"stop": list(sampling.stop)} if sampling.stop else {})
        | ({"n": len(requests)} if len(requests) > 1 else {})
        | dict(settings.extra_body)
    )


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    """Chat messages; plain text is one turn of the user's."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": message.role, "content": message.content} for message in prompt]


def text_of(settings: Settings, prompt: Prompt) -> str | list[int]:
    """What the completions protocol sends: token ids where a tokenizer was named, else text.

    Ids keep the server from adding a second begin-of-text token to a chat template that has written one.
    """
    if settings.tokenizer is not None:
        return list(encode(settings.tokenizer, prompt))
    return prompt if isinstance(prompt, str) else plain(prompt)
