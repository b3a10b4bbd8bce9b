"""One writer per run folder, by a lock of the operating system that dies with its process. Reading needs none."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import UserError
from harness.storage.storing import make_folder, sentence_of

LOCK = ".lock"
"""The locked file; it holds the number of the process that locked it last."""
HELD: set[int] = set()
"""The descriptors of the locks that this process holds."""


def let_go_in_child() -> None:
    """A forked child closes its copies, or the lock would outlive its process as long as the child lives."""
    for descriptor in HELD:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    HELD.clear()


os.register_at_fork(after_in_child=let_go_in_child)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold the run folder's lock. Raises UserError naming the holder's process when another one writes there.

    A folder in which no run came about is left as it was: what this made is taken away again.
    """
    if path.is_file():
        raise UserError(f"'{path}' is a file; --out wants a folder")
    made: list[Path] = []
    try:
        made = make_folder(path)
        descriptor = lock(path)
    except OSError as error:
        clear_away(made)
        raise UserError(f"{refusal(error, path)}, or choose another --out") from None
    HELD.add(descriptor)
    try:
        yield
    finally:
        # What cannot be taken away stays: it keeps nobody out, and the disk may be the very reason why this ends.
        with contextlib.suppress(OSError):
            if not (path / "manifest.json").exists():
                os.unlink(path / LOCK)
                clear_away(made)
        HELD.discard(descriptor)
        os.close(descriptor)


def lock(path: Path) -> int:
    """Lock a folder; the descriptor that holds the lock. Raises UserError when it is locked, OSError."""
    while True:
        # A link in somebody's run would have another file of this user's overwritten.
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have taken the file away just before: then this is a lock on nothing.
            if is_same(descriptor, path / LOCK):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"another process ({holder(path)}) is writing '{path}'; wait for it or choose another --out"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def is_same(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one with this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def refusal(error: OSError, path: Path) -> str:
    """Why a folder cannot be locked."""
    if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP):
        return f"the file system of '{path}' has no locks; mount it with them"
    return sentence_of(error, path, "write in")


def clear_away(made: Sequence[Path]) -> None:
    """Remove the folders that were made for a run that did not come about, as far as they are empty."""
    with contextlib.suppress(OSError):
        for folder in made:
            folder.rmdir()


def holder(path: Path) -> str:
    """The process that holds the lock, for a sentence."""
    try:
        return f"process {int((path / LOCK).read_text())}"
    except (OSError, ValueError):
        return "unknown process"


def is_being_written(path: Path) -> bool:
    """Whether a process holds the folder's lock now; False where that cannot be told."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
