"""Worker processes that can be killed.

They are plain subprocesses, so that neither threads, nor Ray, nor a notebook, nor a script without a main guard is in
the way. Workers start with the first hard case and are shared by all threads. One that passes its time is killed and
replaced; the answer that did it gets the verdict `timeout`.
"""

import atexit
import json
import os
import queue
import select
import subprocess
import sys
import threading
from contextlib import suppress
from typing import cast

from harness.budgets import monotonic
from harness.nouns import Outcome, Verdict

from .rules import Rules
from .worker import HEADER

START_LIMIT_S = 120.0
MEMORY_MB = 1024
MOST_WORKERS = 4
COMMAND = "import sys; sys.path[:] = {paths!r}; from harness.tasks.grading.worker import serve; serve({memory_mb})"


class Died(Exception):
    """The worker is gone."""


class Worker:
    """One subprocess and its two pipes."""

    def __init__(self) -> None:
        command = COMMAND.format(paths=[os.path.abspath(path) for path in sys.path], memory_mb=MEMORY_MB)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.ready = False

    def await_ready(self) -> None:
        """Wait for a new process's imports, which no answer's time includes. Raises Died when it does not start."""
        if not self.ready and self.receive(START_LIMIT_S) is None:
            raise Died("a grading worker did not start")
        self.ready = True

    def grade(self, gold: str, answer: str, rules: Rules, limit_s: float) -> Verdict:
        """The verdict within the limit. Raises Died when the worker broke off by itself."""
        self.await_ready()
        request = {"gold": gold, "answer": answer, "rules": rules.document(), "limit_s": limit_s, "provisional": True}
        body = json.dumps(request).encode()
        self.write(HEADER.pack(len(body)) + body)
        end, provisional = monotonic() + limit_s, False
        while (reply := self.receive(end - monotonic())) is not None:
            if "outcome" in reply:
                return Verdict(cast(Outcome, reply["outcome"]), reply["reason"])
            provisional = True
        self.kill()
        if provisional:
            return Verdict("correct", "equal to 300 digits wherever tried")
        return Verdict("timeout", f"no verdict within {limit_s:g} s")

    def write(self, data: bytes) -> None:
        """Send bytes. Raises Died when nobody reads."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except OSError as trouble:
            raise Died("a grading worker is gone") from trouble

    def receive(self, limit_s: float) -> dict[str, str] | None:
        """The next message, or None when the limit passes first. Raises Died at the pipe's end."""
        assert self.process.stdout is not None
        file, end, got, size = self.process.stdout.fileno(), monotonic() + limit_s, b"", HEADER.size
        while len(got) < size:
            poll = select.poll()
            poll.register(file, select.POLLIN)
            if not poll.poll(max(0.0, 1000 * (end - monotonic()))):
                return None
            piece = os.read(file, size - len(got))
            if not piece:
                raise Died("a grading worker ended")
            got += piece
            if len(got) == HEADER.size and size == HEADER.size:
                size += HEADER.unpack(got)[0]
        message: dict[str, str] = json.loads(got[HEADER.size :])
        return message

    def kill(self) -> None:
        """End the process and close its pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None


class Pool:
    """A bounded set of workers; a slot that is empty or dead gets a new worker when it is next used."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.owner = os.getpid()
        self.slots: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(size):
            self.slots.put(None)

    def grade(self, gold: str, answer: str, rules: Rules, limit_s: float) -> Verdict:
        """The verdict of a worker within `limit_s` of its own time; waits for a free worker. Safe from any thread."""
        worker = self.slots.get()
        try:
            for _ in range(2):
                if worker is None or not worker.alive:
                    worker = fresh(worker)
                try:
                    return worker.grade(gold, answer, rules, limit_s)
                except Died:
                    worker.kill()
            return Verdict("timeout", "the worker broke off, most likely at its memory limit")
        finally:
            # A killed worker's successor starts now, so that its imports overlap with what comes next.
            self.slots.put(worker if worker is None or worker.alive else fresh(worker))

    def close(self) -> None:
        """End all workers that are not busy."""
        for _ in range(self.size):
            with suppress(queue.Empty):
                worker = self.slots.get_nowait()
                if worker is not None and self.owner == os.getpid():
                    worker.kill()


def fresh(worker: Worker | None) -> Worker:
    """A new worker in place of one that is dead."""
    if worker is not None:
        worker.kill()
    return Worker()


_lock = threading.Lock()
_pools: dict[int, Pool] = {}


def shared_pool() -> Pool:
    """The pool of this process; a forked child gets its own."""
    with _lock:
        owner = os.getpid()
        if owner not in _pools:
            _pools.clear()
            _pools[owner] = Pool(max(1, min(MOST_WORKERS, os.cpu_count() or 1)))
            atexit.register(_pools[owner].close)
        return _pools[owner]
