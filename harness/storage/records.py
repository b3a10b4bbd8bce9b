"""Parquet parts: append-only, each made whole under another name and renamed into place, never rewritten.

The units stand in the column names and, spelled out, in the Arrow metadata of each field. Any Parquet reader opens a
folder of parts as one table. A part carries checksums: its own digest in its name, and one in each of its pages, which
every reading here verifies.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import UserError
from harness.inert import all_storable
from harness.storage.storing import SIGNED_DIGITS, put, sentence_of

SCHEMA_VERSION = "1"


def column(name: str, kind: pa.DataType, unit: str = "", nullable: bool = False) -> pa.Field:
    """One Arrow field with its unit in the metadata."""
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit} if unit else None)


def schema(*columns: pa.Field) -> pa.Schema:
    """A schema that carries the version of these records."""
    return pa.schema(list(columns), metadata={"ttc_schema": SCHEMA_VERSION})


COMPLETIONS = schema(
    column("problem_id", pa.string()),
    column("sample_index", pa.int32()),
    column("segment", pa.int32()),
    column("text", pa.large_string()),
    column("finish_reason", pa.string()),
    column("error", pa.string(), nullable=True),
    column("prompt_tokens", pa.int32(), "tokens"),
    column("completion_tokens", pa.int32(), "tokens"),
    column("logprob", pa.float64(), "nats", nullable=True),
    column("seed", pa.int64()),
    column("submitted_s", pa.float64(), "seconds since the scope's clock began"),
    column("started_s", pa.float64(), "seconds since the scope's clock began"),
    column("first_token_s", pa.float64(), "seconds since the scope's clock began", nullable=True),
    column("finished_s", pa.float64(), "seconds since the scope's clock began"),
    column("batch_size", pa.float64(), "mean rows in flight"),
    column("prefill_flops", pa.float64(), "FLOP"),
    column("decode_flops", pa.float64(), "FLOP"),
    column("spent_flops", pa.float64(), "FLOP of the scope when it finished; null without a strategy", nullable=True),
    column("spent_tokens", pa.int64(), "tokens of the scope when it finished; null without a strategy", nullable=True),
)
VERDICTS = schema(
    column("problem_id", pa.string()),
    column("sample_index", pa.int32()),
    column("answer", pa.string(), nullable=True),
    column("answer_class", pa.int32(), nullable=True),
    column("verdict", pa.string()),
    column("reason", pa.string()),
    column("ms", pa.float64(), "milliseconds of grading"),
)
SCORES = schema(
    column("problem_id", pa.string()),
    column("sample_index", pa.int32()),
    column("reward_model", pa.string()),
    column("scores", pa.list_(pa.float64())),
    column(
        "scored_s", pa.float64(), "seconds since the scope's clock began; null when scored afterwards", nullable=True
    ),
    column("reward_s", pa.float64(), "seconds of scoring; null in runs from before it was kept", nullable=True),
    column("reward_flops", pa.float64(), "FLOP of scoring; null in runs from before it was kept", nullable=True),
)
KINDS = {"completions": COMPLETIONS, "verdicts": VERDICTS, "scores": SCORES}
"""The folders of parts that a run keeps, and the columns of their rows."""
PROBLEMS = schema(
    column("problem_id", pa.string()),
    column("prompt", pa.large_string()),
    column("gold", pa.string()),
    column("meta", pa.string(), "JSON"),
)
TIMING = schema(
    column("segment", pa.int32()),
    column("phase", pa.string()),
    column("problem_id", pa.string(), nullable=True),
    column("elapsed_s", pa.float64(), "seconds"),
    column("spent", pa.float64(), "the budget's unit", nullable=True),
    column("overshoot_s", pa.float64(), "seconds", nullable=True),
    column("overshoot_steps", pa.float64(), "decode steps", nullable=True),
    column("overshoot", pa.float64(), "the budget's unit", nullable=True),
    column("outside_s", pa.float64(), "seconds in which the engine waited for the harness", nullable=True),
)


def table_of(rows: Sequence[Mapping[str, Any]], columns: pa.Schema) -> pa.Table:
    """Rows as an Arrow table; what a row lacks is null."""
    try:
        return pa.Table.from_pylist([dict(row) for row in rows], schema=columns)
    except UnicodeEncodeError:  # half a character in a text
        return pa.Table.from_pylist([all_storable(dict(row)) for row in rows], schema=columns)


def columns_of(things: Sequence[Any], columns: pa.Schema, **same: Any) -> pa.Table:
    """Objects with an attribute for each column as an Arrow table; `same` gives columns with one value for all."""
    arrays = [
        array_of([same[field.name]] * len(things) if field.name in same else list(map(attrgetter(field.name), things)),
                 field.type)
        for field in columns
    ]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=columns)


def array_of(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Values as an Arrow array, texts as UTF-8 can hold them."""
    try:
        return pa.array(values, type=kind)
    except UnicodeEncodeError:
        return pa.array(all_storable(values), type=kind)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]] | pa.Table, columns: pa.Schema) -> None:
    """Write one whole Parquet file (`harness.storage.storing.put`). Raises UserError when the file system refuses."""
    write_signed(path, rows, columns, signed=False)


