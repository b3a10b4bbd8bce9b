"""What a person sees while a run goes on: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from harness.budgets import Clock, monotonic
from harness.inert import inert_line

EVERY_S = 10.0
"""Seconds between the plain lines written where there is no terminal."""


class Progress(Protocol):
    """Told how far a run is. All numbers are totals, not increments."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        ...

    def update(self, done: int, note: str) -> None:
        """`done` units are finished; `note` says rate, budget left and running accuracy."""
        ...


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Self:
        """Nothing to begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to stop."""

    def update(self, done: int, note: str) -> None:
        """Ignore."""


class Lines(Quiet):
    """A plain line every few seconds and at the end, for logs and pipes."""

    def __init__(self, title: str, total: int, stream: TextIO, clock: Clock) -> None:
        self.title, self.total, self.stream, self.clock = title, total, stream, clock
        self.told_at = clock()
        self.told_done = -1

    def update(self, done: int, note: str) -> None:
        """Write a line when it is time, and for the last unit."""
        last = done == self.total and done != self.told_done
        if last or self.clock() - self.told_at >= EVERY_S:
            self.told_at, self.told_done = self.clock(), done
            print(inert_line(f"{self.title}: {done}/{self.total} {note}"), file=self.stream, flush=True)


class Bar(Quiet):
    """A rich bar with the rate, the time left and the note."""

    def __init__(self, title: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            transient=False,
        )
        self.task = self.bar.add_task(title, total=total, note="")

    def __enter__(self) -> Self:
        """Begin to draw."""
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing and leave the last state on the screen."""
        self.bar.stop()

    def update(self, done: int, note: str) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=done, note=inert_line(note))


ShowProgress = Callable[[str, int], Progress]
"""Makes the display for a title and a total."""


def chooser(quiet: bool, clock: Clock = monotonic) -> ShowProgress:
    """The display that fits: nothing when quiet, a bar on a terminal, plain lines otherwise. All on stderr."""

    def show(title: str, total: int) -> Progress:
        if quiet:
            return Quiet()
        title = inert_line(title)
        return Bar(title, total) if sys.stderr.isatty() else Lines(title, total, sys.stderr, clock)

    return show
