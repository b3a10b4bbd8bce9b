"""Which runs share a figure, and what the files of each group are called."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count

from harness.analysis.comparable import together
from harness.analysis.summary import RunSummary
from harness.reporting import Material

STEMS = (
    *("accuracy", "accuracy-seconds", "accuracy-k", "accuracy-tokens", "accuracy-flops", "accuracy-seconds-wide"),
    *("pareto-seconds", "pareto-flops", "difficulty", "scoring-time", "comparison"),
)
"""The figures that are drawn for each group."""


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that may share a figure; `places` are theirs among all runs, `suffix` ends the names of their files."""

    suffix: str
    places: tuple[int, ...]
    summaries: tuple[RunSummary, ...]


def groups(summaries: Sequence[RunSummary], material: Material | None = None) -> list[Group]:
    """The runs by task and protocol, and by what else keeps them apart where `material` knows their settings."""
    settings = material.settings if material else ()
    apart = together(summaries, settings)
    firsts = [summaries[places[0]] for places in apart]
    tasks, protocols = {first.task for first in firsts}, {first.protocol for first in firsts}
    found: dict[str, Group] = {}
    for first, places in zip(firsts, apart, strict=True):
        parts = ([slug(first.task)] if len(tasks) > 1 else []) + ([first.protocol] if len(protocols) > 1 else [])
        suffix = free("".join(f"-{part}" for part in parts), found)
        found[suffix] = Group(suffix, tuple(places), tuple(summaries[place] for place in places))
    return list(found.values())


def free(suffix: str, taken: Collection[str]) -> str:
    """The ending, with a number where some figure's name would otherwise be another's (`k` can be a task too)."""
    names = {name + other for name in STEMS for other in taken}
    numbered = (suffix if place == 1 else f"{suffix}-{place}" for place in count(1))
    return next(ending for ending in numbered if names.isdisjoint(name + ending for name in STEMS))


def slug(name: str) -> str:
    """Lower-case letters and digits joined by hyphens, at most 60 of them: a safe part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].rstrip("-") or "task"