def write_signed(
    path: Path, rows: Sequence[Mapping[str, Any]] | pa.Table, columns: pa.Schema, signed: bool = True
) -> None:
    """Write one whole Parquet file with its digest in its name (`harness.storage.storing.put`). Raises UserError."""
    table = rows if isinstance(rows, pa.Table) else table_of(rows, columns)
    put(path, lambda sink: pq.write_table(table, sink, compression="zstd", write_page_checksum=True), signed)


def parts(folder: Path) -> list[Path]:
    """The whole parts of a folder in the order they were written; unfinished ones are hidden files and left out.

    Raises UserError when a file has no part's name, or is no file.
    """
    found = [path for path in folder.glob("*.parquet") if not path.name.startswith(".")]
    for path in found:
        require_file(path)
    return sorted(found, key=number_of)


def require_file(path: Path) -> None:
    """Raises UserError for what is there and no file: reading a pipe would never end."""
    if path.exists() and not path.is_file():
        raise UserError(f"'{path}' is no file of a run; move it away to go on")


def number_of(part: Path) -> int:
    """A part's number, with which its name begins. Raises UserError when it is no part's name."""
    found = re.fullmatch(rf"(\d{{1,18}})(-[0-9a-f]{{{SIGNED_DIGITS}}})?", part.stem, re.ASCII)
    if found is None:
        raise UserError(f"'{part}' is no part of a run, which has a number for a name; move it away to go on")
    return int(found[1])


def next_number(folder: Path) -> int:
    """The number that the next part of a folder gets."""
    there = parts(folder)
    return number_of(there[-1]) + 1 if there else 0


def append_part(folder: Path, rows: Sequence[Mapping[str, Any]] | pa.Table, columns: pa.Schema, first: int = 0) -> None:
    """Add a part after those that are there, from number `first` on; nothing is written for no rows."""
    if len(rows):
        write_signed(folder / f"{max(first, next_number(folder)):06d}.parquet", rows, columns)


def read_part(path: Path, columns: pa.Schema, only: Sequence[str] | None = None) -> pa.Table:
    """Read one part, all columns of the schema or `only` some of them; a nullable one that it lacks is null.

    Raises UserError when the file cannot be read, is of another version, or lacks a column that must be there, and
    Damaged when its content is not what was stored.
    """
    with opened_part(path) as opened:
        check_version(path, opened.schema_arrow)
        table = opened.read(columns=list(only) if only else None, use_threads=False)
        check_form(table, opened, columns)
    wanted = [columns.field(name) for name in only or columns.names]
    for field in wanted:
        if field.name not in table.column_names:
            if not field.nullable:
                raise UserError(f"the record '{path}' lacks the column '{field.name}'; move it away to go on")
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select([field.name for field in wanted])


class Damaged(UserError):
    """A record whose content is not what was stored."""


@contextlib.contextmanager
def opened_part(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file that is open for reading. Raises UserError, of a damaged file Damaged."""
    require_file(path)
    try:
        with path.open("rb") as file:
            # Without Arrow's thread pools: a process that ends while they start is aborted (pyarrow 26, seen at exit).
            yield pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
    except (OSError, pa.ArrowException, UnicodeDecodeError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(sentence_of(error, path, "read")) from None
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise Damaged(
            f"the record '{path}' cannot be read, for it is damaged ({first}); `ttc doctor RUN --repair DIR` makes a "
            "new run of what is whole"
        ) from None


def check_version(path: Path, found: pa.Schema) -> None:
    """Refuse records of another version. Raises UserError."""
    version = (found.metadata or {}).get(b"ttc_schema", b"?").decode()
    if version != SCHEMA_VERSION:
        raise UserError(
            f"the record '{path}' has schema version {version}; this program reads version {SCHEMA_VERSION}"
        )


def check_form(table: pa.Table, opened: pq.ParquetFile, columns: pa.Schema) -> None:
    """Find damage where Parquet has no checksums, in footers and in headers of pages. Raises ArrowInvalid."""
    if table.num_rows != opened.metadata.num_rows:
        raise pa.ArrowInvalid(f"{table.num_rows} rows of {opened.metadata.num_rows}")
    there, known = set(opened.schema_arrow.names), set(columns.names)
    if (known - there) and (there - known):
        # A younger program's column that nobody here knows, or the name of one that is missing, changed.
        raise pa.ArrowInvalid(f"no column {min(known - there)!r}, but {min(there - known)!r:.40}")
    for field in table.schema:
        if field.name in known and field.type != columns.field(field.name).type:
            raise pa.ArrowInvalid(f"the column {field.name!r} holds {field.type}")


def each_part(folder: Path, columns: pa.Schema, only: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The parts of a folder one after the other, in the order they were written; one at a time is in memory."""
    for path in parts(folder):
        yield read_part(path, columns, only)


def read_parts(folder: Path, columns: pa.Schema, only: Sequence[str] | None = None) -> pa.Table:
    """All parts of a folder as one table in the order they were written; an empty table when there are none."""
    tables = list(each_part(folder, columns, only))
    if tables:
        return pa.concat_tables(tables)
    return (pa.schema([columns.field(name) for name in only]) if only else columns).empty_table()


def last_of_each(rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """One row per key, the one written last: how a later grading supersedes an earlier one without rewriting it."""
    return list({tuple(row[key] for key in keys): dict(row) for row in rows}.values())
