"""What the curves say, in sentences for somebody who has never seen one: who wins at which budget, and how sure."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.analysis.summary import Curve, Point, RunSummary
from harness.comparisons.comparison import TaskComparison

from .grouping import Group
from .lines import arm_names, finite_points, is_free

BOUNDS = ("coverage", "oracle")
"""Selectors of these names need the gold answer: bounds, which no real choice reaches."""

GLOSSARY: Mapping[str, str] = {
    "sample": "one attempt of the model at a problem, from its first word to its final answer",
    "k": "how many samples the model may draw for each problem",
    "selector": "the rule that picks one answer from the samples that have finished",
    "coverage": "the share of problems of which at least one sample is correct; a bound that no selector can exceed",
    "majority": "picks the answer that most samples agree on",
    "first": "picks the sample that finished first",
    "best_of_n": "picks the sample that a reward model scores highest",
    "weighted_majority": "a vote in which each sample weighs as much as a reward model scores it",
    "95 % interval": "where the accuracy would lie in 95 of 100 repetitions with other problems of the same kind; two "
    "models whose intervals overlap widely may well be equally good",
    "measured, modelled": "measured points are what had finished in a real run by that time; modelled ones combine "
    "recorded lengths with a table of decoding speeds",
    "VALID, INVALID": "a run is INVALID when its times may not be believed or compared, for the reason that is given",
}
"""The words of the page, for a newcomer."""


class Standing(NamedTuple):
    """One arm under one selector at one place."""

    arm: str
    selector: str
    point: Point


def is_bound(selector: str) -> bool:
    """Whether a selector is a bound that looks at the gold answer."""
    return selector.startswith(BOUNDS)


def findings(group: Group) -> list[str]:
    """Paragraphs about one group of runs: the setting, who leads at a short and at the full budget, and how surely."""
    runs = group.summaries
    told = [setting(runs)]
    standings = standings_at(runs, 1.0)
    if not standings:
        return told
    told += [lead("With everything that was given", standings)]
    early = standings_at(runs, 1 / 8)
    if early and len(runs) > 1:
        told.append(lead(f"With an eighth of it ({amount(early[0].point.x, runs)})", early))
    told += bound(standings)
    broken = [name.removesuffix(" (INVALID)") for name in arm_names(runs) if name.endswith("(INVALID)")]
    if broken:
        told.append(
            f"Beware: {' and '.join(broken)} {'is' if len(broken) == 1 else 'are'} INVALID, for the reasons below."
        )
    return told


def tests_of(comparison: TaskComparison | None) -> list[str]:
    """What the paired tests say, a sentence for each pair of arms and selector; none without a comparison."""
    if comparison is None:
        return []
    return [
        f"{pair.b} against {pair.a}, {one.sentence}"
        for pair in comparison.pairs
        for one in pair.selectors
        if one.sentence and one.axis == next(iter(pair.selectors)).axis
    ]


def setting(runs: Sequence[RunSummary]) -> str:
    """Who did what under which budget."""
    models = "One model" if len(runs) == 1 else f"{len(runs)} models"
    problems = sorted({run.problems for run in runs})
    samples = sorted({run.samples for run in runs})
    budgets = list(dict.fromkeys(run.budget for run in runs if run.budget))
    scope = "problem" if runs[0].protocol == "latency" else "run"
    given = f", given {' or '.join(budgets)} for each {scope}" if budgets else ""
    counts = " to ".join(str(count) for count in dict.fromkeys((problems[0], problems[-1])))
    drawn = " to ".join(str(count) for count in dict.fromkeys((samples[0], samples[-1])))
    return f"{models} answered {counts} problems of {runs[0].task}, with up to {drawn} samples for each{given}."


def axis_of(runs: Sequence[RunSummary]) -> str:
    """Seconds where any run recorded them, else k."""
    measured = (curve for run in runs for curve in run.curves if curve.kind == "measured" and finite_points(curve))
    return "seconds" if any(curve.axis == "seconds" for curve in measured) else "k"


def amount(x: float, runs: Sequence[RunSummary]) -> str:
    """A place on the axis in words."""
    return f"{x:.3g} s" if axis_of(runs) == "seconds" else f"{x:g} samples"


def standings_at(runs: Sequence[RunSummary], share: float) -> list[Standing]:
    """Every arm and selector at this share of the shortest arm's range, the most accurate first."""
    axis = axis_of(runs)
    curves = [
        (arm, curve)
        for run, arm in zip(runs, arm_names(runs), strict=True)
        for curve in run.curves
        if curve.axis == axis and not is_free(curve) and curve.kind == "measured" and finite_points(curve)
    ]
    if not curves:
        return []
    end = share * min(finite_points(curve)[-1].x for _, curve in curves)
    found = [Standing(arm, curve.selector, point) for arm, curve in curves if (point := at_most(curve, end))]
    return sorted(found, key=lambda standing: -standing.point.value)


def at_most(curve: Curve, x: float) -> Point | None:
    """The last point that costs no more than x."""
    return next((point for point in reversed(finite_points(curve)) if point.x <= x * (1 + 1e-9)), None)


def lead(opening: str, standings: Sequence[Standing]) -> str:
    """Who is best at a place, by how much, and whether that can be chance."""
    real = [standing for standing in standings if not is_bound(standing.selector)] or list(standings)
    best = real[0]
    told = (
        f"{opening}, {best.arm} with {best.selector} is right on {percent(best.point.value)} of the problems "
        f"(95 % interval {percent(best.point.low)} to {percent(best.point.high)})"
    )
    others = [standing for standing in real if standing.arm != best.arm]
    if not others:
        return f"{told}."
    second = others[0]
    gap = 100 * (best.point.value - second.point.value)
    behind = f"at {percent(second.point.value)}, {gap:.1f} points behind" if gap > 0.05 else "just as good"
    sure = (
        "Each lies inside the other's interval: this may be chance."
        if inside(best.point, second.point)
        else "Each lies outside the other's interval."
    )
    return f"{told}; {second.arm} with {second.selector} is {behind}. {sure}"


def inside(one: Point, other: Point) -> bool:
    """Whether either value lies in the other's interval."""
    return other.value >= one.low or one.value <= other.high


def bound(standings: Sequence[Standing]) -> list[str]:
    """How far the best selector stays below what its samples held."""
    bounds = [standing for standing in standings if is_bound(standing.selector)]
    real = [standing for standing in standings if not is_bound(standing.selector)]
    if not bounds or not real or math.isclose(bounds[0].point.value, real[0].point.value):
        return []
    return [
        f"At least one sample is right on {percent(bounds[0].point.value)} of the problems ({bounds[0].arm}): a "
        "perfect choice among the samples would gain up to "
        f"{100 * (bounds[0].point.value - real[0].point.value):.1f} points."
    ]


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %"


def glossary(runs: Sequence[RunSummary]) -> dict[str, str]:
    """The words that this page uses: those of selectors only where a run has them."""
    used = " ".join(curve.selector for run in runs for curve in run.curves)
    selectors = ("coverage", "majority", "first", "best_of_n", "weighted_majority")
    return {word: meaning for word, meaning in GLOSSARY.items() if word not in selectors or word in used}
