"""VALID or INVALID: may this run's times be believed, and if not, why and what mends it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.overshoot import ALLOWED_SHARE, compliance, late_scopes
from harness.summary import RunSummary

FAILED_SHARE = 0.01
"""The share of completions that may be engine failures."""
SAME_IN_ARMS = ("engine", "engine_version", "torch", "dtype", "device", "threads", "gpu", "cpu")
"""Facts that must agree between the arms of a comparison."""


class Fault(NamedTuple):
    """Why a run is not VALID, and what to do about it."""

    reason: str
    mend: str


def faults_of(
    timing: Sequence[Mapping[str, Any]], finish_reasons: Mapping[str, int], missing: int, scopes: int
) -> list[Fault]:
    """What is wrong with a run that has ended.

    `finish_reasons` counts the stored completions; `missing` counts samples that never started although no deadline
    struck in their scope; `scopes` is how many scopes the run has.
    """
    faults = []
    total = sum(finish_reasons.values())
    late = len(late_scopes(timing))
    if late > ALLOWED_SHARE * max(1, scopes):
        worst = compliance(timing)["overshoot_worst_s"]
        faults.append(
            Fault(
                f"{late} of {scopes} deadlines were overshot by more than two decode steps (worst {worst:.3f} s)",
                "free the machine of other work, or make the batch smaller, and run again",
            )
        )
    failed = finish_reasons.get("error", 0)
    if failed > FAILED_SHARE * max(1, total):
        faults.append(
            Fault(
                f"{failed} of {total} completions failed in the engine",
                "read the errors with `ttc show RUN` and run again",
            )
        )
    if missing:
        faults.append(
            Fault(f"{missing} samples are missing", "run the same command again: it goes on where it stopped")
        )
    return faults


def differing_arms(summaries: Sequence[RunSummary]) -> list[str]:
    """The facts in which runs of one task differ although a fair comparison needs them equal, as sentences."""
    sentences = []
    for name in SAME_IN_ARMS:
        seen = {str(summary.facts[name]): summary.run for summary in summaries if name in summary.facts}
        if len(seen) > 1:
            sentences.append(
                f"the arms differ in {name}: " + ", ".join(f"{run} {value}" for value, run in seen.items())
            )
    return sentences
