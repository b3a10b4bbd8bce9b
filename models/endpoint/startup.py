"""Is there a server, does it take the key, has it the model, which fields does it take? Asked before a run begins."""

import asyncio
from dataclasses import replace
from typing import Any

import openai

from harness.budgets import Deadline
from harness.errors import UserError
from harness.nouns import Request, Sampling

from .answers import Reader
from .failures import Failure, judge
from .fields import OPTIONAL, Taken, body_of, wished
from .settings import NO_KEY, Settings, shown
from .streams import open_stream

BUSY = (429, 503)
"""Statuses of a server that is there and not ready, such as one that loads its model."""
REFUSED = (400, 422)


async def look_around(client: openai.AsyncOpenAI, settings: Settings) -> list[str]:
    """The models that the server says it has, none when it does not say.

    Raises UserError when nothing answers, when it speaks something else, or when it does not take the key.
    """
    try:
        found: Any = await asyncio.wait_for(client.get("/models", cast_to=object), settings.stall_s)
    except TimeoutError:
        raise UserError(f"the server at {settings.base_url} says nothing; {MEND}") from None
    except Exception as error:
        failure = judge(error, settings)
        if failure.status is None:
            raise UserError(f"no server answers at {settings.base_url}: {failure.sentence}; {MEND}") from None
        check_key(failure, settings)
        return []
    listed = found.get("data") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise UserError(
            f"what answers at {settings.base_url} does not speak OpenAI's protocol; the address usually ends in /v1"
        )
    return [str(each["id"]) for each in listed if isinstance(each, dict) and "id" in each]


MEND = "start one (for example `vllm serve MODEL`) or give another --base-url"


def check_key(failure: Failure, settings: Settings) -> None:
    """Raises UserError when the server wants another key."""
    if failure.status in (401, 403):
        state = "is not set" if settings.key == NO_KEY else "holds another"
        raise UserError(
            f"the server at {settings.base_url} wants a key and {settings.key_variable} {state}: {failure.sentence}; "
            f"put the key into that variable, or name another with -M key_variable=NAME"
        )


async def find_fields(client: openai.AsyncOpenAI, settings: Settings, served: list[str]) -> Taken:
    """Ask for two tokens with every field, and without those that the server refuses until it answers.

    Raises UserError when it does not answer, or gives fewer samples to a request than were asked for.
    """
    taken = wished(settings)
    for _ in range(len(OPTIONAL) + settings.max_retries + 2):
        reader = Reader(trial(settings), settings.protocol == "chat")
        try:
            await asyncio.wait_for(read(client, settings, taken, reader), settings.stall_s)
        except TimeoutError:
            raise UserError(
                f"the server at {settings.base_url} did not answer within {settings.stall_s:g} s; {MEND}"
            ) from None
        except Exception as error:
            failure = judge(error, settings)
            taken = await mended(taken, failure, settings, served)
            continue
        return answered(taken, reader, settings)
    raise UserError(f"the server at {settings.base_url} stays busy; try again later")


def trial(settings: Settings) -> list[Request]:
    """A request for two tokens of each of as many samples as one request is to have, two at most.

    After the first of two tokens it shows whether the server counts them as they come.
    """
    sampling = Sampling(temperature=1.0, max_tokens=2)
    return [Request("trial", index, "1 + 1 =", sampling) for index in range(min(2, settings.samples_per_request))]


async def read(client: openai.AsyncOpenAI, settings: Settings, taken: Taken, reader: Reader) -> None:
    """One request and its whole answer."""
    async with await open_stream(client, settings, body_of(settings, taken, trial(settings))) as stream:
        clock = Deadline(None)
        async for chunk in stream:
            reader.take(chunk, clock.elapsed_s)


async def mended(taken: Taken, failure: Failure, settings: Settings, served: list[str]) -> Taken:
    """What to try next after a failure. Raises UserError when nothing is left to try."""
    check_key(failure, settings)
    if failure.status in BUSY and (failure.wait_s or 0.0) <= settings.longest_wait_s:
        await asyncio.sleep(failure.wait_s if failure.wait_s is not None else 1.0)
        return taken
    said = failure.sentence.lower()
    if failure.status in REFUSED:
        if "max_completion_tokens" in said and taken.limit == "max_tokens":
            return replace(taken, limit="max_completion_tokens")
        named = [name for name in OPTIONAL if name in taken.fields and name in said]
        # A server that only says "logprobs" may mean a number of them that no field of ours asks for.
        left = named or [name for name in OPTIONAL if name in taken.fields]
        if left:
            gone = {left[0], *({"continuous_usage_stats"} if left[0] == "stream_options" else ())}
            return replace(taken, fields=taken.fields - gone)
    there = f" (it has {shown(served)})" if served and settings.model not in served else ""
    raise UserError(
        f"the server at {settings.base_url} does not run '{settings.model}'{there}: {failure.sentence}; "
        "-M served_model=NAME says what it calls the model"
    )


def answered(taken: Taken, reader: Reader, settings: Settings) -> Taken:
    """Check a trial's answer. Raises UserError when it is none."""
    if not reader.chunks or not any(answer.finish or answer.chunks for answer in reader.answers):
        raise UserError(
            f"the server at {settings.base_url} answers '{settings.model}' with an empty stream; it must be able to "
            "stream"
        )
    lost = [index for index, answer in enumerate(reader.answers) if not (answer.finish or answer.chunks)]
    if lost:
        raise UserError(
            f"the server at {settings.base_url} gives one sample to a request whatever is asked for; leave out "
            f"samples_per_request={settings.samples_per_request}"
        )
    return replace(taken, counts=reader.counts)
