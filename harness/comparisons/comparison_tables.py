"""A comparison as text: what is unfair first, then each pair's tables and conclusions, then the Pareto set."""

import sys
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.summary import Axis
from harness.comparisons.comparison import AtBudget, Comparison, Pair, SelectorComparison, TaskComparison, spelled
from harness.inert import inert_line
from harness.stats.iso_accuracy import SpeedUp

WIDTH = 140
"""Columns where the output is no terminal."""


def tell(comparison: Comparison) -> None:
    """Print it all to stdout."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False)
    for task in comparison.tasks:
        tell_task(task, console)
    for sentence in comparison.left_out:
        console.print(inert_line(f"left out: {sentence}"))
    console.print(
        f"Budgets: {comparison.rule}. Intervals: 95 %, {comparison.resamples:,} bootstrap replicates over problems. "
        "p: sign-flip permutation test; adjusted by Holm over all budgets, selectors and pairs of the task. "
        "MDE: the difference that 80 % of such experiments would find."
    )


def tell_task(task: TaskComparison, console: Console) -> None:
    """Print one task: its arms, what is unfair, every pair, the front."""
    console.print(inert_line(f"{task.task}: {task.problems} problems, {task.protocol} protocol"))
    names = letters(task)
    for arm in task.arms:
        runs = ", ".join(arm.runs) + (" as one arm" if len(arm.runs) > 1 else "")
        told = f"  {names[arm.name]}  {arm.name}: {arm.validity}, {arm.samples} samples, {runs}"
        console.print(inert_line(told))
    for sentence in task.unfair:
        console.print(inert_line(f"NOT A FAIR COMPARISON OF TIMES: {sentence}"))
    for sentence in task.notes:
        console.print(inert_line(f"note: {sentence}"))
    for pair in task.pairs:
        for table in (differences(pair, names[pair.b]), areas(pair, names[pair.b]), speed_ups(pair, names[pair.b])):
            console.print()
            console.print(table)
        console.print()
        for result in pair.selectors:
            console.print(inert_line(result.sentence))
    if task.front:
        console.print()
        console.print(front(task, names))
    console.print()


def letters(task: TaskComparison) -> dict[str, str]:
    """A, B, C, ... and after Z numbers, by arm."""
    return {arm.name: chr(ord("A") + i) if i < 26 else str(i + 1) for i, arm in enumerate(task.arms)}


def table_of(columns: Sequence[str], left: int) -> Table:
    """An empty table whose first `left` columns are words and the others numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    return table


def inert_cells(cells: Iterable[str]) -> Iterator[Text]:
    """The cells of a row as the terminal may have them: a reward model of somebody's run has any name."""
    return (Text(inert_line(cell)) for cell in cells)


def differences(pair: Pair, b: str) -> Table:
    """One row per selector and budget."""
    columns = ("selector", "budget", "A %", f"{b} %", f"{b} − A in points", "p", "p adjusted", "MDE", f"done A, {b}")
    table = table_of(columns, 1)
    for result in pair.selectors:
        for cell in result.budgets:
            table.add_row(*inert_cells(difference_row(result, cell)))
    return table


def difference_row(result: SelectorComparison, cell: AtBudget) -> tuple[str, ...]:
    """The cells of one budget."""
    return (
        result.selector,
        spelled(result.axis, cell.x),
        percent(cell.a),
        percent(cell.b),
        interval(cell.difference, cell.low, cell.high),
        chance(cell.p_value),
        chance(cell.p_holm),
        percent(cell.mde),
        f"{cell.finished_a:.1f}, {cell.finished_b:.1f}",
    )


def areas(pair: Pair, b: str) -> Table:
    """One row per selector: the crossover and the areas."""
    columns = ("selector", "along", "crossover", "mean A %", f"mean {b} %", f"{b} − A over log budget", "p")
    table = table_of(columns, 3)
    for result in pair.selectors:
        area = result.area
        numbers = (
            ("–",) * 4
            if area is None
            else (
                percent(area.a),
                percent(area.b),
                interval(area.difference, area.low, area.high),
                chance(area.p_value),
            )
        )
        table.add_row(*inert_cells((result.selector, result.axis, crossing(result, b), *numbers)))
    return table


def crossing(result: SelectorComparison, b: str) -> str:
    """Where the winner overtakes, or why that is undefined."""
    found = result.crossover
    names = {"a": "A", "b": b}
    if found.x is None:
        winner = names.get(found.winner or "", "")
        return f"none: {winner} is never behind" if winner else f"none: {found.reason}"
    low = "before" if found.low is None else spelled(result.axis, found.low)
    high = "past" if found.high is None else spelled(result.axis, found.high)
    return f"{names[found.winner or '']} from {spelled(result.axis, found.x)} [{low}, {high}]"


def speed_ups(pair: Pair, b: str) -> Table:
    """One row per selector and accuracy."""
    table = table_of(("selector", "to reach", "A needs", f"{b} needs", f"{b} is faster by"), 1)
    for result in pair.selectors:
        for found in result.speed_ups:
            needs = (needed(result.axis, found.a), needed(result.axis, found.b))
            row = (result.selector, f"{percent(found.level)} %", *needs, factor(found))
            table.add_row(*inert_cells(row))
    return table


def needed(axis: Axis, x: float | None) -> str:
    """A budget, or that none is enough."""
    return "never" if x is None else spelled(axis, x)


def factor(found: SpeedUp) -> str:
    """`2.4× [1.9, 3.1]`; an open side is a sign of infinity or 0."""
    if found.factor is None:
        return "undefined"
    low = "0" if found.low is None else f"{found.low:.2f}"
    high = "∞" if found.high is None else f"{found.high:.2f}"
    return f"{found.factor:.2f}× [{low}, {high}]"


def front(task: TaskComparison, names: dict[str, str]) -> Table:
    """The configurations that nothing beats, or that are on the front in at least a twentieth of the replicates."""
    table = table_of(("Pareto set", "selector", "budget", "accuracy %", "on the front in %"), 2)
    for place in sorted(task.front, key=lambda one: (one.axis, one.x, -one.accuracy)):
        if place.on_front or place.frequency >= 0.05:
            mark = "" if place.on_front else " (beaten)"
            budget = spelled(place.axis, place.x)
            row = (names[place.arm] + mark, place.selector, budget, percent(place.accuracy), percent(place.frequency))
            table.add_row(*inert_cells(row))
    return table


def percent(fraction: float) -> str:
    """One decimal, a dash for what is undefined."""
    return "–" if fraction != fraction else f"{100 * fraction:.1f}"


def interval(value: float, low: float, high: float) -> str:
    """`+4.0 [1.0, 7.0]` in percentage points."""
    # Adding 0.0 takes the sign from a zero.
    value, low, high = (round(100 * x, 1) + 0.0 for x in (value, low, high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def chance(p: float) -> str:
    """Three decimals, or that it is less."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
