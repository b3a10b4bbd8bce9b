"""A run folder: made, locked, resumed, read.

    RUN/manifest.json  problems.parquet  completions/*.parquet  verdicts/*.parquet  scores/*.parquet  timing.parquet

One process writes a run at a time (`harness.storage.locking`). Reading needs no lock.
"""

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.budgets import Budget, Scope, parse_budget
from harness.errors import UserError
from harness.inert import read_json
from harness.nouns import Completion
from harness.running.scopes import STORED_COLUMNS, Tally
from harness.storage.manifest import new_manifest, read_manifest, write_manifest
from harness.storage.records import (
    COMPLETIONS,
    KINDS,
    PROBLEMS,
    SCORES,
    TIMING,
    VERDICTS,
    append_part,
    columns_of,
    each_part,
    last_of_each,
    next_number,
    number_of,
    opened_part,
    parts,
    read_part,
    read_parts,
    write_table,
)
from harness.storage.resuming import SET_ASIDE, close_killed, is_open, set_aside_torn, set_aside_unfinished
from harness.storage.storing import UNFINISHED, plainly

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

KEY = ("problem_id", "sample_index")
FOLDED = b"folded_parts"
"""In the metadata of timing.parquet: the parts of timing/ below this number are in it already."""


@dataclass(slots=True)
class Run:
    """One run on disk with its manifest."""

    path: Path
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def spec(self) -> dict[str, Any]:
        """What was asked for."""
        spec: dict[str, Any] = self.manifest["spec"]
        return spec

    @property
    def budget(self) -> Budget | None:
        """The budget of each scope, None when there was none."""
        spelled = self.spec.get("budget")
        scope: Scope = "run" if self.spec.get("protocol") == "throughput" else "problem"
        return parse_budget(spelled, scope) if spelled else None

    def problems(self) -> list[dict[str, Any]]:
        """The rows of problems.parquet, in task order; `meta` is read back from JSON."""
        rows: list[dict[str, Any]] = read_part(self.path / "problems.parquet", PROBLEMS).to_pylist()
        try:
            return [row | {"meta": read_json(row["meta"])} for row in rows]
        except ValueError as error:
            raise UserError(f"'{self.path / 'problems.parquet'}' has a meta that is no JSON ({error})") from None

    def completions(self) -> list[dict[str, Any]]:
        """Every stored completion once, in the order of storing. All of them at once: for runs that fit in memory."""
        return last_of_each(read_parts(self.path / "completions", COMPLETIONS).to_pylist(), KEY)

    def completion_columns(self, *names: str) -> "pa.Table":
        """Some columns of every stored completion, in the order of storing; no row becomes a Python object."""
        return read_parts(self.path / "completions", COMPLETIONS, names)

    def rows_of(
        self, kind: str, problem_ids: Sequence[str], only: Sequence[str] | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """The completions, or the latest verdicts (`kind` names the folder), problem by problem.

        `only` names the columns that are wanted; those of `KEY` must be among them.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array(problem_ids, pa.string())
        found = [
            part.filter(pc.is_in(part["problem_id"], wanted)) for part in each_part(self.path / kind, KINDS[kind], only)
        ]
        if not found:
            yield from ([] for _ in problem_ids)
            return
        table = pa.concat_tables(found)
        numbers = pc.index_in(table["problem_id"], wanted).to_numpy()
        order = np.argsort(numbers, kind="stable")
        ends = np.searchsorted(numbers[order], np.arange(len(problem_ids) + 1))
        # Once for all: taking a problem's rows out of many chunks would copy all chunks for each problem.
        table = table.combine_chunks().take(order)
        for start, end in itertools.pairwise(ends.tolist()):
            yield last_of_each(table.slice(start, end - start).to_pylist(), KEY)

    def tally(self, problem_ids: Sequence[str], samples: int) -> Tally:
        """What is stored of each of these problems."""
        tally = Tally.empty(problem_ids, samples)
        for part in each_part(self.path / "completions", COMPLETIONS, STORED_COLUMNS):
            tally.add(part)
        return tally

    def graded(self, problem_ids: Sequence[str], samples: int) -> "np.ndarray":
        """Which completions have a verdict, (problems, samples) bool."""
        return self.marked("verdicts", problem_ids, samples)

    def marked(self, kind: str, problem_ids: Sequence[str], samples: int, **among: Sequence[str]) -> "np.ndarray":
        """Which completions have a row in this folder, (problems, samples) bool; rows of others are not looked at.

        `among` names columns, and the values that a row must have there to count.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        tally = Tally.empty(problem_ids, samples)
        for part in each_part(self.path / kind, KINDS[kind], (*KEY, *among)):
            for name, values in among.items():
                part = part.filter(pc.is_in(part[name], pa.array(values, pa.string())))
            problems, indices = tally.places(part)
            known = (problems >= 0) & (indices >= 0) & (indices < samples)
            tally.done[problems[known], indices[known]] = True
        return tally.done

    def verdicts(self) -> list[dict[str, Any]]:
        """The latest verdict of each graded completion."""
        return last_of_each(read_parts(self.path / "verdicts", VERDICTS).to_pylist(), KEY)

    def scores(self) -> list[dict[str, Any]]:
        """The latest scores of each completion, by reward model; what scoring cost is 0 where it was not kept."""
        rows = last_of_each(read_parts(self.path / "scores", SCORES).to_pylist(), (*KEY, "reward_model"))
        return [row | {name: row[name] or 0.0 for name in ("reward_s", "reward_flops")} for row in rows]

    def scored(self, reward_model: str) -> set[tuple[str, int]]:
        """Which completions a reward model has seen, those without a score (too long, blank) among them."""
        columns = [*KEY, "reward_model"]
        rows = read_parts(self.path / "scores", SCORES, columns).to_pylist()
        return {(row["problem_id"], row["sample_index"]) for row in rows if row["reward_model"] == reward_model}

    def save(self) -> None:
        """Write the manifest, with how many numbers of parts are given out, so that a part is missed."""
        before = self.manifest.get("parts", {})
        self.manifest["parts"] = {kind: max(before.get(kind, 0), next_number(self.path / kind)) for kind in KINDS}
        write_manifest(self.path, self.manifest)

    def add_completions(self, completions: Sequence[Completion], segment: int = 0) -> None:
        """Store whole completions of one sitting as one part."""
        append_part(self.path / "completions", columns_of(completions, COMPLETIONS, segment=segment), COMPLETIONS)

    def add_verdicts(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store verdict rows as one part."""
        append_part(self.path / "verdicts", rows, VERDICTS)

    def add_scores(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store reward scores as one part."""
        append_part(self.path / "scores", rows, SCORES)

    def timing(self) -> list[dict[str, Any]]:
        """One row for each scope that has ended."""
        rows: list[dict[str, Any]] = self.timing_table().to_pylist()
        return rows

    def timing_table(self) -> "pa.Table":
        """`timing` without a Python object per row: timing.parquet and the parts that are not in it yet."""
        import pyarrow as pa

        path = self.path / "timing.parquet"
        whole = [read_part(path, TIMING)] if path.is_file() else []
        folded = self.folded()
        fresh = [part for part in parts(self.path / "timing") if number_of(part) >= folded]
        tables = whole + [read_part(part, TIMING) for part in fresh]
        return pa.concat_tables(tables) if tables else TIMING.empty_table()

    def add_timing(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store timing rows as one part, which `fold_timing` later puts into timing.parquet."""
        append_part(self.path / "timing", rows, TIMING, first=self.folded())

    def folded(self) -> int:
        """How many parts of timing/ are in timing.parquet."""
        path = self.path / "timing.parquet"
        if not path.is_file():
            return 0
        with opened_part(path) as opened:
            return int((opened.schema_arrow.metadata or {}).get(FOLDED, b"0"))

    def fold_timing(self) -> None:
        """Put all parts of timing/ into timing.parquet and take them away; a kill in between loses and doubles none."""
        there = parts(self.path / "timing")
        table = self.timing_table()
        if there or not (self.path / "timing.parquet").is_file():
            upto = max(self.folded(), next_number(self.path / "timing"))
            columns = TIMING.with_metadata({**TIMING.metadata, FOLDED: str(upto).encode()})
            write_table(self.path / "timing.parquet", table.cast(columns), columns)
        with plainly(self.path / "timing"):
            for part in there:
                part.unlink()
        with contextlib.suppress(OSError):
            (self.path / "timing").rmdir()


def open_run(path: Path) -> Run:
    """Open a run for reading. Raises UserError when the folder is no run."""
    if not path.exists():
        raise UserError(f"no run at '{path}' (looked from {Path.cwd()})")
    return Run(path, read_manifest(path))


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """Open each path that is a run, or every run directly inside it. Raises UserError when there is none."""
    found: list[Run] = []
    for path in paths:
        inside = sorted(folder.parent for folder in path.glob("*/manifest.json")) if path.is_dir() else []
        runs = [path] if (path / "manifest.json").exists() or not inside else inside
        found += [open_run(folder) for folder in runs]
    return found


def begin_run(path: Path, spec: Mapping[str, Any]) -> Run | None:
    """The run that `path` already holds, to go on with, or None when the folder is free for a new one.

    What a killed writer left unfinished is set aside (`storage.resuming`). Call it under `writing`. Raises UserError
    when the folder holds something else or a run of another spec.
    """
    if (path / "manifest.json").exists():
        run = Run(path, read_manifest(path))
        same = read_json(json.dumps(spec, default=str))
        for name in [*same, *(key for key in run.spec if key not in same)]:
            if run.spec.get(name) != same.get(name):
                raise UserError(
                    f"'{path}' holds a run with {name} = {run.spec.get(name)!r}, not {same.get(name)!r}; "
                    "choose another --out, or repeat the command that made it to go on with it"
                )
        take_over(run)
        return run
    # A run killed before its first manifest leaves only these; they are made again.
    own = (".lock", ".writer", "problems.parquet", SET_ASIDE)
    strangers = [file.name for file in path.iterdir() if file.name not in own and not file.name.endswith(UNFINISHED)]
    if strangers:
        raise UserError(f"'{path}' is in use: it holds {sorted(strangers)[0]} and no run; choose an empty or new --out")
    set_aside_unfinished(path)
    return None


def take_over(run: Run) -> None:
    """Set aside what a killed writer left unfinished, and close its sittings. Call it under `writing`."""
    set_aside_unfinished(run.path)
    set_aside_torn(run.path)
    if any(map(is_open, run.manifest["segments"])):
        close_killed(run.manifest, run.timing_table(), run.completion_columns("problem_id", "segment", "finished_s"))


def make_run(path: Path, spec: Mapping[str, Any], problems: Sequence[Mapping[str, Any]]) -> Run:
    """Write a new run's manifest and problems: rows with problem_id, prompt (the exact text), gold and meta."""
    rows = [dict(row) | {"meta": json.dumps(dict(row["meta"]), default=str)} for row in problems]
    write_table(path / "problems.parquet", rows, PROBLEMS)
    run = Run(path, new_manifest(spec, rows))
    run.save()
    return run
