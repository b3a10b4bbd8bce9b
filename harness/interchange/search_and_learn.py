"""The completion files of search-and-learn: JSON lines or Parquet, one problem a row with all its completions.

`problem`, `answer`, `unique_id` are the data set's; `completions`, `scores` (step scores of each), `agg_scores` (one
number of each) and `completion_tokens` are lists alike in length.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.interchange.reading import json_lines

MAGIC = b"PAR1"


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every completion of every problem. Raises UserError naming the row that is malformed."""
    for number, (where, row) in enumerate(problem_rows(file)):
        for completion in completions_of(where, row, str(number)):
            yield where, completion


def problem_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The file's rows, a batch at a time where it is Parquet."""
    with file.open("rb") as opened:
        is_parquet = opened.read(4) == MAGIC
    if not is_parquet:
        yield from json_lines(file)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=16, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}, row {number}", row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{file}' cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def completions_of(where: str, row: Mapping[str, Any], number: str) -> Iterator[dict[str, Any]]:
    """The completions of one problem in our own form."""
    texts = row.get("completions")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: completions wants a list of texts; the row has {', '.join(sorted(row)) or 'none'}")
    shared = {
        "problem_id": str(row.get("unique_id") or row.get("id") or number),
        "gold": str(row.get("answer") or ""),
        "prompt": str(row.get("problem") or ""),
    }
    lists = {
        "reward": listed(where, row, "scores" if row.get("scores") is not None else "agg_scores", len(texts)),
        "completion_tokens": listed(where, row, "completion_tokens", len(texts)),
    }
    for index, text in enumerate(texts):
        more = {name: values[index] for name, values in lists.items() if values is not None}
        yield shared | {"sample_index": index, "text": text} | more


def listed(where: str, row: Mapping[str, Any], name: str, count: int) -> list[Any] | None:
    """A column with a value for each completion, None where it is not there."""
    values = row.get(name)
    if not isinstance(values, list):
        return None
    if len(values) != count:
        raise UserError(f"{where}: {name} has {len(values)} entries for {count} completions")
    return values
