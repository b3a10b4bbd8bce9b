"""A new run of what is whole in another: every whole part, without doubled rows and what is said of rows that are lost.

The old folder is only read.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checks.check import Finding
from harness.errors import UserError
from harness.running.scopes import Tally
from harness.storage.integrity import RECORDED, Survey, is_as_written, keys_in, survey_of, what_is_wrong
from harness.storage.locking import holder, is_being_written, writing
from harness.storage.manifest import digest
from harness.storage.records import KINDS, PROBLEMS, TIMING, append_part, number_of, read_part, write_table
from harness.storage.runs import KEY, Run, open_run
from harness.storage.storing import plainly, put

if TYPE_CHECKING:
    import numpy as np


def repair(path: Path, out: Path) -> list[Finding]:
    """Make the run `out` of what is whole in the run `path`; what was done, as findings.

    Raises UserError when `out` is in use or lies in the run, the run is being written, or its problems are damaged.
    """
    run = open_run(path)
    if out.resolve().is_relative_to(path.resolve()) or path.resolve().is_relative_to(out.resolve()):
        raise UserError(f"--repair makes a new run beside '{path}', not in or around it; choose another folder")
    if is_being_written(path):
        raise UserError(f"{holder(path)} is writing '{path}'; repair it when that has ended")
    stored = read_part(path / "problems.parquet", PROBLEMS)
    if digest(stored.to_pylist()) != run.manifest["problems"]["sha256"]:
        raise UserError(
            f"'{path / 'problems.parquet'}' is not what the run was made with, and nothing stands in for it"
        )
    survey = survey_of(run, stored["problem_id"].to_pylist())
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"'{out}' is in use; --repair makes a new run: choose an empty or new folder")
    with writing(out):
        made = Run(out, {name: value for name, value in run.manifest.items() if name != "parts"})
        copy(path / "problems.parquet", out / "problems.parquet")
        told = [f"{kind}: {rebuild(survey, made, kind)}" for kind in KINDS]
        told.append(f"timing: {rebuild_timing(survey, made)}")
        note(survey, made, told)
        made.save()
    again = f"type the command that made the run with --out {out} to sample and grade what is lost"
    if run.spec["engine"] == RECORDED:
        again = "import the recording again to get back what is lost"
    elif any(name.startswith("scores/") for name in lost_of(survey)):
        again += f", and ttc score {out} with --reward-model for the scores that are"
    return [Finding(f"rebuilt as '{out}'", True, "; ".join(told)), Finding("to go on", True, again)]


def copy(source: Path, target: Path) -> None:
    """Copy a whole file, durably. Raises UserError."""
    with plainly(source, "read"), source.open("rb") as file:
        put(target, lambda sink: shutil.copyfileobj(file, sink, 2**20))


def rebuild(survey: Survey, made: Run, kind: str) -> str:
    """Put a folder's whole parts into the new run, without the rows that do not count; how many rows, in words."""
    import pyarrow as pa

    rows = kept = 0
    for part, keep in zip(survey.whole.get(kind, []), kept_rows(survey, kind), strict=True):
        append_part(made.path / kind, read_part(part, KINDS[kind]).filter(pa.array(keep)), KINDS[kind])
        rows, kept = rows + len(keep), kept + int(keep.sum())
    return f"{kept} rows" + (f" ({rows - kept} left out)" if rows > kept else "")


def kept_rows(survey: Survey, kind: str) -> "list[np.ndarray]":
    """For each whole part of a folder which of its rows count.

    Of completions stored twice the later counts, as for every reader; of verdicts and scores all that are of
    completions which are there.
    """
    import numpy as np

    tally = Tally.empty(survey.problem_ids, 1)
    keys = [keys_in(read_part(part, KINDS[kind], KEY), tally) for part in survey.whole.get(kind, [])]
    if not keys:
        return []
    every = np.concatenate(keys)
    keep = np.isin(every, survey.keys["completions"])
    if kind == "completions":
        keep[:] = False
        keep[len(every) - 1 - np.unique(every[::-1], return_index=True)[1]] = True
    keep &= every >= 0
    return np.split(keep, np.cumsum([len(some) for some in keys])[:-1])


def rebuild_timing(survey: Survey, made: Run) -> str:
    """Put the timing that is whole into one file of the new run; how many rows, in words."""
    import pyarrow as pa

    folder, tables, folded = survey.run.path, [], 0
    if (folder / "timing.parquet").is_file() and what_is_wrong(folder / "timing.parquet", TIMING) is None:
        tables, folded = [read_part(folder / "timing.parquet", TIMING)], survey.run.folded()
    tables += [read_part(part, TIMING) for part in survey.whole.get("timing", []) if number_of(part) >= folded]
    table = pa.concat_tables([one.cast(TIMING) for one in tables]) if tables else TIMING.empty_table()
    write_table(made.path / "timing.parquet", table, TIMING)
    return f"{table.num_rows} rows"


def lost_of(survey: Survey) -> list[str]:
    """The parts that are damaged or missing."""
    return [str(part.relative_to(survey.run.path)) for part in survey.damaged] + survey.missing


def note(survey: Survey, made: Run, told: Sequence[str]) -> None:
    """Say in the new run's manifest what it is; with losses it is not VALID until a bench has gone on with it."""
    lost = lost_of(survey)
    if not is_as_written(survey.run):
        lost.append("manifest.json was not as it was written")
    made.manifest["repaired"] = {"from": survey.run.name, "kept": list(told), "lost": lost}
    if lost or any("left out" in one for one in told):
        reason = "the run was repaired and not gone on with since" + (f": {', '.join(lost)}" if lost else "")
        mend = "type the command that made it again, with --out"
        made.manifest["validity"] = {"verdict": "INVALID", "reasons": [reason], "mend": [mend]}
