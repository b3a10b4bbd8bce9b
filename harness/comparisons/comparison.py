"""What a comparison of runs comes to: frozen records that `ttc compare` prints and reports draw.

Accuracies and differences are fractions; a difference is B - A throughout, so positive means that B is ahead. None
stands for what is undefined. `as_document` is the JSON of `ttc compare --json` (docs/statistics.md).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.analysis.summary import Axis, finite
from harness.stats.coverage_law import CoverageLaw
from harness.stats.crossing import Crossover
from harness.stats.iso_accuracy import SpeedUp

Protocol = Literal["latency", "throughput"]


@dataclass(frozen=True, slots=True)
class ArmFacts:
    """One side of a comparison: a model's run, or its runs with several seeds taken together.

    `name` is what pairs and the front call it; `control` is the share of scopes that ended within their budget of
    seconds, None when they had none; `coverage_law` is fitted on a quarter of the samples and judged on the others,
    None where it is undefined.
    """

    name: str
    model: str
    runs: tuple[str, ...]
    seeds: tuple[int | None, ...]
    samples: int
    validity: Literal["VALID", "INVALID"]
    reasons: tuple[str, ...]
    control: float | None
    coverage_law: CoverageLaw | None


@dataclass(frozen=True, slots=True)
class AtBudget:
    """Both arms at one budget `x`, over the same problems.

    `low` and `high` bound the 95 % interval of `difference`; `p_value` is the sign-flip test's and `p_holm` the same
    adjusted for all tests of the task; `mde` is the minimum detectable effect; `mcnemar_p` is None unless each result
    is right or wrong. `finished_a` and `finished_b` are the mean numbers of samples that had finished, `idle_a` and
    `idle_b` the shares of problems in which all samples had, so that more time changes nothing; `per_solved_a` and
    `per_solved_b` are what was spent for each problem solved.
    """

    x: float
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    mde: float
    mcnemar_p: float | None
    finished_a: float
    finished_b: float
    idle_a: float
    idle_b: float
    per_solved_a: float
    per_solved_b: float


@dataclass(frozen=True, slots=True)
class Area:
    """Mean accuracy over the logarithm of the budget, from the start to the end of the range."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Accuracy at the largest budget on the problems of one difficulty; 1 is the easiest fifth, 5 the hardest."""

    difficulty: int
    problems: int
    a: float
    b: float


@dataclass(frozen=True, slots=True)
class SelectorComparison:
    """Two arms under one selector along one axis, from `start` to `end` (both arms' common range).

    `area` is None and `speed_ups` empty when the range is a single point. `slope_a` and `slope_b` are s1's scaling over
    the budgets shown, per unit of the axis.
    """

    selector: str
    axis: Axis
    start: float
    end: float
    budgets: tuple[AtBudget, ...]
    crossover: Crossover
    speed_ups: tuple[SpeedUp, ...]
    area: Area | None
    bins: tuple[Bin, ...]
    slope_a: float
    slope_b: float
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class OneSample:
    """Bayes@N of a single sample, without regard to time: posterior means, deviations, and how sure the order is."""

    a: float
    b: float
    deviation_a: float
    deviation_b: float
    z: float
    probability: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Arm `b` against arm `a`, by name, under each selector and axis."""

    a: str
    b: str
    one_sample: OneSample
    selectors: tuple[SelectorComparison, ...]


@dataclass(frozen=True, slots=True)
class FrontPlace:
    """One configuration: an arm, a selector and a budget `x`.

    `frequency` is the share of bootstrap replicates in which nothing beats it.
    """

    arm: str
    selector: str
    axis: Axis
    x: float
    accuracy: float
    on_front: bool
    frequency: float


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """All arms that answered the same problems of one task under one protocol; the first is the A of every pair.

    `unfair` says why times may not be compared (INVALID runs, arms that differ in what must be equal); `notes` says
    what a reader should know besides.
    """

    task: str
    protocol: Protocol
    problems: int
    arms: tuple[ArmFacts, ...]
    unfair: tuple[str, ...]
    notes: tuple[str, ...]
    pairs: tuple[Pair, ...]
    front: tuple[FrontPlace, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every task that could be compared, and in `left_out` a sentence for each run that could not."""

    tasks: tuple[TaskComparison, ...]
    left_out: tuple[str, ...]
    resamples: int
    level: float
    rule: str


def as_document(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values for JSON; infinite and undefined numbers are null."""
    document: dict[str, Any] = finite(asdict(comparison))
    return document


SCALES: dict[Axis, Sequence[tuple[float, str]]] = {
    "seconds": ((1.0, "s"), (1e-3, "ms")),
    "flops": ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1.0, "FLOP")),
    "tokens": ((1.0, "tokens"),),
    "k": ((1.0, "samples"),),
}


def spelled(axis: Axis, x: float) -> str:
    """A budget to read: `12.5 s`, `2 PFLOP`, `4096 tokens`, `8 samples`."""
    size, unit = next((scale for scale in SCALES[axis] if x >= scale[0]), SCALES[axis][-1])
    number = x / size
    return f"{number:.0f} {unit}" if number >= 999.5 else f"{number:.3g} {unit}"
