"""Is a stored run as it was written? What is missing, damaged or doubled; nothing is changed.

Rows are held as a number each, so that a run of millions fits; texts are only hashed, never read, except in parts from
before parts carried their digest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checks.check import Finding, named
from harness.errors import UserError
from harness.nouns import Problem, Sampling
from harness.running.scopes import STORED_COLUMNS, Tally, plan
from harness.storage.locking import holder, is_being_written
from harness.storage.manifest import SIGNATURE, digest, signature
from harness.storage.records import KINDS, PROBLEMS, TIMING, number_of, parts, read_part
from harness.storage.resuming import SET_ASIDE, unfinished
from harness.storage.runs import KEY, Run, open_run
from harness.storage.storing import is_intact

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SCHEMAS = {**KINDS, "timing": TIMING}
RECORDED = "recorded"
"""The engine of a run of recorded completions."""


@dataclass(slots=True)
class Survey:
    """What was found in a run's folder.

    `whole` are the parts that are as they were stored, by kind; `damaged` says of others what is wrong with them;
    `missing` names parts whose number nobody has; `unsigned` counts parts that carry no digest. `keys` holds of each
    kind the key of every row of its whole parts (`keys_in`), -1 for a problem that the run has not.
    """

    run: Run
    problem_ids: Sequence[str]
    whole: dict[str, list[Path]] = field(default_factory=dict)
    damaged: dict[Path, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unsigned: int = 0
    keys: "dict[str, np.ndarray]" = field(default_factory=dict)


def examine_run(path: Path) -> list[Finding]:
    """Are all parts whole, is every completion there once and graded, are the problems those of the manifest?

    Raises UserError when the folder is no run, or one of another version.
    """
    run = open_run(path)
    busy = is_being_written(path)
    findings = [
        Finding(
            "no process is writing it", not busy, f"{holder(path)} is; look again when it has ended" if busy else ""
        ),
        Finding("the manifest is as it was written", is_as_written(run)),
    ]
    try:
        stored = read_part(path / "problems.parquet", PROBLEMS).to_pylist()
    except UserError as error:
        return [*findings, Finding("the problems are the manifest's", False, str(error))]
    same = digest(stored) == run.manifest["problems"]["sha256"]
    survey = survey_of(run, [row["problem_id"] for row in stored])
    return [*findings, Finding("the problems are the manifest's", same), *part_findings(survey), *row_findings(survey)]


def is_as_written(run: Run) -> bool:
    """Whether the manifest has the digest that was written with it; one from before there was a digest passes."""
    return run.manifest.get(SIGNATURE) in (None, signature(run.manifest))


def survey_of(run: Run, problem_ids: Sequence[str]) -> Survey:
    """Look at every part of a run. Raises UserError when a file among them has no part's name."""
    survey = Survey(run, problem_ids)
    for kind in SCHEMAS:
        look_at_parts(survey, kind)
    folded = run.path / "timing.parquet"
    if folded.is_file() and (wrong := what_is_wrong(folded, TIMING)):
        survey.damaged[folded] = wrong
    for kind in KINDS:
        survey.keys[kind] = keys_of_parts(survey, kind)
    return survey


def look_at_parts(survey: Survey, kind: str) -> None:
    """Sort the parts of one folder into whole and damaged, and find the numbers that are missing."""
    there = parts(survey.run.path / kind)
    for part in there:
        survey.unsigned += is_intact(part) is None
        if wrong := what_is_wrong(part, SCHEMAS[kind]):
            survey.damaged[part] = wrong
        else:
            survey.whole.setdefault(kind, []).append(part)
    numbers = {number_of(part) for part in there}
    if kind == "timing":
        return  # Its parts go into timing.parquet and are taken away.
    aside = survey.run.path / SET_ASIDE
    known = survey.run.manifest.get("parts", {}).get(kind, 0)
    for number in sorted(set(range(max([known, *(number + 1 for number in numbers)]))) - numbers):
        if not list(aside.glob(f"{kind}-{number:06d}*")):
            survey.missing.append(f"{kind}/{number:06d}")


