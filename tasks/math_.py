"""`math`: competition problems with worked solutions (MATH, Hendrycks et al. 2021, arXiv 2103.03874), 5,000 test rows.

The module has an underscore because the standard library owns the name `math`.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from harness.errors import UserError
from harness.nouns import Problem, Task

from .data import Hub, Row, as_row, file_bytes, parsed, read_rows, when_needed, with_distinct_ids
from .fewshot import COMPETITION, Example, shots
from .gold import last_boxed
from .grading import extract_explicit, extract_explicit_cut, grade, group
from .prompts import chat

Split = Literal["test", "train"]

SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
MEMBER = re.compile(r"(?:^|/)(?P<id>(?P<split>train|test)/[a-z_]+/\d+\.json)$", re.ASCII)
SEVERAL = re.compile(r"separated by|all possible values")
LARGEST_MEMBER_BYTES = 1_000_000


def math(
    split: Split = "test",
    level: tuple[int, ...] | None = None,
    subject: str | None = None,
    data: str | None = None,
    num_fewshot: int = 0,
) -> Task:
    """Competition problems of seven subjects and levels 1 to 5.

    `level` and `subject` keep only what they name. `data` is a file with `problem`, `solution`, `level` and `type`, or
    the original archive MATH.tar.gz, or the folder MATH it unpacks to; without it the split comes from
    EleutherAI/hendrycks_math on the hub. Two training rows whose solution boxes nothing are left out. Raises UserError
    on data that cannot be read, on a level or a subject that no problem has and on more than 6 few-shot examples.
    """
    examples = shots("math", COMPETITION, num_fewshot)

    def read() -> Sequence[Problem]:
        rows = math_rows(data, split)
        problems = with_distinct_ids(as_problem(row, split, examples) for row in rows if gold_of(row))
        return keep("math", problems, level, subject)

    return Task("math", when_needed(data, read), extract_explicit, grade, extract_explicit_cut, group)


def as_problem(row: Row, split: Split, examples: Sequence[Example]) -> Problem:
    """One row as a problem; its id is the original file's name where the row knows it, else its number."""
    known = row.fields.get("unique_id") or f"{split}/{row.fields.get('idx', row.index)}"
    return Problem(f"math/{known}", chat(row.text("problem"), examples), gold_of(row), meta_of(row))


def gold_of(row: Row) -> str:
    r"""The last `\boxed{}` of the solution, or where the question asks for several answers all that its end names.

    It is empty in two training rows. Raises UserError where there is no box.
    """
    solution = row.text("solution")
    gold = last_boxed(solution)
    if gold is None:
        raise UserError(rf"{row.where}: field 'solution' has no \boxed{{...}} that holds the answer")
    return extract_explicit(solution) or gold if SEVERAL.search(row.text("problem")) else gold


def meta_of(row: Row) -> dict[str, str | int | float]:
    """Subject, solution and level of a row of MATH or MATH-500; a level that is not known is left out."""
    meta: dict[str, str | int | float] = {"subject": row.text("type", "subject"), "solution": row.text("solution")}
    level = re.fullmatch(r"(?:Level )?(\d)", str(row.value("level")))
    return {**meta, "level": int(level.group(1))} if level else meta


def keep(
    task: str, problems: Sequence[Problem], level: tuple[int, ...] | None, subject: str | None
) -> Sequence[Problem]:
    """The problems of the levels and the subject named. Raises UserError on unknown ones and where nothing is kept."""
    if level is not None and not set(level) <= {1, 2, 3, 4, 5}:
        raise UserError(f"{task}: level must be 1 to 5, got {', '.join(map(str, level))}")
    if subject is not None and plain_subject(subject) not in SUBJECTS:
        raise UserError(f"{task}: no subject {subject!r}; there are {', '.join(SUBJECTS)}")
    kept = [
        problem
        for problem in problems
        if (level is None or problem.meta.get("level") in level)
        and (subject is None or plain_subject(str(problem.meta["subject"])) == plain_subject(subject))
    ]
    if not kept:
        raise UserError(f"{task}: no problem is left with level={level} and subject={subject}; the data has other ones")
    return kept


def plain_subject(name: str) -> str:
    """'Counting & Probability' as the original folder spells it: 'counting_and_probability'."""
    return name.strip().lower().replace("&", "and").replace(" ", "_")


def math_rows(data: str | None, split: Split) -> Sequence[Row]:
    """The rows of a split, from the hub, the original archive or folder, or one file."""
    if data is None:
        return [row for subject in SUBJECTS for row in hub_subject(subject, split)]
    path = Path(data)
    if path.is_dir():
        return original_rows(data, split, folder_members(path))
    if path.name.endswith((".tar.gz", ".tgz", ".tar")):
        return original_rows(data, split, archive_members(path))
    return read_rows(data, Hub("EleutherAI/hendrycks_math", split))


def hub_subject(subject: str, split: Split) -> Iterator[Row]:
    """One subject of a split on the hub; its rows are known by subject and number."""
    for row in read_rows(None, Hub("EleutherAI/hendrycks_math", split, subject)):
        yield replace(row, fields={**row.fields, "unique_id": f"{split}/{subject}/{row.index}"})


def original_rows(data: str, split: Split, members: Iterator[tuple[str, bytes]]) -> list[Row]:
    """The rows of one split in the original layout SPLIT/SUBJECT/NUMBER.json, in the order of subject and number."""
    matched = ((MEMBER.search(name), content) for name, content in members)
    found = {match["id"]: content for match, content in matched if match and match["split"] == split}
    if not found:
        raise UserError(f"{data}: no problem at {split}/SUBJECT/NUMBER.json; give MATH.tar.gz or its folder MATH")
    rows = []
    for index, name in enumerate(sorted(found, key=subject_and_number)):
        row = as_row(parsed(found[name], f"{data}, {name}"), index, f"{data}, {name}")
        rows.append(replace(row, fields={**row.fields, "unique_id": name}))
    return rows


def subject_and_number(name: str) -> tuple[str, int]:
    """The sorting key of 'test/algebra/12.json': its folder, then its number."""
    folder, _, number = name.rpartition("/")
    return folder, int(number.removesuffix(".json"))


def folder_members(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files at SPLIT/SUBJECT/NUMBER.json of a folder, or of a folder MATH in it."""
    for path in (*folder.glob("t*/*/*.json"), *folder.glob("MATH/t*/*/*.json")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), file_bytes(path)


def archive_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The plain files of a tar archive, read in memory: nothing is unpacked, so no name in it can reach the disk."""
    if not path.is_file():
        raise UserError(f"no data file {str(path)!r}; --data takes a path to MATH.tar.gz")
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() and MEMBER.search(member.name) else None
                if content is None:
                    continue
                if member.size > LARGEST_MEMBER_BYTES:
                    raise UserError(f"{path}, {member.name}: {member.size} bytes are too many for one problem")
                yield member.name, content.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a readable tar archive ({error}); get the file again") from None
