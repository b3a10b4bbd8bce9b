"""A run folder: made, locked, resumed, read.

    RUN/manifest.json  problems.parquet  completions/*.parquet  verdicts/*.parquet  scores/*.parquet  timing.parquet

One process writes a run at a time, by a lock of the operating system that dies with it. Reading needs no lock.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock

from harness.budgets import Budget, Scope, parse_budget
from harness.errors import UserError
from harness.manifest import new_manifest, read_manifest, write_manifest
from harness.nouns import Completion
from harness.records import (
    COMPLETIONS,
    PROBLEMS,
    SCORES,
    TIMING,
    VERDICTS,
    append_part,
    last_of_each,
    read_part,
    read_parts,
    write_table,
)

KEY = ("problem_id", "sample_index")


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
        return [row | {"meta": json.loads(row["meta"])} for row in rows]

    def completions(self) -> list[dict[str, Any]]:
        """Every stored completion once, in the order of storing."""
        return last_of_each(read_parts(self.path / "completions", COMPLETIONS).to_pylist(), KEY)

    def stored(self) -> list[dict[str, Any]]:
        """The columns of the completions that resuming needs; no text is read into Python."""
        columns = [*KEY, "finish_reason", "finished_s", "completion_tokens", "prefill_flops", "decode_flops"]
        rows: list[dict[str, Any]] = read_parts(self.path / "completions", COMPLETIONS).select(columns).to_pylist()
        return last_of_each(rows, KEY)

    def verdicts(self) -> list[dict[str, Any]]:
        """The latest verdict of each graded completion."""
        return last_of_each(read_parts(self.path / "verdicts", VERDICTS).to_pylist(), KEY)

    def scores(self) -> list[dict[str, Any]]:
        """The latest scores of each completion, by reward model."""
        return last_of_each(read_parts(self.path / "scores", SCORES).to_pylist(), (*KEY, "reward_model"))

    def save(self) -> None:
        """Write the manifest."""
        write_manifest(self.path, self.manifest)

    def add_completions(self, completions: Sequence[Completion]) -> None:
        """Store whole completions as one part."""
        append_part(self.path / "completions", [asdict(completion) for completion in completions], COMPLETIONS)

    def add_verdicts(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store verdict rows as one part."""
        append_part(self.path / "verdicts", rows, VERDICTS)

    def add_scores(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store reward scores as one part."""
        append_part(self.path / "scores", rows, SCORES)

    def timing(self) -> list[dict[str, Any]]:
        """The rows of timing.parquet, one per scope that has ended."""
        path = self.path / "timing.parquet"
        rows: list[dict[str, Any]] = read_part(path, TIMING).to_pylist() if path.is_file() else []
        return rows

    def add_timing(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to timing.parquet; the file is small and replaced whole."""
        write_table(self.path / "timing.parquet", [*self.timing(), *rows], TIMING)


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


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold the run folder's lock. Raises UserError naming the holder's process when another one writes there.

    A folder in which no run came about is left as it was: what this made is taken away again.
    """
    if path.is_file():
        raise UserError(f"'{path}' is a file; --out wants a folder")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path / ".lock", blocking=False):
            (path / ".writer").write_text(f"{os.getpid()}\n")
            try:
                yield
            finally:
                (path / ".writer").unlink(missing_ok=True)
                if not (path / "manifest.json").exists():
                    clear_away(path, made)
    except filelock.Timeout:
        raise UserError(
            f"another process ({read_holder(path)}) is writing '{path}'; wait for it or choose another --out"
        ) from None
    except PermissionError as error:
        raise UserError(f"cannot write in '{path}' ({error.strerror}); choose another --out") from None


def clear_away(path: Path, made: Sequence[Path]) -> None:
    """Remove the lock and the folders that were made for a run that did not come about."""
    (path / ".lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for folder in made:
            folder.rmdir()


def read_holder(path: Path) -> str:
    """The process that holds the lock, for a sentence."""
    try:
        return f"process {int((path / '.writer').read_text())}"
    except (OSError, ValueError):
        return "unknown process"


def begin_run(path: Path, spec: Mapping[str, Any]) -> Run | None:
    """The run that `path` already holds, to go on with, or None when the folder is free for a new one.

    Call it under `writing`. Raises UserError when the folder holds something else or a run of another spec.
    """
    if (path / "manifest.json").exists():
        run = Run(path, read_manifest(path))
        same = json.loads(json.dumps(spec, default=str))
        for name in [*same, *(key for key in run.spec if key not in same)]:
            if run.spec.get(name) != same.get(name):
                raise UserError(
                    f"'{path}' holds a run with {name} = {run.spec.get(name)!r}, not {same.get(name)!r}; "
                    "choose another --out, or repeat the command that made it to go on with it"
                )
        return run
    # A run killed before its first manifest leaves only these; they are made again.
    own = (".lock", ".writer", "problems.parquet")
    strangers = [file.name for file in path.iterdir() if file.name not in own and not file.name.endswith(".unfinished")]
    if strangers:
        raise UserError(f"'{path}' is in use: it holds {sorted(strangers)[0]} and no run; choose an empty or new --out")
    return None


def make_run(path: Path, spec: Mapping[str, Any], problems: Sequence[Mapping[str, Any]]) -> Run:
    """Write a new run's manifest and problems: rows with problem_id, prompt (the exact text), gold and meta."""
    rows = [dict(row) | {"meta": json.dumps(dict(row["meta"]), default=str)} for row in problems]
    write_table(path / "problems.parquet", rows, PROBLEMS)
    run = Run(path, new_manifest(spec, rows))
    run.save()
    return run
