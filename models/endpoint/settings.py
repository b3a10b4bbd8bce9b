"""What the user set: checked, with the key kept apart so that nothing that is stored or printed can hold it."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from harness.errors import UserError, choices

Protocol = Literal["chat", "completions"]
PROTOCOLS = ("chat", "completions")
OURS = {"model", "messages", "prompt", "stream", "stream_options", "n", "seed", "temperature", "top_p", "top_k", "stop",
        "max_tokens", "max_completion_tokens", "logprobs"}  # fmt: skip
"""Fields of a request that nobody else may set."""
NO_KEY = "none"
"""What is sent where no key is set: servers of one's own ask for none, and the client insists on some."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to speak to the server. `tokenizer` turns prompts into token ids for the completions protocol, or is None."""

    model: str
    base_url: str
    protocol: Protocol
    max_concurrency: int
    samples_per_request: int
    logprobs: bool
    stall_s: float
    max_retries: int
    longest_wait_s: float
    key_variable: str
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_name: str = ""
    key: str = field(default=NO_KEY, repr=False)
    tokenizer: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what means nothing. Raises UserError."""
        check_url(self.base_url)
        if self.protocol not in PROTOCOLS:
            raise UserError(f"there is no protocol '{self.protocol}'; write one of {choices(list(PROTOCOLS))}")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable):
            raise UserError(
                "key_variable wants the name of an environment variable that holds the key, for example OPENAI_API_KEY"
            )
        for name, value, least in (
            ("max_concurrency", self.max_concurrency, 1),
            ("samples_per_request", self.samples_per_request, 1),
            ("max_retries", self.max_retries, 0),
            ("longest_wait_s", self.longest_wait_s, 0),
        ):
            if not least <= value < float("inf"):
                raise UserError(f"{name} must be at least {least}, got {value}")
        if not 0 < self.stall_s < float("inf"):
            raise UserError(f"stall_s must be above 0, got {self.stall_s:g}; write for example 120")
        for name in OURS & set(self.extra_body):
            raise UserError(f"extra_body must not hold {name}, which the command line or the engine sets")
        if self.tokenizer_name and self.protocol != "completions":
            raise UserError(
                "the option tokenizer goes with protocol=completions; in the chat protocol the server renders prompts"
            )

    def hide(self, text: str) -> str:
        """The text without the key."""
        return text if self.key == NO_KEY else text.replace(self.key, "[key]")


def check_url(url: str) -> None:
    """Raises UserError on what is no address, or holds a secret; the sentence does not repeat a secret."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise UserError(f"base_url '{url}' is no address; write for example http://localhost:8000/v1") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            "base_url must hold no user, password, query or fragment, because it is recorded; put the key into the "
            "environment variable that key_variable names"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise UserError(f"base_url '{url}' is no address; write for example http://localhost:8000/v1")


def read_body(text: str) -> dict[str, Any]:
    """More fields for the body of every request. Raises UserError when they are no JSON object."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"extra_body wants a JSON object, got '{text:.60}'; write for example '{{\"min_tokens\": 8}}'")
    return found


def read_key(variable: str) -> str:
    """The key in the environment, or what stands for none."""
    return os.environ.get(variable, "").strip() or NO_KEY


def shown(names: Sequence[str], most: int = 8) -> str:
    """Some names for a sentence, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return choices(list(names)[:most]) + more
