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
    """Send a request; what comes back is an asynchronous context and iterator of chunks, each as its JSON says.

    The client's own methods know neither every field nor every form of them, and make of each chunk a tree of objects:
    100 microseconds a token, where its stream of plain JSON takes 30.
    """
    path = "/chat/completions" if settings.protocol == "chat" else "/completions"
    return await client.post(path, body=body, cast_to=object, stream=True, stream_cls=openai.AsyncStream[object])
