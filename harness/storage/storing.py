"""Files that are whole or not there: written under another name, synced, renamed into place, and the folder synced.

Everything a run keeps is written here, in this order, so that a kill or a power cut at any instant leaves whole files
and hidden unfinished ones, a file that is there was there before whatever was stored after it, and a full disk ends in
one sentence.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.errors import UserError

UNFINISHED = ".unfinished"
"""How the name of a file ends that is not whole yet; it begins with a dot."""
SIGNED_DIGITS = 16
"""Hexadecimal digits of the SHA-256 of its content in the name of a signed file."""
BUFFERED_BYTES = 2**20
"""Bytes that wait in memory for one call of the operating system."""
MENDS = {
    "free some space": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "make it writable": (errno.EACCES, errno.EPERM, errno.EROFS),
    "put what it points to in the place of the link": (errno.ELOOP,),
    "see to the disk or the network it lies on": (
        errno.EIO, errno.ESTALE, errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.EHOSTDOWN,
        errno.ETIMEDOUT, errno.ENOLCK,
    ),
}  # fmt: skip
"""What mends an error of the file system, and which errors it mends."""


class Sink:
    """A new file as a writer of bytes sees it; it keeps the digest of what went through."""

    closed = False

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.size, self.digest, self.waiting = descriptor, 0, hashlib.sha256(), bytearray()

    def write(self, data: Any) -> int:
        """Take all of it; the number of bytes."""
        view = memoryview(data).cast("B")
        self.digest.update(view)
        self.waiting += view
        self.size += len(view)
        if len(self.waiting) >= BUFFERED_BYTES:
            self.flush()
        return len(view)

    def tell(self) -> int:
        """The bytes so far."""
        return self.size

    def flush(self) -> None:
        """Hand what waits to the operating system. Raises OSError."""
        done = 0
        with memoryview(self.waiting) as view:
            while done < len(view):
                done += os.write(self.descriptor, view[done:])
        self.waiting.clear()

    def close(self) -> None:
        """The descriptor is closed by who opened it."""


def put(path: Path, write: Callable[[Sink], object], signed: bool = False) -> Path:
    """Store a file that `write` writes; it is durable when this returns. Gives its path.

    A `signed` one has the first 16 digits of its SHA-256 in its name, before the ending. Raises UserError when the file
    system refuses; then in the file's place stands what stood there before, or the new file, whole.
    """
    with plainly(path):
        make_folder(path.parent)
        unfinished = path.with_name(f".{path.name}{UNFINISHED}")
        try:
            digest = write_synced(unfinished, write)
            final = path.with_name(f"{path.stem}-{digest[:SIGNED_DIGITS]}{path.suffix}") if signed else path
            os.replace(unfinished, final)
        except Exception:
            with suppress(OSError):
                os.unlink(unfinished)
            raise
        sync_folder(path.parent)
    return final


def put_text(path: Path, text: str) -> None:
    """Store a UTF-8 text as `put` does."""
    put(path, lambda sink: sink.write(text.encode("utf-8")))


def take_away(path: Path) -> None:
    """Remove a file, durably; nothing where there is none. Raises UserError when the file system refuses."""
    with plainly(path), suppress(FileNotFoundError):
        os.unlink(path)
        sync_folder(path.parent)


def write_synced(path: Path, write: Callable[[Sink], object]) -> str:
    """Write a new file and sync it; its SHA-256. Raises OSError."""
    descriptor = open_new(path)
    try:
        sink = Sink(descriptor)
        write(sink)
        sink.flush()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return sink.digest.hexdigest()


def open_new(path: Path) -> int:
    """A new file to write; one of that name that a killed writer left, or a link somebody laid there, is removed.

    Raises OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags, 0o666)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, 0o666)


def make_folder(path: Path) -> list[Path]:
    """Make a folder and those it lies in, durably; the ones that were made, innermost first. Raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(folder)
        sync_folder(folder.parent)
    return missing


def move(path: Path, target: Path) -> None:
    """Give a file another place, durably. Raises UserError when the file system refuses."""
    with plainly(path):
        make_folder(target.parent)
        os.replace(path, target)
        sync_folder(target.parent)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the file system can. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make all files in a folder and below durable, and their names. Raises OSError."""
    for folder, _, names in os.walk(path):
        for name in names:
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(folder))


def digest_in_name(path: Path) -> str | None:
    """The digits of the digest that a signed file has in its name, None for one that is not signed."""
    digits = path.stem.rpartition("-")[2]
    is_signed = "-" in path.stem and len(digits) == SIGNED_DIGITS and not set(digits) - set("0123456789abcdef")
    return digits if is_signed else None


def is_intact(path: Path) -> bool | None:
    """Whether a signed file is the one that was stored, by its digest; None for one that is not signed.

    Raises UserError when it cannot be read.
    """
    digits = digest_in_name(path)
    if digits is None:
        return None
    with plainly(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(digits)


@contextmanager
def plainly(path: Path, what: str = "store") -> Iterator[None]:
    """Tell an error of the file system in one sentence. Raises UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(sentence_of(error, path, what)) from error


def sentence_of(error: OSError, path: Path, what: str = "store") -> str:
    """What the file system refused, and what to do about it."""
    told = f"cannot {what} '{path}' ({error.strerror or error})"
    mend = next((mend for mend, numbers in MENDS.items() if error.errno in numbers), "mend that")
    if what != "store":
        return f"{told}; {mend}, then type the same command again"
    return f"{told}; what was stored before is whole: {mend}, then type the same command to go on"
