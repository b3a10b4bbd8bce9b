"""What a run comes to: the curves that `select`, `report` and `bench` print, draw and write.

The JSON of `as_document` is the interchange form of `ttc select --json` and `ttc report --json`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Axis = Literal["k", "seconds", "flops", "tokens"]


@dataclass(frozen=True, slots=True)
class Point:
    """Accuracy at one place on an axis: fractions in 0..1, the 95 % interval over problems, `n` problems."""

    x: float
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Curve:
    """One selector along one axis. `kind` says where the x values come from: a real run or a timing model.

    `reward_model` is the one whose scores the selector read; `charged` says whether its time and FLOPs are in x, None
    where no reward model is involved. `monte_carlo_se` is the largest standard error over the points that random
    subsets leave in the mean over problems, None where the values are exact.
    """

    selector: str
    axis: Axis
    points: tuple[Point, ...]
    kind: Literal["measured", "modelled"] = "measured"
    reward_model: str | None = None
    charged: bool | None = None
    monte_carlo_se: float | None = None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run with its curves.

    `facts` is flat and ready to print (engine, versions, dtype, hardware, ...); `counts` holds the number of
    completions by verdict and by finish reason; `reasons` says why a run is not VALID; `faults` holds, by name, the
    sentence on each selector that raised and so has no curves.
    """

    run: str
    model: str
    task: str
    problems: int
    samples: int
    protocol: Literal["latency", "throughput"]
    budget: str | None
    curves: tuple[Curve, ...]
    validity: Literal["VALID", "INVALID"] = "VALID"
    reasons: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)


def as_document(summaries: Sequence[RunSummary]) -> dict[str, Any]:
    """The JSON document of one or many runs (a dictionary of plain values)."""
    return {"runs": [asdict(summary) for summary in summaries]}


def finite(value: Any) -> Any:
    """The same value with None for each number that JSON cannot hold."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
