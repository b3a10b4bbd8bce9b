"""Text files read line by line, plain or gzipped, with errors a person can act on."""

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from harness.errors import UserError


@contextlib.contextmanager
def open_lines(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text file, gzipped when its name ends in `.gz`.

    Raises UserError when it is not there, or, also while it is read, when it is no such text.
    """
    if not path.is_file():
        raise UserError(f"no file '{path}' (looked from {Path.cwd()})")
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                yield lines
        else:
            with path.open(encoding="utf-8") as lines:
                yield lines
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read as UTF-8 text ({error})") from None
