"""Verdicts that were reached before, by rules, gold and answer; the hard ones can be kept in a file beside a run."""

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from harness.nouns import Verdict

from .rules import Rules

Key = tuple[Rules, str, str]

MOST_KEPT = 1 << 18
VERSION = 1
"""Of the grader: a file of another version is not used."""


class Memo:
    """Verdicts in memory; safe from any thread."""

    def __init__(self) -> None:
        self.easy: dict[Key, Verdict] = {}
        self.hard: dict[Key, Verdict] = {}
        self.running: dict[Key, Future[Verdict]] = {}
        self.lock = threading.Lock()

    def get(self, rules: Rules, gold: str, answer: str) -> Verdict | None:
        """The verdict that was reached before."""
        key = (rules, gold, answer)
        return self.easy.get(key) or self.hard.get(key)

    def keep(self, rules: Rules, gold: str, answer: str, verdict: Verdict) -> Verdict:
        """Keep a verdict that was cheap; forgets all of those when there are too many."""
        if len(self.easy) >= MOST_KEPT:
            self.easy = {}
        self.easy[rules, gold, answer] = verdict
        return verdict

    def once(self, rules: Rules, gold: str, answer: str, work: Callable[[], Verdict]) -> Verdict:
        """The verdict that `work` reaches, which runs once however many threads ask at the same time."""
        key = (rules, gold, answer)
        with self.lock:
            if key in self.hard:
                return self.hard[key]
            future, mine = self.running.get(key), key not in self.running
            if future is None:
                future = self.running[key] = Future()
        if mine:
            try:
                verdict = work()
                self.hard[key] = verdict
                future.set_result(verdict)
            except BaseException as trouble:
                future.set_exception(trouble)
                raise
            finally:
                with self.lock:
                    del self.running[key]
        return future.result()

    def save(self, path: Path) -> None:
        """Write the verdicts that took a worker to a JSON-lines file, whole or not at all."""
        rows = [
            [*key[1:], key[0].document(), verdict.outcome, verdict.reason] for key, verdict in list(self.hard.items())
        ]
        lines = [json.dumps({"grader": VERSION}), *(json.dumps(row) for row in rows)]
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.replace(path)

    def load(self, path: Path) -> int:
        """Add the verdicts of a file; returns their number, 0 when there is no file or it is of another version."""
        if not path.exists():
            return 0
        first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        if first != json.dumps({"grader": VERSION}):
            return 0
        for line in lines:
            gold, answer, rules, outcome, reason = json.loads(line)
            self.hard[Rules(**rules), gold, answer] = Verdict(outcome, reason)
        return len(lines)
