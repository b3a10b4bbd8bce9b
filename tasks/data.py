"""Reads the rows of a data set: a local file with the set's own field names, or a split on the Hugging Face hub.

It knows files and fields, not tasks: what a row means is the task's to say. Complaints name the file and the line.
"""

import csv
import functools
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, NamedTuple, cast, overload

from harness.errors import UserError, choices
from harness.inert import read_json
from harness.lines import read_bounded
from harness.nouns import Problem

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
NUMBER = re.compile(r"[-+]?(\d{1,3}(,\d{3})+|\d+)(\.\d*)?([eE][-+]?\d{1,2})?", re.ASCII)
LARGEST_BYTES = 1 << 30
"""A data file may unpack to so many."""
WANTED = ".jsonl, .json, .csv or .parquet, plain or gzipped (.gz)"


class Hub(NamedTuple):
    """One split of a data set on the hub, in the words of `datasets.load_dataset`."""

    name: str
    split: str
    config: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its fields, its number from 0, and where it was read, for complaints."""

    fields: Mapping[str, Any]
    index: int
    where: str

    def value(self, *names: str) -> Any:
        """The first of the named fields that is there and not null. Raises UserError where none is."""
        for name in names:
            if self.fields.get(name) is not None:
                return self.fields[name]
        wanted = " or ".join(repr(name) for name in names)
        raise UserError(f"{self.where}: no field {wanted}; this row has {choices([str(name) for name in self.fields])}")

    def has(self, *names: str) -> bool:
        """Whether one of the named fields is there and not null."""
        return any(self.fields.get(name) is not None for name in names)

    def text(self, *names: str) -> str:
        """The first named field that is there, a text that is not blank, stripped. Raises UserError otherwise."""
        found = self.value(*names)
        if not isinstance(found, str) or not found.strip():
            raise self.complaint(names, "a text", found)
        return found.strip()

    def number(self, *names: str) -> str:
        """The first named field that is there as a plain decimal: 27.0, "27" and "027" are "27", "1,234" is "1234".

        Raises UserError where it is not a number.
        """
        found = self.value(*names)
        try:
            return plain_number(str(found))
        except ValueError:
            raise self.complaint(names, "a number", found) from None

    def complaint(self, names: Sequence[str], wanted: str, found: Any) -> UserError:
        """The error for a field that holds the wrong thing."""
        name = next(name for name in names if self.fields.get(name) is not None)
        return UserError(f"{self.where}: field {name!r} must be {wanted}, not {shown(found)}")


def shown(value: Any) -> str:
    """A value as an error sentence quotes it: its repr, cut after 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def plain_number(text: str) -> str:
    """Spell a decimal number without thousands commas, leading zeros, exponent or a zero fraction.

    Raises ValueError where `text` is no such number or its exponent has more than two digits.
    """
    if not NUMBER.fullmatch(text.strip()):
        raise ValueError(f"not a number: {text!r}")
    spelled = format(Decimal(text.strip().replace(",", "")), "f")
    if "." in spelled:
        spelled = spelled.rstrip("0").rstrip(".")
    return "0" if spelled in ("-0", "") else spelled


def read_rows(data: str | None, hub: Hub) -> list[Row]:
    """The rows of `data`, a local file, or without it those of `hub`.

    Raises UserError on a file that is missing, empty, of another format or damaged, with the line where there is one,
    and when the hub does not give the data set.
    """
    rows = hub_rows(hub) if data is None else file_rows(Path(data))
    if not rows:
        raise UserError(f"{data or hub.name}: no rows in it; give the data set's own file ({WANTED})")
    return rows


def hub_rows(hub: Hub) -> list[Row]:
    """The rows of one split on the hub (from the local cache where it is). Raises UserError when that fails."""
    import datasets

    try:
        table = datasets.load_dataset(hub.name, hub.config, split=hub.split)
    except Exception as error:  # the client raises whatever its transport raised: one sentence for all of them
        cause = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(
            f"could not get the data set {hub.name} (split {hub.split}) from the Hugging Face hub ({cause}); "
            "give a local copy with --data FILE"
        ) from error
    return [Row(dict(fields), index, f"{hub.name}, row {index}") for index, fields in enumerate(table)]


def file_rows(path: Path) -> list[Row]:
    """The rows of a local file, read by the ending of its name. Raises UserError as `read_rows` says."""
    require_file(path)
    plain = path.name.removesuffix(".gz")
    ending = Path(plain).suffix.lower()
    if ending not in FORMATS:
        raise UserError(f"{path}: cannot tell the format from the name; data files are {WANTED}")
    content = file_bytes(path)
    if not content.strip():
        raise UserError(f"{path}: the file is empty; give the data set's own file ({WANTED})")
    if ending == ".parquet":
        return parquet_rows(path, content)
    if ending == ".csv":
        return csv_rows(path, content)
    if ending == ".json" and content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return json_rows(path, content)
    return jsonl_rows(path, content)


