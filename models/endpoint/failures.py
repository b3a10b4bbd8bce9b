"""What went wrong between the client and the server, as one sentence, and whether asking again may help."""

import email.utils
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import openai

from harness.budgets import unix_s

from .settings import Settings

LONGEST = 200
"""Characters of the server's own words in a sentence."""
PASSING = (408, 409, 425, 429)
"""Statuses under 500 that may pass."""
HOPELESS = (501, 505)


class Nonsense(ValueError):
    """What the server sent cannot be an answer."""


def http_errors() -> tuple[type[Exception], ...]:
    """What a stream that breaks off raises: of httpx or its successor, whichever the client is built on."""
    return tuple(sys.modules[name].HTTPError for name in ("httpx2", "httpx") if name in sys.modules)


class Failure(NamedTuple):
    """One failed attempt.

    `again` says that another attempt may succeed, `wait_s` how long the server asks to be left alone (None: it does
    not say), `status` the HTTP status if there was one.
    """

    sentence: str
    again: bool
    wait_s: float | None = None
    status: int | None = None


def judge(error: Exception, settings: Settings) -> Failure:
    """Put an exception of the client into words; the key is never among them."""
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        said = one_line(message_in(error.body) or str(error.response.reason_phrase), settings)
        quota = isinstance(error.body, Mapping) and error.body.get("code") == "insufficient_quota"
        again = (status in PASSING or status >= 500) and status not in HOPELESS and not quota
        return Failure(f"the server answered {status} ({said})", again, retry_after(error.response.headers), status)
    if isinstance(error, (openai.APIConnectionError, *http_errors())):
        cause = error.__cause__ or error
        return Failure(f"the connection failed ({type(cause).__name__}: {one_line(str(cause), settings)})", True)
    if isinstance(error, openai.APIError):
        said = one_line(message_in(error.body) or error.message, settings)
        return Failure(f"the server broke off with an error ({said})", True)
    if isinstance(error, Nonsense):
        return Failure(one_line(str(error), settings), False)
    return Failure(
        f"the server's answer cannot be read ({type(error).__name__}: {one_line(str(error), settings)})", False
    )


def message_in(body: Any) -> str:
    """The server's own words in the body of an error, in the forms that servers use."""
    if isinstance(body, Mapping):
        for name in ("message", "detail", "error"):
            if body.get(name):
                return message_in(body[name])
        return ""
    return str(body) if body else ""


def one_line(text: str, settings: Settings) -> str:
    """Words of a stranger as part of a sentence: no key, no line break, not too long."""
    flat = " ".join(settings.hide(text).split()).rstrip(".")
    return flat if len(flat) <= LONGEST else f"{flat[: LONGEST - 3]}..."


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: `Retry-After` as a number or a date, or `Retry-After-Ms`."""
    try:
        if "retry-after-ms" in headers:
            wait_s = float(headers["retry-after-ms"]) / 1e3
        elif headers.get("retry-after", "").strip().replace(".", "", 1).isdigit():
            wait_s = float(headers["retry-after"])
        elif "retry-after" in headers:
            wait_s = email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - unix_s()
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return max(0.0, wait_s) if wait_s < float("inf") else None
