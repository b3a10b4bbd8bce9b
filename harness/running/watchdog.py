"""Ends a run whose engine hangs: what has come is stored, a sentence says where it was stuck, the process ends.

A call that never returns cannot be broken off from within its process, so the whole process ends, as hard as a kill,
and the same command goes on after it. The watch reads no clock but counts its own ticks, so that a machine which slept,
or was busy with something else, is not taken for an engine that hangs. Only scopes are watched: loading, compiling and
warming up may take as long as they like.
"""

import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.budgets import Budget, Deadline
from harness.errors import UserError
from harness.inert import inert_line

GRACE_S = 600.0
"""Seconds past twice its budget that a scope may take: a first prefill, a late compilation, a slow disk."""
SILENCE_S = 7200.0
"""Seconds without a completion and without a charged token or FLOP, where no budget in seconds is there to go by."""
TICK_S = 5.0
"""Seconds between two looks."""
RESCUE_S = 60.0
"""Seconds that storing may take at the end."""
STATUS = 124
"""The exit status of a process that its watchdog ended, as that of `timeout`."""
VARIABLE = "TTC_WATCHDOG_S"
"""The environment variable that sets both limits in seconds; 0 turns the watchdog off."""


@dataclass(slots=True)
class Watched:
    """A scope under watch: its limit, for how long it has been watched, and when it last gave a sign of life."""

    name: str
    deadline: Deadline
    limit_s: float
    by_budget: bool
    seen_s: float = 0.0
    signs: tuple[float, float] = (0.0, 0.0)


class Watchdog:
    """Looks at a sitting's scopes from a thread of its own.

    Args:
        note: is given the sentence before the process ends, for the manifest.
        grace_s: seconds past twice the budget of a scope.
        silence_s: seconds without a sign of life of a scope that has no budget in seconds.
        tick_s: seconds between two looks.
        rescue_s: seconds that storing may take.
        end: ends the process with a status.
    """

    def __init__(
        self, note: Callable[[str], None], grace_s: float = GRACE_S, silence_s: float = SILENCE_S,
        tick_s: float = TICK_S, rescue_s: float = RESCUE_S, end: Callable[[int], object] = os._exit,
    ) -> None:  # fmt: skip
        self.note, self.grace_s, self.silence_s = note, grace_s, silence_s
        self.tick_s, self.rescue_s, self.end = tick_s, rescue_s, end
        self.watched: Watched | None = None
        self.off_duty = threading.Event()
        self.thread_id = threading.get_ident()
        self.rescue: Callable[[], object] = lambda: None

    @contextmanager
    def on_duty(self, rescue: Callable[[], object], budget: Budget | None) -> Iterator[None]:
        """Watch while this lasts what the calling thread does; `rescue` stores what has come and is not stored."""
        self.rescue, self.thread_id = rescue, threading.get_ident()
        self.off_duty.clear()
        self.last_resort(self.limit_s(budget))
        thread = threading.Thread(target=self.patrol, args=(self.limit_s(budget),), name="ttc-watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.off_duty.set()
            thread.join()
            faulthandler.cancel_dump_traceback_later()

    @contextmanager
    def watch(self, problem_id: str | None, deadline: Deadline) -> Iterator[None]:
        """Hold a scope to its limit while this lasts."""
        name = "the run" if problem_id is None else f"problem {problem_id}"
        limit_s = self.limit_s(deadline.budget)
        self.watched = Watched(name, deadline, limit_s, in_seconds(deadline.budget), signs=signs_of(deadline))
        try:
            yield
        finally:
            self.watched = None

    def limit_s(self, budget: Budget | None) -> float:
        """How long a scope of this budget may take, or may be silent where the budget is none in seconds."""
        return 2 * budget.amount + self.grace_s if budget is not None and in_seconds(budget) else self.silence_s

    def last_resort(self, limit_s: float) -> None:
        """Have the interpreter's own timer end the process, telling where all threads were, unless it is put off.

        A call that never lets another thread run keeps ours from looking; that timer needs no thread of Python.
        """
        with suppress(OSError, ValueError, AttributeError, RuntimeError):
            seconds = min(limit_s + self.tick_s + self.rescue_s, threading.TIMEOUT_MAX)
            faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)

    def alive(self) -> None:
        """A completion has come."""
        if self.watched is not None and not self.watched.by_budget:
            self.watched.seen_s = 0.0

    def patrol(self, limit_s: float) -> None:
        """Look every tick until the sitting ends."""
        while not self.off_duty.wait(self.tick_s):
            self.last_resort(limit_s)
            self.look()

    def look(self) -> None:
        """A tick has passed: end the process if the scope under watch is past its limit."""
        watched = self.watched
        if watched is None:
            return
        watched.seen_s += self.tick_s
        signs = signs_of(watched.deadline)
        if not watched.by_budget and signs != watched.signs:
            watched.signs, watched.seen_s = signs, 0.0
        if watched.seen_s >= watched.limit_s:
            self.give_up(watched)

    def give_up(self, watched: Watched) -> None:
        """Store, tell, end."""
        sentence = self.sentence(watched)
        done = threading.Thread(target=self.store, args=(sentence,), daemon=True)
        done.start()
        done.join(self.rescue_s)
        stored = "what was finished is stored" if not done.is_alive() else "storing what was finished hung too"
        with suppress(OSError, ValueError):
            # A progress bar has hidden the cursor and will not be there to show it again.
            shown = "\x1b[?25h\n" if sys.stderr.isatty() else ""
            told = inert_line(f"ttc: {sentence}; {stored}, type the same command to go on")
            print(f"{shown}{told}", file=sys.stderr, flush=True)
        self.end(STATUS)

    def store(self, sentence: str) -> None:
        """Store what has come, then the reason."""
        with suppress(OSError, UserError):
            self.rescue()
        with suppress(OSError, UserError):
            self.note(sentence)

    def sentence(self, watched: Watched) -> str:
        """What hung, for how long, and where it was at."""
        where = self.place()
        stuck = f", stuck in {where}" if where else ""
        if watched.by_budget:
            return f"{watched.name} took {watched.limit_s:.6g} s of a budget of {watched.deadline.budget}{stuck}"
        return f"{watched.name} gave no sign of life for {watched.limit_s:.6g} s{stuck}"

    def place(self) -> str:
        """The line that the watched thread is at."""
        frame = sys._current_frames().get(self.thread_id)
        if frame is None:
            return ""
        return f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}, line {frame.f_lineno})"


def signs_of(deadline: Deadline) -> tuple[float, float]:
    """What an engine has charged so far: it grows while the engine lives."""
    return deadline.flops, float(deadline.tokens)


def in_seconds(budget: Budget | None) -> bool:
    """Whether a budget says how long a scope lasts."""
    return budget is not None and budget.unit == "seconds"


def grace_wished() -> float | None:
    """The seconds that the environment sets, None where it sets none. Raises UserError when they are none."""
    wish = os.environ.get(VARIABLE, "").strip()
    if not wish:
        return None
    try:
        seconds = float(wish)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise UserError(f"{VARIABLE} wants seconds, got '{wish}'; write for example 3600, or 0 for no watchdog")
    return seconds


def watchdog_of(note: Callable[[str], None], wished: float | None) -> Watchdog | None:
    """A watchdog with the usual limits or the one that is wished for; None where that is 0."""
    if wished is None:
        return Watchdog(note)
    tick_s, rescue_s = min(TICK_S, max(0.05, wished / 10)), min(RESCUE_S, max(1.0, wished))
    return Watchdog(note, wished, wished, tick_s, rescue_s) if wished else None
