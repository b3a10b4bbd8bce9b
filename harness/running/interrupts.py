"""Ctrl-C: once ends the work cleanly, twice ends the process at once."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from harness.inert import inert_line

INTERRUPTED = 130
"""The exit code of a process that Ctrl-C ended."""
SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def stoppable() -> Iterator[None]:
    """Work that stores what it has finished and can be gone on with: Ctrl-C ends the process and says how."""
    try:
        with patient_with_interrupts():
            yield
    except KeyboardInterrupt:
        command = shlex.join(["ttc", *sys.argv[1:]])
        told = "ttc: stopped; what was finished is stored, type the same command to go on:"
        print(f"{told}\n  {inert_line(command)}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


@contextmanager
def patient_with_interrupts() -> Iterator[None]:
    """The first Ctrl-C raises KeyboardInterrupt here and says that a second one ends the process at once, as it does.

    Whoever told the process to ignore Ctrl-C is obeyed; another thread than the first, which cannot hear it, is let be.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def stop(number: int, frame: FrameType | None) -> None:
    """Begin to end. Raises KeyboardInterrupt."""
    signal.signal(signal.SIGINT, stop_at_once)
    tell(b"\nttc: stopping: what is finished is being stored; Ctrl-C again stops at once\n")
    raise KeyboardInterrupt


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """End the process without another step; what was being written is set aside when the run is gone on with."""
    tell(SHOW_CURSOR * sys.stderr.isatty() + b"\nttc: stopped at once\n")
    os._exit(INTERRUPTED)


def tell(message: bytes) -> None:
    """Write to stderr from a signal's handler, past whatever lock the stream's own writer holds."""
    with suppress(OSError):
        os.write(2, message)
