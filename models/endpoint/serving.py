"""The model around a server: an event loop in a thread of its own, and rows handed over as they come."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import openai

from harness.budgets import Deadline
from harness.errors import UserError
from harness.models.text import plain, render
from harness.nouns import Completion, Facts, Prompt, Request

from .fields import OPTIONAL, Taken
from .flight import Flight
from .settings import Settings
from .startup import find_fields, look_around
from .streams import make_client
from .tally import Tally

T = TypeVar("T")


class Background:
    """An event loop that runs in a thread until it is closed."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="ttc-endpoint", daemon=True)
        self.thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Begin some work in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        """Stop the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def connect(settings: Settings) -> "Endpoint":
    """A warm client. Raises UserError when the server cannot be used."""
    background = Background()
    client = make_client(settings)
    try:
        served = background.start(look_around(client, settings)).result()
        taken = background.start(find_fields(client, settings, served)).result()
    except BaseException:
        background.start(client.close()).result()
        background.close()
        raise
    return Endpoint(settings, background, client, taken)


class Endpoint:
    """A `harness.nouns.Model` that lives behind an address."""

    def __init__(self, settings: Settings, background: Background, client: openai.AsyncOpenAI, taken: Taken) -> None:
        self.name = settings.model
        self.settings, self.background, self.client, self.taken = settings, background, client, taken
        self.tally = Tally()

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        """Yield each completion when it ends; see `harness.nouns.Model`.

        Raises UserError on a budget of FLOPs, which a server does not tell, and on sampling that it does not take.
        """
        if deadline.budget is not None and deadline.budget.unit == "flops":
            raise UserError("the engine openai knows no FLOPs; give the budget in seconds or tokens: 60s, 4096tok")
        for sampling in {request.sampling for request in requests}:
            self.taken.check(sampling, self.settings.protocol)
        flight = Flight(self.client, self.settings, self.taken, self.tally, requests, deadline)
        running, charged = self.background.start(flight.run()), 0
        try:
            while (row := flight.rows.get()) is not None:
                if isinstance(row, BaseException):
                    raise row
                came, charged = flight.tokens - charged, flight.tokens
                deadline.charge(tokens=came)
                yield row
            deadline.charge(tokens=flight.tokens - charged)
        finally:
            running.cancel()

    def render(self, prompt: Prompt) -> str:
        """The text the model reads as far as the client knows it: a server's chat template is the server's own."""
        if self.settings.tokenizer is not None:
            return render(self.settings.tokenizer, prompt)
        return prompt if isinstance(prompt, str) else plain(prompt)

    @property
    def facts(self) -> Facts:
        """What the manifest records: never the key."""
        settings, tally, taken = self.settings, self.tally, self.taken
        return {
            "engine": "openai",
            "engine_version": tally.fingerprint and settings.hide(tally.fingerprint),
            "client_version": openai.__version__,
            "clock": "the client's, with the network and the server's queue in it",
            "base_url": settings.base_url,
            "protocol": settings.protocol,
            "served_model": settings.model,
            "answering_model": tally.answering_model and settings.hide(tally.answering_model),
            "prompt_rendering": self.rendering,
            "key_variable": settings.key_variable,
            "max_concurrency": settings.max_concurrency,
            "samples_per_request": settings.samples_per_request,
            "extra_body": dict(settings.extra_body),
            "seeds": self.seeds,
            "refused_fields": [name for name in OPTIONAL if name not in taken.fields],
            "token_counts": dict(tally.counted_by),
            "repeated_texts": f"{tally.equal_pairs} of {tally.pairs}",
            "flops": "unknown, stored as 0",
            "requests": tally.requests,
            "retries": tally.retries,
            "retry_wait_s": tally.retry_wait_s,
            "rate_limited": tally.rate_limited,
            "failed_requests": tally.failed,
            "last_error": tally.last_error,
            "usage_prompt_tokens": tally.prompt_tokens,
            "usage_completion_tokens": tally.completion_tokens,
            "requests_without_usage": tally.answers_without_usage,
            "batching": "the server's own",
        }

    @property
    def seeds(self) -> str:
        """What becomes of the samples' seeds."""
        if "seed" not in self.taken.fields:
            return "the server takes none"
        if self.settings.samples_per_request > 1:
            return "of the first sample of each request, its low 31 bits; the server need not keep to them"
        return "each sample's own, its low 31 bits; the server need not keep to them"

    @property
    def rendering(self) -> str:
        """Who turns messages into the text that the model reads."""
        if self.settings.protocol == "chat":
            return "the server's chat template"
        return f"{self.settings.tokenizer_name}'s" if self.settings.tokenizer is not None else "plain text"

    def close(self) -> None:
        """Close the connections and end the thread."""
        self.background.start(self.client.close()).result()
        self.background.close()
