"""Failures of what others wrote: an exception that leaves a plug-in becomes a sentence that names whose it was.

A failure is data. A model's becomes a row, a task's a verdict, a reward model's an entry of the manifest, a selector's
a line of the summary; where there is no place for it, it ends the command with the sentence.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from harness.errors import UserError

LONGEST = 300
"""Characters of an exception's own words in a sentence."""
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
SHORTEST_SECRET = 8
LIBRARIES = ("site-packages", "dist-packages", f"{os.sep}lib{os.sep}python")
CORE = Path(__file__).parent
ROOMS = ("tasks", "models", "selectors", "reports")


class Fault(UserError):
    """An exception that crossed a boundary: the sentence names the plug-in, the exception and the line it came from."""


@contextmanager
def boundary(name: str) -> Iterator[None]:
    """What runs inside is a stranger's: its exceptions leave as Fault; a UserError is its own sentence and passes.

    `name` says whose: `selector longest`, `task ./mine.py:sums`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise Fault(sentence_of(name, error)) from error


def sentence_of(name: str, error: BaseException) -> str:
    """`model adder raised ZeroDivisionError: division by zero (mine.py, line 12)`, with no secret in it."""
    return f"{name} raised {told(error)}"


def told(error: BaseException) -> str:
    """An exception's type, words and line, in one line of bounded length and with no secret in it."""
    words = without_secrets(" ".join(own_words(error).split()))
    words = words if len(words) <= LONGEST else f"{words[: LONGEST - 3]}..."
    place = line_of(error.__traceback__)
    return f"{type(error).__name__}{': ' if words else ''}{words}{f' ({place})' if place else ''}"


def own_words(error: BaseException) -> str:
    """What an exception says; nothing when even that raises."""
    try:
        return str(error)
    except Exception:
        return ""


def line_of(trace: TracebackType | None) -> str:
    """The innermost line outside of installed libraries and of this core, `mine.py, line 12`; empty without one."""
    place = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not (file.startswith("<") or is_core(Path(file)) or any(part in file for part in LIBRARIES)):
            place = f"{Path(file).name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place


def is_core(file: Path) -> bool:
    """Whether a source file is the core's own; those of the rooms are plug-ins too."""
    return file.is_relative_to(CORE) and file.relative_to(CORE).parts[0] not in ROOMS


def without_secrets(text: str) -> str:
    """Text in which the values of environment variables that are named like secrets stand as the variables' names."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and SECRET.search(name):
            text = text.replace(value, f"${name}")
    return text
