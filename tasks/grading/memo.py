"""Verdicts that were reached before in this process, by rules, gold and answer.

Across processes the verdicts that are stored with a run do the same: the core grades no answer of it twice.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from harness.nouns import Verdict

from .rules import Rules

Key = tuple[Rules, str, str]

MOST_KEPT = 1 << 18


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
