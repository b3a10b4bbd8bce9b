"""Disks that fail, and disks that lose what was not synced: they stand for `os` in the storing layer."""

import errno
import os
import random
import threading
from pathlib import Path
from typing import Any

from crash_runs import STORING

FAILING = ("write", "fsync", "replace", "open", "mkdir")


class Faulty:
    """Fails the n-th call of one function of `os`, counted from 1, or every one from the n-th on."""

    def __init__(self, function: str, number: int, code: int, for_good: bool) -> None:
        self.function, self.number, self.code, self.for_good = function, number, code, for_good
        self.count, self.lock = 0, threading.Lock()

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name != self.function:
            return function

        def failing(*given: Any, **more: Any) -> Any:
            with self.lock:
                self.count += 1
                fails = self.count >= self.number if self.for_good else self.count == self.number
            if fails:
                raise OSError(self.code, os.strerror(self.code))
            return function(*given, **more)

        return failing

    @property
    def struck(self) -> bool:
        """Whether a call failed."""
        return self.count >= self.number


class PowerCutError(BaseException):
    """The machine is off: nothing can be stored any more, and nobody may take this for an error of the disk."""


class Volatile:
    """Remembers what of a folder would be there after a power cut, and cuts the power before the n-th call that stores.

    A file's content is durable as it was when the file was last synced, a folder's names as they were when the folder
    was.
    """

    def __init__(self, root: Path, cut_at: int | None) -> None:
        self.root, self.cut_at, self.count, self.lock = root, cut_at, 0, threading.RLock()
        self.contents: dict[int, bytes] = {}
        """Durable content, by inode."""
        self.names: dict[Path, dict[str, int]] = {root: {}}
        """Durable names, by folder: the inode of each."""
        self.places: dict[int, Path] = {}
        """What is open, by descriptor."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in STORING:
            return function

        def storing(*given: Any, **more: Any) -> Any:
            with self.lock:
                self.count += 1
                if self.cut_at is not None and self.count >= self.cut_at:
                    raise PowerCutError
                is_new = name == "open" and not Path(given[0]).exists()
                found = function(*given, **more)
                if name == "open":
                    self.opened(Path(given[0]), found, is_new)
                elif name == "fsync":
                    self.synced(given[0])
                elif name == "mkdir":
                    self.names[Path(given[0])] = {}
                return found

        return storing

    def opened(self, path: Path, descriptor: int, is_new: bool) -> None:
        self.places[descriptor] = path
        if is_new:
            # The number may have been that of a file which is gone.
            self.contents.pop(os.fstat(descriptor).st_ino, None)

    def synced(self, descriptor: int) -> None:
        place = self.places[descriptor]
        if place.is_dir():
            self.names[place] = {entry.name: entry.inode() for entry in os.scandir(place)}
        else:
            self.contents[os.fstat(descriptor).st_ino] = place.read_bytes()

    def after_the_cut(self, target: Path, draw: random.Random) -> None:
        """Make the folder as it is when the power is back: of what was not synced some is there, some is not."""
        inodes = {path.stat().st_ino: path for path in self.root.rglob("*")}
        self.restore(self.root, target, inodes, draw)

    def restore(self, folder: Path, target: Path, inodes: dict[int, Path], draw: random.Random) -> None:
        target.mkdir()
        durable = self.names.get(folder, {})
        now = {entry.name: entry.inode() for entry in os.scandir(folder)} if folder.exists() else {}
        for name in sorted({*durable, *now}):
            inode = durable.get(name) if draw.random() < 0.5 else now.get(name)
            if inode is None:
                continue
            # A folder may have been taken away after the cut, by who did not know that the machine was off.
            if (folder / name).is_dir() or folder / name in self.names:
                self.restore(folder / name, target / name, inodes, draw)
            elif inode in self.contents:
                (target / name).write_bytes(self.contents[inode])
            else:
                whole = inodes[inode].read_bytes() if inode in inodes else b""
                (target / name).write_bytes(whole[: draw.randint(0, len(whole))])


CODES = (errno.ENOSPC, errno.EIO, errno.EACCES)
