"""The form of a manifest: which fields there are and what they hold, so that one that was damaged or forged is refused.

What reads a manifest may then take its fields for what they are.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Check = Callable[[Any], bool]


def is_text(value: Any) -> bool:
    """A text."""
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    """A whole number from 0, of a size that something can be counted to."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def is_number(value: Any) -> bool:
    """A finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_table(value: Any) -> bool:
    """Values by name."""
    return isinstance(value, dict)


def or_none(check: Check) -> Check:
    """The same, or nothing."""
    return lambda value: value is None or check(value)


def list_of(check: Check) -> Check:
    """A list of such."""
    return lambda value: isinstance(value, list) and all(map(check, value))


def table_of(check: Check) -> Check:
    """Such by name."""
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def one_of(*values: str) -> Check:
    """One of these texts."""
    return lambda value: isinstance(value, str) and value in values


def fields(checks: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """A table that has the first of these and may have the second, each of them as it should be."""

    def check(value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        there = {name: one for name, one in (optional or {}).items() if name in value}
        return all(name in value and one(value[name]) for name, one in {**checks, **there}.items())

    return check


class Field(NamedTuple):
    """One field, by its path, and whether a manifest may lack it."""

    path: str
    check: Check
    optional: bool = False


SEGMENT = fields(
    {},
    {name: or_none(is_number) for name in ("load_s", "warmup_s", "generate_s", "grade_s")}
    | {"status": is_text, "segment": is_count, "error": is_text, "troubles": table_of(is_number)}
    | {"clock_steps_s": table_of(is_number), "probes": table_of(list_of(is_number))},
)
SAMPLING = fields(
    dict.fromkeys(("temperature", "top_p"), is_number)
    | dict.fromkeys(("top_k", "max_tokens"), is_count)
    | {"stop": list_of(is_text), "seed": lambda value: isinstance(value, int)}
)
FORM = (
    Field("spec", is_table),
    *(Field(f"spec.{name}", is_text) for name in ("model", "engine", "task", "task_plugin")),
    *(Field(f"spec.{name}", list_of(is_text)) for name in ("model_options", "task_options")),
    Field("spec.data", or_none(is_text)),
    Field("spec.limit", or_none(is_count)),
    Field("spec.protocol", one_of("latency", "throughput")),
    Field("spec.budget", or_none(is_text)),
    Field("spec.samples", lambda value: is_count(value) and value > 0),
    Field("spec.sampling", or_none(SAMPLING)),
    *(Field(f"spec.{name}", list_of(is_text), True) for name in ("reward_models", "reward_options")),
    Field("spec.strategy", is_text, True),
    Field("spec.strategy_options", list_of(is_text), True),
    Field("problems", fields({"count": is_count})),
    Field("created_unix_s", lambda value: is_number(value) and 0 <= value < 1e11),
    Field("machine", is_table),
    Field("machine.cpu", is_text),
    Field("machine.usable_cores", or_none(is_count)),
    Field("machine.gpus", list_of(fields({"name": is_text}))),
    Field("versions", table_of(is_text)),
    Field("versions.ttc", is_text),
    Field("versions.python", is_text),
    Field("git_commit", or_none(is_text)),
    Field("engine", fields({}, {"parameters": or_none(is_number)})),
    Field("segments", list_of(SEGMENT)),
    Field("validity", is_table),
    Field("validity.verdict", one_of("VALID", "INVALID")),
    Field("validity.reasons", list_of(is_text)),
    Field("validity.mend", list_of(is_text)),
    Field("validity.warnings", list_of(is_text), True),
    Field("compliance", table_of(is_number), True),
    Field("overhead", table_of(is_number), True),
    Field(
        "reward_models",
        list_of(fields({"name": is_text, "options": list_of(is_text), "uses": list_of(is_table)})),
        True,
    ),
)
ABSENT = object()


def misfit(manifest: Mapping[str, Any]) -> str | None:
    """The path of the first field that is missing or holds what it should not; None for a manifest in order."""
    for one in FORM:
        value: Any = manifest
        for name in one.path.split("."):
            value = value.get(name, ABSENT) if isinstance(value, Mapping) else ABSENT
        if not (one.optional if value is ABSENT else one.check(value)):
            return one.path
    reasons, mends = (manifest["validity"][name] for name in ("reasons", "mend"))
    return "validity.mend" if len(reasons) != len(mends) else None
