"""How well deadlines were kept: per scope the overshoot in seconds and in decode steps, per run the verdict on them."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from harness.budgets import Deadline
from harness.nouns import Completion

ALLOWED_STEPS = 2.0
"""Mean decode steps past the deadline that count as kept: the one that ran when it struck may be a slow one."""
ALLOWED_SHARE = 0.01
"""The share of scopes that may overshoot by more before the run is INVALID."""


def step_s(completions: Sequence[Completion]) -> float | None:
    """The mean seconds of a decode step over the rows that made more than one token."""
    steps = [
        (row.finished_s - row.first_token_s) / (row.completion_tokens - 1)
        for row in completions
        if row.first_token_s is not None and row.completion_tokens > 1
    ]
    return mean(steps) if steps else None


def scope_timing(
    problem_id: str | None, completions: Sequence[Completion], deadline: Deadline, elapsed_s: float, segment: int
) -> dict[str, Any]:
    """One row of timing.parquet for a scope that has ended."""
    over_s = over_steps = None
    if deadline.budget is not None and deadline.budget.unit == "seconds" and completions:
        over_s = max(0.0, max(row.finished_s for row in completions) - deadline.budget.amount)
        step = step_s(completions)
        over_steps = None if step is None or step <= 0 else over_s / step
    return {
        "segment": segment,
        "phase": "generate",
        "problem_id": problem_id,
        "elapsed_s": elapsed_s,
        "spent": deadline.spent,
        "overshoot_s": over_s,
        "overshoot_steps": over_steps,
    }


def late_scopes(timing: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The scopes that ended more than `ALLOWED_STEPS` decode steps after their deadline."""
    return [row for row in timing if (row["overshoot_steps"] or 0.0) > ALLOWED_STEPS]


def compliance(timing: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The distribution of the overshoot over the scopes that had a deadline in seconds; empty when none had."""
    import numpy as np

    over = [row["overshoot_s"] for row in timing if row["overshoot_s"] is not None]
    if not over:
        return {}
    steps = [row["overshoot_steps"] for row in timing if row["overshoot_steps"] is not None] or [0.0]
    return {
        "scopes": len(over),
        "within_budget": float(np.mean(np.asarray(over) <= 0)),
        "late_share": len(late_scopes(timing)) / len(over),
        "overshoot_median_s": float(np.median(over)),
        "overshoot_p99_s": float(np.percentile(over, 99)),
        "overshoot_worst_s": float(np.max(over)),
        "overshoot_worst_steps": float(np.max(steps)),
    }
