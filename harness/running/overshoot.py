"""How well budgets were kept: per scope the overshoot in the budget's unit and in decode steps, per run the figures."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.budgets import Budget, Deadline, Unit
from harness.nouns import Completion

if TYPE_CHECKING:
    import numpy as np

ALLOWED_STEPS = 2.0
"""Mean decode steps past the deadline that count as kept: the one that ran when it struck may be a slow one."""
ALLOWED_SHARE = 0.01
"""The share of scopes that may overshoot by more before the run is INVALID."""
ENDED, INTERRUPTED = "generate", "interrupted"
"""The phase of a scope's timing: it ended, or a sitting ended within it."""
SUFFIX: Mapping[Unit, str] = {"seconds": "s", "flops": "flops", "tokens": "tokens"}


class Pace:
    """What the completions of a scope say about its decode steps, summed up as they come; none of them is kept."""

    def __init__(self, budget: Budget | None) -> None:
        self.ends_s = budget.amount if budget is not None and budget.unit == "seconds" else math.inf
        self.completions = 0
        self.last_s = 0.0
        """When the last of them finished, on the scope's clock."""
        self.rows = 0
        """Completions of more than one token; the sums below are over these."""
        self.step_s = 0.0
        self.step_flops = 0.0
        self.step_tokens = 0.0

    def add(self, row: Completion) -> None:
        """Take a completion in."""
        self.completions += 1
        self.last_s = max(self.last_s, row.finished_s)
        if row.first_token_s is not None and row.completion_tokens > 1:
            steps = row.completion_tokens - 1
            self.rows += 1
            self.step_s += self.one_step_s(row, row.first_token_s, steps)
            self.step_flops += row.batch_size * row.decode_flops / steps
            self.step_tokens += row.batch_size

    def one_step_s(self, row: Completion, first_token_s: float, steps: int) -> float:
        """The mean seconds of a row's steps.

        Of a row that ended after the deadline only the steps before it count, as far as there are any: a step that
        never seems to end must not be taken for the measure of itself.
        """
        if row.finished_s <= self.ends_s or steps < 2 or first_token_s >= self.ends_s:
            return (row.finished_s - first_token_s) / steps
        return (self.ends_s - first_token_s) / (steps - 1)

    def step(self, unit: Unit) -> float | None:
        """What a decode step of the whole batch took of a unit in the mean; None where none is known."""
        total = {"seconds": self.step_s, "flops": self.step_flops, "tokens": self.step_tokens}[unit]
        return total / self.rows if self.rows and total > 0 else None


def scope_timing(
    problem_id: str | None, pace: Pace, deadline: Deadline, elapsed_s: float, outside_s: float, segment: int,
    phase: str = ENDED,
) -> dict[str, Any]:  # fmt: skip
    """One row of timing.parquet for a scope that has ended, or for what an interrupted one took until then.

    `elapsed_s` is what this sitting took, `outside_s` how much of it the engine waited for the harness.
    """
    over = over_steps = unit = None
    if deadline.budget is not None:
        unit = deadline.budget.unit
        spent = deadline.spent if unit != "seconds" or not pace.completions else pace.last_s
        over = max(0.0, spent - deadline.budget.amount)
        step = pace.step(unit)
        over_steps = None if step is None else over / step
    return {
        "segment": segment,
        "phase": phase,
        "problem_id": problem_id,
        "elapsed_s": elapsed_s,
        "spent": deadline.spent,
        "overshoot_s": over if unit == "seconds" else None,
        "overshoot_steps": over_steps,
        "overshoot": over,
        "outside_s": outside_s,
    }


def count_late(timing: Mapping[str, Sequence[float | None]]) -> int:
    """How many scopes ended more than `ALLOWED_STEPS` decode steps after their deadline."""
    return int((numbers(timing["overshoot_steps"]) > ALLOWED_STEPS).sum())


def compliance(timing: Mapping[str, Sequence[float | None]], unit: Unit) -> dict[str, float]:
    """The distribution of the overshoot over the scopes that had a deadline; empty when none had.

    `timing` holds the columns of timing.parquet. Names that end in `_s`, `_flops` or `_tokens` are in that unit, those
    that end in `_steps` in mean decode steps of the scope.
    """
    import numpy as np

    over = numbers(timing["overshoot"])
    # Runs of an earlier version have the overshoot of deadlines in seconds only.
    over = np.where(np.isnan(over), numbers(timing["overshoot_s"]), over)
    has_deadline = ~np.isnan(over)
    if not has_deadline.any():
        return {}
    over = over[has_deadline]
    steps = np.nan_to_num(numbers(timing["overshoot_steps"])[has_deadline])
    found = {
        "scopes": len(over),
        "within_budget": float(np.mean(over <= 0)),
        "within_one_step": float(np.mean((over <= 0) | ((steps > 0) & (steps <= 1)))),
        "late_share": float(np.mean(steps > ALLOWED_STEPS)),
    }
    for suffix, values in ((SUFFIX[unit], over), ("steps", steps)):
        found[f"overshoot_median_{suffix}"] = float(np.median(values))
        found[f"overshoot_p99_{suffix}"] = float(np.percentile(values, 99))
        found[f"overshoot_worst_{suffix}"] = float(np.max(values))
    return found


def numbers(values: Sequence[float | None]) -> "np.ndarray":
    """A column as float64, NaN for what is not there."""
    import numpy as np

    return np.array(values, dtype=np.float64)


def compliance_lines(manifest: Mapping[str, Any]) -> list[str]:
    """How a run kept its budget, what the harness itself took of it, and what to know besides, for a person."""
    found: Mapping[str, float] = manifest.get("compliance") or {}
    lines = []
    if found:
        scopes = int(found["scopes"])
        kept, near = (round(found[name] * scopes) for name in ("within_budget", "within_one_step"))
        lines.append(
            f"budget {manifest['spec']['budget']}: kept in {kept} of {scopes} scopes, in {near} within one decode step"
        )
        for suffix, unit in (("s", "seconds"), ("flops", "FLOPs"), ("tokens", "tokens"), ("steps", "decode steps")):
            if f"overshoot_worst_{suffix}" in found:
                median, p99, worst = (found[f"overshoot_{name}_{suffix}"] for name in ("median", "p99", "worst"))
                lines.append(f"overshoot in {unit}: median {median:.3g}, 99 % {p99:.3g}, worst {worst:.3g}")
    overhead = manifest.get("overhead") or {}
    if overhead:
        lines.append(f"harness overhead {100 * overhead['share']:.2g} % of the time in the budget")
    return lines + [f"warning: {warning}" for warning in manifest["validity"].get("warnings", [])]
