"""The client of the `openai` package, and a stream of chunks from it."""

from typing import Any

import openai

from .settings import Settings

CONNECT_S = 10.0


def make_client(settings: Settings) -> openai.AsyncOpenAI:
    """A client that neither retries nor gives up by itself: `flight` does both, and counts."""
    return openai.AsyncOpenAI(
        api_key=settings.key,
        base_url=settings.base_url,
        max_retries=0,
        timeout=openai.Timeout(None, connect=CONNECT_S),
    )


async def open_stream(client: openai.AsyncOpenAI, settings: Settings, body: dict[str, Any]) -> Any:
    """Send a request; what comes back is an asynchronous context and iterator of chunks."""
    # As extra_body, because the client's own signature knows neither every field nor every form of them.
    rest = {name: value for name, value in body.items() if name not in ("model", "messages", "prompt", "stream")}
    if settings.protocol == "chat":
        return await client.chat.completions.create(
            model=body["model"], messages=body["messages"], stream=True, extra_body=rest
        )
    return await client.completions.create(model=body["model"], prompt=body["prompt"], stream=True, extra_body=rest)
