"""Files that can be made again, each replaced whole: what a report, a figure or a table of `ttc speed` consists of.

Several processes may write into one folder, so nothing is locked there but the part that is being written, by its
process, until it has its name. What a killed process leaves is locked by nobody, and the next one clears it away. For
what must outlive a power cut there is `harness.storage.storing`.
"""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path

from harness.storage.locking import is_same

PART = ".ttc-part"
"""How the name of a file ends that is not whole yet; it begins with a dot."""


def replace_file(path: Path, content: bytes | str) -> Path:
    """Write `content` beside `path` under a name of its own, then rename it into place; returns `path`.

    Text is UTF-8; a lone surrogate, which a file name may hold, is written as its escape. Raises OSError.
    """
    payload = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    part, descriptor = open_part(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
            file.flush()
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def open_part(path: Path) -> tuple[Path, int]:
    """A new locked file beside `path`, and its descriptor. Raises OSError."""
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        with suppress(OSError):  # Where there are no locks, nobody clears away either.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Whoever clears away may have found it before it was locked.
        if is_same(descriptor, part):
            return part, descriptor
        os.close(descriptor)


def clear_parts(folder: Path) -> None:
    """Take away what killed processes left unfinished in a folder and in those right inside it."""
    for part in (*folder.glob(f".*{PART}"), *folder.glob(f"*/.*{PART}")):
        with suppress(OSError):
            descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
            finally:
                os.close(descriptor)