def require_file(path: Path) -> None:
    """Raise UserError unless `path` is a file that exists."""
    if path.is_dir():
        inside = [entry.name for entry in path.iterdir() if Path(entry.name.removesuffix(".gz")).suffix in FORMATS]
        raise UserError(f"{path} is a folder; give a data file in it with --data FILE ({choices(inside[:9])})")
    if not path.is_file():
        raise UserError(f"no data file {str(path)!r}; --data takes a path to a file ({WANTED})")


def file_bytes(path: Path) -> bytes:
    """The content of a file, unpacked where it is gzip, whatever its name. Raises UserError when it cannot be read."""
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            return read_bounded(path, cast(IO[bytes], gzip.open(file)) if is_packed else file, LARGEST_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); get the file again") from None


def as_row(fields: Any, index: int, where: str) -> Row:
    """Wrap one parsed JSON value. Raises UserError unless it is an object."""
    if not isinstance(fields, dict):
        raise UserError(f"{where}: wanted a JSON object with the data set's fields, found {shown(fields)}")
    return Row(fields, index, where)


def parsed(text: bytes, where: str) -> Any:
    """Read one JSON value. Raises UserError naming `where` and the column."""
    try:
        return read_json(text.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None
    except ValueError as error:
        raise UserError(f"{where}: not readable as JSON in UTF-8 ({error})") from None


def jsonl_rows(path: Path, content: bytes) -> list[Row]:
    """One JSON object per line; blank lines are passed over."""
    # only the newline byte ends a line: str.splitlines would also cut at U+2028, which JSON strings may hold
    numbered = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    return [
        as_row(parsed(line, f"{path}, line {number}"), index, f"{path}, line {number}")
        for index, (number, line) in enumerate(numbered)
    ]


def json_rows(path: Path, content: bytes) -> list[Row]:
    """One JSON array of objects; rows are counted from 1 in complaints."""
    return [as_row(each, index, f"{path}, entry {index + 1}") for index, each in enumerate(parsed(content, str(path)))]


def csv_rows(path: Path, content: bytes) -> list[Row]:
    """Comma-separated values with a header line; an empty cell is an absent field."""
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        return list(counted(path, reader))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None


def counted(path: Path, reader: "csv.DictReader[str]") -> Iterator[Row]:
    """Number the records of a CSV file by the line each ends on, refusing one with too many or too few cells."""
    index = 0
    try:
        for fields in reader:
            where = f"{path}, line {reader.line_num}"
            if None in fields or None in fields.values():
                raise UserError(f"{where}: not as many cells as the header has names; quote cells that hold a comma")
            yield Row({name: cell or None for name, cell in fields.items()}, index, where)
            index += 1
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def parquet_rows(path: Path, content: bytes) -> list[Row]:
    """One row per record of a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    try:
        # Without threads, which may abort a process that ends soon after.
        whole = pyarrow.parquet.ParquetFile(io.BytesIO(content), pre_buffer=False)
        records, size = [], 0
        for batch in whole.iter_batches(batch_size=256, use_threads=False):
            size += batch.nbytes
            if size > LARGEST_BYTES:
                raise UserError(f"{path}: unpacks to more than {LARGEST_BYTES:,} bytes")
            records += batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({next(iter(str(error).splitlines()), '')})") from None
    return [Row(fields, index, f"{path}, row {index + 1}") for index, fields in enumerate(records)]


def with_distinct_ids(problems: Iterable[Problem]) -> list[Problem]:
    """The problems as a list. Raises UserError where two have one id, since records are kept by it."""
    kept: dict[str, Problem] = {}
    for problem in problems:
        if problem.id in kept:
            raise UserError(f"two rows of the data have the id {problem.id!r}; each row needs an id of its own")
        kept[problem.id] = problem
    return list(kept.values())


class Deferred(Sequence[Problem]):
    """Problems that are read when somebody first looks at them, so that a task can grade without its data at hand."""

    def __init__(self, read: Callable[[], Sequence[Problem]]) -> None:
        self.read = read

    @functools.cached_property
    def problems(self) -> Sequence[Problem]:
        """Read them now. Raises UserError as the reading does."""
        return self.read()

    def __len__(self) -> int:
        return len(self.problems)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | Sequence[Problem]:
        return self.problems[index]


def when_needed(data: str | None, read: Callable[[], Sequence[Problem]]) -> Sequence[Problem]:
    """The problems of a local file now, those of the hub when they are first looked at."""
    return read() if data is not None else Deferred(read)
