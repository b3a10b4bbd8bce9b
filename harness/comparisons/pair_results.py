"""Two arms under one selector along one axis: from their values and bootstrap replicates to every number told."""

from dataclasses import dataclass

import numpy as np

from harness.analysis.summary import Axis
from harness.comparisons.arm_values import Usage
from harness.comparisons.comparison import Area, AtBudget, Bin, SelectorComparison
from harness.nouns import Selector
from harness.stats.area import area_under_log
from harness.stats.budget_scaling import scaling
from harness.stats.crossing import Crossover, crossover
from harness.stats.difficulty import BINS
from harness.stats.iso_accuracy import SpeedUp, speed_up
from harness.stats.paired import PairedDifference, difference_from, mcnemar_p
from harness.stats.solving_cost import total_cost_per_solved

LEVELS = (0.5, 0.75, 0.9, 1.0)
"""Accuracies at which speed-ups are told, as parts of the lower of the two accuracies at the end of the range."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An axis with the increasing places `grid` where curves are evaluated.

    `inside` are the positions in the grid of the range, from the first finish of any arm to the earliest end; `shown`
    those of the budgets.
    """

    axis: Axis
    grid: np.ndarray
    inside: np.ndarray
    shown: np.ndarray


@dataclass(frozen=True, slots=True)
class Side:
    """One arm under one selector.

    `values` are (seeds, problems, grid), `replicates` (resamples, grid); `usage` is at the budgets shown.
    """

    selector: Selector
    values: np.ndarray
    replicates: np.ndarray
    usage: Usage


def compare_sides(name: str, frame: Frame, a: Side, b: Side, bin_of: np.ndarray) -> SelectorComparison:
    """Everything about one selector except the adjusted p values and the sentence.

    `bin_of` (problems,) is each problem's bin of difficulty from 0.
    """
    x = frame.grid[frame.inside]
    cells = cells_of(frame, a, b)
    budgets = frame.grid[frame.shown]
    return SelectorComparison(
        selector=name,
        axis=frame.axis,
        start=float(x[0]),
        end=float(x[-1]),
        budgets=cells,
        crossover=crossover_of(frame, a, b),
        speed_ups=speed_ups_of(frame, a, b),
        area=area_of(frame, a, b),
        bins=bins_of(frame, a, b, bin_of),
        slope_a=scaling(budgets, np.array([cell.a for cell in cells])),
        slope_b=scaling(budgets, np.array([cell.b for cell in cells])),
    )


def paired_at(a: Side, b: Side, columns: np.ndarray) -> PairedDifference:
    """The paired difference at these columns of the grid."""
    drawn = b.replicates[:, columns] - a.replicates[:, columns]
    return difference_from(a.values[:, :, columns], b.values[:, :, columns], drawn)


def cells_of(frame: Frame, a: Side, b: Side) -> tuple[AtBudget, ...]:
    """One entry per budget shown."""
    found = paired_at(a, b, frame.shown)
    return tuple(
        AtBudget(
            x=float(frame.grid[column]),
            a=float(a.values[:, :, column].mean()),
            b=float(b.values[:, :, column].mean()),
            difference=float(found.difference[i]),
            low=float(found.low[i]),
            high=float(found.high[i]),
            p_value=float(found.p_value[i]),
            p_holm=float("nan"),
            mde=float(found.mde[i]),
            mcnemar_p=mcnemar_of(a.values[:, :, column], b.values[:, :, column]),
            finished_a=float(a.usage.finished[i]),
            finished_b=float(b.usage.finished[i]),
            idle_a=float(a.usage.idle[i]),
            idle_b=float(b.usage.idle[i]),
            per_solved_a=per_solved(a, column, i),
            per_solved_b=per_solved(b, column, i),
        )
        for i, column in enumerate(frame.shown)
    )


def mcnemar_of(a: np.ndarray, b: np.ndarray) -> float | None:
    """McNemar's p value of (seeds, problems) values; None unless both arms have one seed and values of 0 or 1."""
    if a.shape[0] > 1 or b.shape[0] > 1 or not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        return None
    return mcnemar_p(a[0] == 1, b[0] == 1)


def per_solved(side: Side, column: int, shown: int) -> float:
    """What was spent for each problem solved at one budget; infinite when none is."""
    solved = side.values[:, :, column].mean(axis=0)
    return total_cost_per_solved(np.full(solved.shape, side.usage.spent[shown]), solved)


def crossover_of(frame: Frame, a: Side, b: Side) -> Crossover:
    """The crossover inside the range."""
    if frame.inside.size < 2:
        return Crossover(None, None, reason="the range is a single budget")
    values = (b.values.mean(axis=(0, 1)) - a.values.mean(axis=(0, 1)))[frame.inside]
    drawn = (b.replicates - a.replicates)[:, frame.inside]
    return crossover(frame.grid[frame.inside], values, drawn, a.values.shape[1])


def speed_ups_of(frame: Frame, a: Side, b: Side) -> tuple[SpeedUp, ...]:
    """Speed-ups at `LEVELS` of the lower final accuracy, and at the higher one, which one arm never reaches."""
    if frame.inside.size < 2:
        return ()
    x, columns = frame.grid[frame.inside], frame.inside
    curves = (a.values.mean(axis=(0, 1))[columns], b.values.mean(axis=(0, 1))[columns])
    drawn = (a.replicates[:, columns], b.replicates[:, columns])
    lower, higher = sorted(float(curve[-1]) for curve in curves)
    levels = [part * lower for part in LEVELS] + ([higher] if higher > lower + 1e-9 else [])
    return tuple(speed_up(x, curves, drawn, level, a.values.shape[1]) for level in levels if level > 0)


def area_of(frame: Frame, a: Side, b: Side) -> Area | None:
    """Areas over the log of the budget, and their paired difference."""
    if frame.inside.size < 2:
        return None
    x = frame.grid[frame.inside]
    one, other = (area_under_log(x, side.values[:, :, frame.inside])[:, :, None] for side in (a, b))
    drawn = area_under_log(x, (b.replicates - a.replicates)[:, frame.inside])[:, None]
    found = difference_from(one, other, drawn)
    return Area(
        float(one.mean()), float(other.mean()), float(found.difference[0]), float(found.low[0]), float(found.high[0]),
        float(found.p_value[0]),
    )  # fmt: skip


def bins_of(frame: Frame, a: Side, b: Side, bin_of: np.ndarray) -> tuple[Bin, ...]:
    """Both arms at the largest budget in each bin that has problems."""
    last = frame.shown[-1]
    return tuple(
        Bin(
            number + 1,
            int((bin_of == number).sum()),
            float(a.values[:, bin_of == number, last].mean()),
            float(b.values[:, bin_of == number, last].mean()),
        )
        for number in range(BINS)
        if (bin_of == number).any()
    )
