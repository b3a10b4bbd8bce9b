"""Budgets and the deadlines they become when started. Nothing else in the project reads a clock.

A budget is an amount of seconds, FLOPs or tokens for one scope: a problem (latency protocol) or the run (throughput
protocol). A deadline is a started budget: it holds the clock that was injected and what the engine has charged so far.
"""

import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from harness.errors import UserError

Clock = Callable[[], float]
"""Seconds that never run backwards, from an arbitrary origin."""

Unit = Literal["seconds", "flops", "tokens"]
Scope = Literal["problem", "run"]

monotonic: Clock = time.perf_counter
"""The clock of real runs; tests inject their own."""

thread_s: Clock = time.thread_time
"""Processor seconds of the calling thread: what it would have taken had nobody else been on the machine."""

SCALES: dict[str, tuple[Unit, float]] = {
    "ms": ("seconds", 1e-3),
    "s": ("seconds", 1.0),
    "m": ("seconds", 60.0),
    "min": ("seconds", 60.0),
    "h": ("seconds", 3600.0),
    "flop": ("flops", 1.0),
    "MFLOP": ("flops", 1e6),
    "GFLOP": ("flops", 1e9),
    "TFLOP": ("flops", 1e12),
    "PFLOP": ("flops", 1e15),
    "EFLOP": ("flops", 1e18),
    "tok": ("tokens", 1.0),
    "ktok": ("tokens", 1e3),
    "Mtok": ("tokens", 1e6),
}
EXAMPLES = "60s, 500ms, 2m, 2e15flop, 2PFLOP or 4096tok"


@dataclass(frozen=True, slots=True)
class Budget:
    """So much of one unit for each scope."""

    amount: float
    unit: Unit = "seconds"
    scope: Scope = "problem"

    def __post_init__(self) -> None:
        """Refuse what could never be kept. Raises UserError."""
        if not (math.isfinite(self.amount) and self.amount > 0):
            raise UserError(f"a budget must be positive and finite, got {self.amount:g} {self.unit}; write {EXAMPLES}")

    def start(self, clock: Clock = monotonic) -> "Deadline":
        """Start the scope's clock now."""
        return Deadline(self, clock)

    def __str__(self) -> str:
        """The shortest spelling that `parse_budget` reads back: `60s`, `0.2s`, `2e+15flop`, `4096tok`."""
        spelled = (f"{self.amount:.{digits}g}" for digits in range(6, 18))
        shortest = next(text for text in spelled if float(text) == self.amount)
        return f"{shortest}{ {'seconds': 's', 'flops': 'flop', 'tokens': 'tok'}[self.unit] }"


def parse_budget(text: str, scope: Scope = "problem") -> Budget:
    """Read `60s`, `500ms`, `2m`, `2e15flop`, `2PFLOP`, `4096tok`.

    Unit names are matched as written first (`m` minutes, `MFLOP` mega), then without regard to case where that is
    unambiguous. Raises UserError naming the value and the spellings that exist.
    """
    found = re.fullmatch(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)\s*", text)
    if not found:
        raise UserError(f"cannot read the budget '{text}'; write {EXAMPLES}")
    number, name = found.groups()
    if not name:
        raise UserError(
            f"the budget '{text}' has no unit; write {number}s for seconds, {number}tok for tokens, or {EXAMPLES}"
        )
    folded = {spelling.lower(): scale for spelling, scale in SCALES.items()}
    scale = SCALES.get(name) or folded.get(name.lower()) or folded.get(name.lower().removesuffix("s"))
    if scale is None:
        raise UserError(f"the budget '{text}' has an unknown unit '{name}'; write {EXAMPLES}")
    unit, factor = scale
    return Budget(float(number) * factor, unit, scope)


