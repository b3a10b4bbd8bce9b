"""What a person sees while a sweep goes on: on a terminal a table of its runs, kept up to date; lines elsewhere."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from harness.inert import inert_line
from harness.progress import Quiet, ShowProgress, chooser
from harness.sweeping.sweep import Cell

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROWS = 24
"""Rows of the table on a terminal; of a longer sweep those that have finished are only counted."""


class Board:
    """The states of a sweep's runs."""

    def __init__(self, cells: Sequence[Cell], states: Sequence[str], quiet: bool) -> None:
        self.cells, self.quiet = cells, quiet
        self.states = {cell.name: state for cell, state in zip(cells, states, strict=True)}
        self.notes = dict.fromkeys(self.states, "")
        self.is_live = sys.stderr.isatty() and not quiet

    def live(self) -> AbstractContextManager[object]:
        """Keep the table on the terminal while this lasts; nothing where there is none."""
        if not self.is_live:
            return nullcontext()
        from rich.console import Console
        from rich.live import Live

        return Live(get_renderable=self.table, console=Console(stderr=True), refresh_per_second=4)

    def move(self, cell: Cell, state: str, note: str | None = None) -> None:
        """A run has come into another state."""
        self.states[cell.name] = state
        if note is not None:
            self.notes[cell.name] = note
        if not self.is_live and not self.quiet:
            print(inert_line(f"{cell.name}: {state}{f' ({note})' if note else ''}"), file=sys.stderr, flush=True)

    def show(self, cell: Cell) -> ShowProgress:
        """How a bench shows the progress of this run."""
        if not self.is_live:
            return chooser(self.quiet)
        return lambda title, total: Row(self, cell, title.partition(" ")[0], total)

    def table(self) -> "Table":
        """One row for each run; of a long sweep those that failed, those under way and the next."""
        from rich.table import Table
        from rich.text import Text

        finished = sum(state.startswith("finished") for state in self.states.values())
        table = Table(title=f"{finished} of {len(self.cells)} runs finished", box=None, title_justify="left")
        for column in ("model", "task", "engine", "state", ""):
            table.add_column(column, overflow="ellipsis", no_wrap=True)
        shown = list(self.cells)
        if len(shown) > MOST_ROWS:
            shown = [cell for cell in shown if not self.states[cell.name].startswith("finished")][:MOST_ROWS]
        for cell in shown:
            cells = cell.arm.model, cell.asked.task, cell.arm.engine, self.states[cell.name], self.notes[cell.name]
            table.add_row(*(Text(inert_line(each)) for each in cells))
        return table


class Row(Quiet):
    """A run's place in the table, as its progress display."""

    def __init__(self, board: Board, cell: Cell, doing: str, total: int) -> None:
        self.board, self.cell, self.doing, self.total = board, cell, doing, total

    def __enter__(self) -> "Row":
        """Begin to show."""
        self.update(0, "")
        return self

    def update(self, done: int, note: str) -> None:
        """Write the counts into the table, which is drawn now and then."""
        self.board.states[self.cell.name] = f"{self.doing} {done}/{self.total}"
        self.board.notes[self.cell.name] = note
