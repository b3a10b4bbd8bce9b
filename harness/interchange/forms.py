"""The forms of recorded completions that `ttc import` reads, told apart by what a file holds."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import UserError, choices
from harness.interchange import inspect_logs, lm_eval, search_and_learn
from harness.interchange.reading import json_lines, peek

Rows = Iterator[tuple[str, dict[str, Any]]]
"""Where a row stands, for an error sentence, and the row in our own form, not checked yet."""

READERS: dict[str, Callable[[Path], Rows]] = {
    "ttc": json_lines,
    "lm-eval": lm_eval.read_rows,
    "inspect": inspect_logs.read_rows,
    "search-and-learn": search_and_learn.read_rows,
}


def read_rows(file: Path, form: str | None = None) -> Rows:
    """The rows of a file in whichever form it is, or in the one named.

    Raises UserError when there is no such form, or the file is in none that can be imported.
    """
    if form is not None and form not in READERS:
        raise UserError(f"there is no form '{form}' to import from; write --from with one of {choices(list(READERS))}")
    return READERS[form or recognise(file)](file)


def recognise(file: Path) -> str:
    """The name of a file's form; our own where it is none of the others, so that its reader says what is wrong.

    Raises UserError when the file is not there, or is a summary that holds no completions.
    """
    head, first = peek(file)
    if head.startswith(b"PK\x03\x04") or inspect_logs.is_log(file, head):
        return "inspect"
    if head.startswith(b"PAR1"):
        return "search-and-learn"
    if lm_eval.is_results(head):
        raise UserError(f"'{file}' holds lm-eval's results without samples; import the samples_*.jsonl beside it")
    if "resps" in first and "doc_id" in first:
        return "lm-eval"
    return "search-and-learn" if isinstance(first.get("completions"), list) else "ttc"
