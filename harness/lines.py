"""Text files read line by line, plain or gzipped, with errors a person can act on.

A small file may unpack to more than any memory holds: what is read at once is bounded.
"""

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, AnyStr

from harness.errors import UserError

LONGEST_LINE = 1 << 28
"""Characters of a line, or bytes of a file that is read whole; longer ones are refused."""
PIECE = 1 << 20
"""Bytes that are asked for at once."""


def is_file(path: Path) -> bool:
    """Whether there is such a file; there is none of a name that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


@contextlib.contextmanager
def open_lines(path: Path) -> Iterator[Iterator[str]]:
    """Open a UTF-8 text file, gzipped when its name ends in `.gz`, as its lines with their ends.

    Raises UserError when it is not there or, also while it is read, when it is no such text or a line is too long.
    """
    if not is_file(path):
        raise UserError(f"no file '{path}' (looked from {Path.cwd()})")
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8") as file:
                yield bounded(path, file)
        else:
            with path.open(encoding="utf-8") as file:
                yield bounded(path, file)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"'{path}' cannot be read as UTF-8 text ({error})") from None


def bounded(path: Path, file: IO[AnyStr]) -> Iterator[AnyStr]:
    """The lines of a file. Raises UserError at one that is too long."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise UserError(f"{path}, line {number}: is longer than {LONGEST_LINE:,} characters")
        yield line


def read_bounded(path: Path, file: IO[bytes], limit: int = LONGEST_LINE) -> bytes:
    """The rest of a file, at most so many bytes. Raises UserError when there are more."""
    content = read_upto(file, limit + 1)
    if len(content) > limit:
        raise UserError(f"'{path}' unpacks to more than {limit:,} bytes")
    return content


def read_upto(file: IO[bytes], count: int) -> bytes:
    """So many bytes, or what there is; memory is taken for what comes and not for what is asked for."""
    pieces = bytearray()
    while len(pieces) < count and (piece := file.read(min(PIECE, count - len(pieces)))):
        pieces += piece
    return bytes(pieces)
