"""One plain sentence for each selector: who is ahead at which budget, how surely, and where the lead changes."""

import math
from collections.abc import Sequence

from harness.comparisons.comparison import AtBudget, SelectorComparison, spelled

ALPHA = 0.05


def conclude(a: str, b: str, result: SelectorComparison, problems: int) -> str:
    """Say what a pair's comparison under one selector comes to."""
    ahead = [told for name, sign in ((b, 1), (a, -1)) if (told := lead(name, sign, result))]
    unsure = [cell for cell in result.budgets if cell.p_holm >= ALPHA]
    parts = [*ahead, *([undecided(unsure, result, problems)] if unsure else []), *turning(a, b, result)]
    return f"{result.selector}: {'; '.join(parts)}."


def lead(name: str, sign: int, result: SelectorComparison) -> str:
    """`B is ahead at 30 s (+4.0 points, 95 % interval 1.0 to 7.0, p = 0.012)`, empty when it surely leads nowhere."""
    cells = [cell for cell in result.budgets if cell.p_holm < ALPHA and sign * cell.difference > 0]
    if not cells:
        return ""
    last = cells[-1]
    low, high = sorted((sign * last.low, sign * last.high))
    at = f"at {spelled(result.axis, last.x)} " if len(cells) > 1 else ""
    return (
        f"{name} is ahead at {listed(result, cells)} ({at}by {points(sign * last.difference)} points, 95 % interval "
        f"{points(low)} to {points(high)}, adjusted p {probability(last.p_holm)})"
    )


def undecided(cells: Sequence[AtBudget], result: SelectorComparison, problems: int) -> str:
    """What cannot be told, and how large a difference these problems would have shown."""
    told = f"no difference is sure at {listed(result, cells)}"
    effects = [cell.mde for cell in cells if not math.isnan(cell.mde)]
    if not effects:
        return told
    return f"{told}, where {problems} problems would show one of {points(max(effects))} points in 80 % of experiments"


def turning(a: str, b: str, result: SelectorComparison) -> list[str]:
    """Where the arm that leads at the end overtook the other, unless that could be anywhere in the range."""
    crossing = result.crossover
    if crossing.x is None or (crossing.low is None and crossing.high is None):
        return []
    leader, other = (b, a) if crossing.winner == "b" else (a, b)
    low = spelled(result.axis, crossing.low) if crossing.low is not None else "before the range"
    high = spelled(result.axis, crossing.high) if crossing.high is not None else "past the range"
    return [f"{leader} overtakes {other} at {spelled(result.axis, crossing.x)} (95 % interval {low} to {high})"]


def listed(result: SelectorComparison, cells: Sequence[AtBudget]) -> str:
    """Budgets as `7.5 s, 15 s and 30 s`, or `every budget shown` when it is all of several."""
    if len(cells) == len(result.budgets) > 1:
        return "every budget shown"
    names = [spelled(result.axis, cell.x) for cell in cells]
    return " and ".join([*([", ".join(names[:-1])] if names[:-1] else []), names[-1]])


def points(fraction: float) -> str:
    """A fraction in percentage points."""
    return f"{100 * fraction:.1f}"


def probability(p: float) -> str:
    """`< 0.001` or `= 0.034`."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