def what_is_wrong(part: Path, columns: "pa.Schema") -> str | None:
    """Why a record cannot be used, None when it is as it was stored."""
    intact = is_intact(part)
    if intact is False:
        return f"'{part}' is not what was stored: its content has another digest than its name"
    try:
        read_part(part, columns, list(KEY)[:1] if intact else None)
    except UserError as error:
        return str(error)
    return None


def keys_of_parts(survey: Survey, kind: str) -> "np.ndarray":
    """The keys of all rows in the whole parts of one folder."""
    import numpy as np

    tally = Tally.empty(survey.problem_ids, 1)
    found = [keys_in(read_part(part, KINDS[kind], KEY), tally) for part in survey.whole.get(kind, [])]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def keys_in(part: "pa.Table", tally: Tally) -> "np.ndarray":
    """(rows,) the problem's number in the upper and the sample index in the lower 32 bits; -1 for a stranger's row."""
    import numpy as np

    problems, samples = tally.places(part)
    return np.where((problems >= 0) & (samples >= 0), problems << 32 | samples, -1)


def part_findings(survey: Survey) -> Iterator[Finding]:
    """What there is to say of the files."""
    path = survey.run.path
    count = sum(map(len, survey.whole.values()))
    detail = f"{count} parts" + (
        f", {survey.unsigned} of them from before they carried digests" * bool(survey.unsigned)
    )
    yield Finding("every part is as it was stored", not survey.damaged, named(list(survey.damaged.values())) or detail)
    yield Finding("no part is missing", not survey.missing, named(survey.missing))
    left = [str(file.relative_to(path)) for file in unfinished(path)]
    yield Finding("no part was left unfinished", not left, named(left))
    aside = sorted(file.name for file in (path / SET_ASIDE).glob("*"))
    if aside:
        yield Finding("what was set aside counts for nothing", True, named(aside))


def row_findings(survey: Survey) -> Iterator[Finding]:
    """What there is to say of the rows in whole parts, and the verdict on the run."""
    import numpy as np

    rows = survey.keys["completions"]
    samples = np.unique(rows[rows >= 0])
    doubled = len(rows[rows >= 0]) - len(samples)
    yield Finding("no completion is stored twice", not doubled, f"{len(rows)} rows, {len(samples)} samples")
    strangers = int((rows < 0).sum())
    yield Finding("every completion has its problem", not strangers, f"{strangers} have none" * bool(strangers))
    ungraded = len(np.setdiff1d(samples, survey.keys["verdicts"]))
    yield Finding("every completion is graded", not ungraded, f"{ungraded} without a verdict")
    for kind in ("verdicts", "scores"):
        strays = len(np.setdiff1d(survey.keys[kind], samples))
        yield Finding(f"the {kind} are of completions that are there", not strays, f"{strays} are not" * bool(strays))
    missing = samples_left(survey)
    yield Finding("every sample is there that was asked for", not missing, f"{missing} missing" * bool(missing))
    validity = survey.run.manifest["validity"]
    yield Finding("verdict", validity["verdict"] == "VALID", "; ".join([validity["verdict"], *validity["reasons"]]))


def samples_left(survey: Survey) -> int:
    """How many samples a bench that goes on with the run would ask for; none for recorded completions."""
    run = survey.run
    try:
        timing = run.timing_table()
    except UserError:
        return 0  # Without it nobody knows which scopes have ended; that it is damaged is told.
    if run.spec["engine"] == RECORDED:
        return 0
    tally = Tally.empty(survey.problem_ids, run.spec["samples"])
    for part in survey.whole.get("completions", []):
        tally.add(read_part(part, KINDS["completions"], STORED_COLUMNS))
    budget = run.budget
    spent = zip(timing["problem_id"].to_pylist(), timing["spent"].to_pylist(), strict=True)
    ended = {scope for scope, used in spent if budget is not None and used is not None and used >= budget.amount}
    problems = [Problem(name, "", "") for name in survey.problem_ids]
    left = plan(problems, run.spec["samples"], Sampling(), run.spec["protocol"], tally, ended)
    return sum(len(scope.requests) for scope in left)
