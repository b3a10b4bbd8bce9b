"""Files of JSON lines and their beginnings, with errors that name the line."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from harness.errors import UserError
from harness.inert import read_json
from harness.lines import bounded, is_file, open_lines

HEAD = 4096


def json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where a line stands and its object, for each line that is not blank. Raises UserError naming the line."""
    with open_lines(file) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{file}, line {number}"
                yield where, read_object(where, line)


def read_object(where: str, text: str | bytes) -> dict[str, Any]:
    """One JSON object. Raises UserError that begins with `where`."""
    try:
        row = read_json(text)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(
            f"{where}: wants a JSON object with problem_id, gold, and text or answer, got {type(row).__name__}"
        )
    return row


def peek(file: Path) -> tuple[bytes, dict[str, Any]]:
    """The first bytes of a file, and the object in its first line, empty where that is none.

    Raises UserError when the file is not there or cannot be opened.
    """
    if not is_file(file):
        raise UserError(f"no file '{file}' (looked from {Path.cwd()})")
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            head = opened.read(HEAD)
            opened.seek(0)
            line = next((line for line in bounded(file, cast(IO[bytes], opened)) if line.strip()), b"")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"'{file}' cannot be read ({error})") from None
    try:
        first = read_json(line)
    except ValueError:
        first = None
    return head, first if isinstance(first, dict) else {}


def plain_text(content: Any) -> str:
    """Text, or the texts of chat messages or of parts of a message, in one string."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return plain_text(content.get("content", content.get("text", "")))
    return "\n\n".join(plain_text(part) for part in content) if isinstance(content, list | tuple) else ""