class Deadline:
    """A started budget. Engines poll `expired` and report work with `charge`; nobody moves it.

    `budget` None never expires by itself but still tells the time. `offset_s` is the time that earlier sittings of the
    same scope already used, so that an outage between them is not charged. A clock that runs backwards neither gives
    time back nor makes the budget longer: time goes on from the latest reading, and `backwards_s` holds what was lost.
    """

    def __init__(self, budget: Budget | None, clock: Clock = monotonic, offset_s: float = 0.0) -> None:
        self.budget = budget
        self.clock = clock
        self.offset_s = offset_s
        self.started_at = self.latest = clock()
        self.backwards_s = 0.0
        self.flops = 0.0
        self.tokens = 0
        self.held_back = 0.0
        """So much of the budget a strategy keeps for what it does last; until it is 0 again the rest is all."""
        # Without it a reading that another thread overtakes would pass for a clock that ran backwards.
        self.reading = threading.Lock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the scope's clock began, those of earlier sittings included; it never falls."""
        with self.reading:
            now = self.clock()
            if now < self.latest:
                self.backwards_s += self.latest - now
                self.started_at -= self.latest - now
            self.latest = now
            return self.offset_s + now - self.started_at

    def now(self) -> float:
        """`elapsed_s` as a clock."""
        return self.elapsed_s

    def charge(self, *, flops: float = 0.0, tokens: int = 0) -> None:
        """Add work that was done: FLOPs of prefill, decode or scoring, and generated tokens."""
        self.flops += flops
        self.tokens += tokens

    @property
    def spent(self) -> float:
        """How much of the budget's unit is used up; seconds when there is no budget."""
        unit = self.budget.unit if self.budget else "seconds"
        if unit == "seconds":
            return self.elapsed_s
        return self.flops if unit == "flops" else float(self.tokens)

    @property
    def expired(self) -> bool:
        """True once the budget is used up."""
        return self.budget is not None and self.spent >= self.budget.amount - self.held_back

    @property
    def left(self) -> float:
        """What remains of the budget in its own unit, at least 0; infinite when there is none."""
        return math.inf if self.budget is None else max(0.0, self.budget.amount - self.held_back - self.spent)


def unix_s() -> float:
    """The calendar time in seconds since 1970, for the manifest and the watch below; never used to measure a span."""
    return time.time()


def since_boot_s() -> float:
    """Seconds since the machine was switched on, those in which it slept included (`monotonic` leaves them out)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


REFERENCES: dict[str, Clock] = {"calendar": unix_s}
"""Clocks beside which `monotonic` is watched, by name."""
if hasattr(time, "CLOCK_BOOTTIME"):
    REFERENCES["since boot"] = since_boot_s


class ClockWatch:
    """Notices when a run's clock parts from other clocks: it was set, or the machine slept or was paused.

    Args:
        clock: the run's.
        references: others by name; None takes `REFERENCES` where the run's clock is `monotonic`, and none elsewhere.
    """

    ALLOWED_S = 0.1
    ALLOWED_RATE = 0.001
    """Twice the fastest rate at which a kernel lets a calendar clock be slewed (500 parts per million)."""

    def __init__(self, clock: Clock, references: Mapping[str, Clock] | None = None) -> None:
        if references is None:
            references = REFERENCES if clock is monotonic else {}
        self.clocks = [("run", clock), *references.items()]
        self.seen = self.readings()
        self.steps: dict[str, float] = {}
        """By reference, the largest step that it made against the run's clock; negative where it fell behind."""

    def readings(self) -> list[float]:
        """What every clock says now."""
        return [clock() for _, clock in self.clocks]

    def look(self) -> None:
        """Compare with the last look. Called often, so that a step stands out from slow drift."""
        now = self.readings()
        passed = [after - before for before, after in zip(self.seen, now, strict=True)]
        self.seen = now
        for (name, _), other in zip(self.clocks[1:], passed[1:], strict=True):
            step = other - passed[0]
            allowed = self.ALLOWED_S + self.ALLOWED_RATE * abs(passed[0])
            if abs(step) > max(allowed, abs(self.steps.get(name, 0.0))):
                self.steps[name] = step
