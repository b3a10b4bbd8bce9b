"""Which accuracy of a table is the best beyond chance: better than every other run's on the same problems."""

from collections.abc import Sequence

import numpy as np

from harness.analysis.bank import Item, load_bank
from harness.analysis.curves import values_along, values_at_k, views_of
from harness.analysis.summary import Axis, RunSummary
from harness.nouns import Selector
from harness.reporting import Material
from harness.stats.paired import holm, paired_difference

from .grouping import Group
from .lines import finite_points, is_free

ALPHA = 0.05

Cell = tuple[int, str, str]
"""A run's place among all, a selector and a column of the table."""

COLUMNS: dict[str, tuple[Axis, int]] = {"first": ("k", 0), "last": ("k", -1), "full": ("seconds", -1)}
"""The columns with the axis and the place of the point that they show."""


def significantly_best(group: Group, material: Material) -> list[Cell]:
    """The cells that are significantly the best of their selector and column among the group's runs.

    Paired sign-flip tests of the best against each other run where all were given the same (k, or seconds), adjusted by
    Holm over those tests. A group with an INVALID run, or whose runs differ in their problems, has none.
    """
    if len(group.places) < 2 or not material.runs or any(run.validity == "INVALID" for run in group.summaries):
        return []
    banks = [load_bank(material.runs[place]) for place in group.places]
    ids = [item.problem_id for item in banks[0]]
    if any([item.problem_id for item in bank] != ids for bank in banks):
        return []
    cells = []
    for selector in dict.fromkeys(curve.selector for run in group.summaries for curve in run.curves):
        for column, (axis, end) in COLUMNS.items():
            x = shared_place(group.summaries, selector, axis, end)
            values = [] if x is None else [values_in(bank, selector, axis, x, material.selectors) for bank in banks]
            known = [one for one in values if one is not None]
            best = clear_winner(known) if len(known) == len(banks) else None
            if best is not None:
                cells.append((group.places[best], selector, column))
    return cells


def shared_place(summaries: Sequence[RunSummary], selector: str, axis: Axis, end: int) -> float | None:
    """The first or last x of the selector's curves where all runs have one and it is the same; else None."""
    places = set[float | None]()
    for run in summaries:
        curves = [curve for curve in run.curves if (curve.selector, curve.axis) == (selector, axis)]
        measured = [
            curve for curve in curves if curve.kind == "measured" and not is_free(curve) and finite_points(curve)
        ]
        places.add(finite_points(measured[0])[end].x if measured else None)
    return places.pop() if len(places) == 1 else None


def values_in(
    bank: Sequence[Item], selector: str, axis: Axis, x: float, selectors: Sequence[Selector]
) -> np.ndarray | None:
    """(problems, 1): the selector's accuracy on each problem at one place; None where it is not among `selectors`."""
    named = (view for view in views_of(bank, selectors, axis) if view.selector.name == selector)
    view = next((view for view in named if view.charged is not False), None)
    if view is None:
        return None
    if axis == "k":
        return values_at_k(view.selector, view.items, [int(x)])
    return values_along(view.selector, view.items, axis, [x])


def clear_winner(values: Sequence[np.ndarray]) -> int | None:
    """The place of the arm that is better than every other one, adjusted p below `ALPHA`; None where there is none.

    Each of `values` is (problems, 1) on the same problems.
    """
    if len(values) < 2:
        return None
    best = int(np.argmax([arm.mean() for arm in values]))
    others = [arm for place, arm in enumerate(values) if place != best]
    p_values = np.array([paired_difference(arm[None], values[best][None]).p_value[0] for arm in others])
    ahead = all(values[best].mean() > arm.mean() for arm in others)
    return best if ahead and bool((holm(p_values) < ALPHA).all()) else None
