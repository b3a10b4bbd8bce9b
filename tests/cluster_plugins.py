"""A task and a model for tests with workers: each text follows from its seed, and processes die when they are told to.

Written as a user's file, for workers import it themselves.
"""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.budgets import Deadline
from harness.nouns import Completion, Problem, Request, Task, Verdict


def sums(num_problems: int = 8) -> Task:
    """Sums, graded by a function that only exists in this process."""

    def grade(gold: str, answer: str) -> Verdict:
        return Verdict("correct" if gold == answer else "wrong")

    problems = [Problem(f"sums/{i}", f"{i} + {i} =", str(2 * i)) for i in range(num_problems)]
    return Task("sums", problems, lambda text: text.split()[-1] if text.split() else None, grade)


def lengths(prompt: object, completions: Sequence[str]) -> list[float]:
    """A reward model: the longer the better."""
    return [len(text) / (1 + len(text)) for text in completions]


class Drawer:
    """Writes one completion after the other: words of its seed, and the sum or one more than it."""

    name = "drawer"

    def __init__(
        self, seconds: float = 0.0, spins: int = 0, dies_on: str = "", times: int = 1, crowd: int = 0,
        pids: Path | None = None,
    ) -> None:  # fmt: skip
        self.seconds, self.spins = seconds, spins
        self.dies_on, self.times, self.crowd, self.pids = dies_on, times, crowd, pids
        if pids is not None and crowd:
            (pids / str(os.getpid())).touch()

    @property
    def facts(self) -> dict[str, Any]:
        return {"engine": "drawer", "threads": os.environ.get("OMP_NUM_THREADS")}

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        for request in requests:
            if deadline.expired:
                return
            began = deadline.elapsed_s
            if request.sampling.max_tokens > 4:  # Not a warm-up.
                if self.pids is not None:
                    self.die(request, self.pids)
                    self.wait(self.pids)
                time.sleep(self.seconds)
                sum(range(self.spins))
            words = [f"{request.seed * (place + 7) % 9973}" for place in range(1 + request.seed % 40)]
            answer = 2 * int(str(request.prompt).split()[0]) + request.seed % 3 // 2
            deadline.charge(tokens=len(words), flops=3.0 * len(words))
            yield Completion(
                request.problem_id, request.sample_index, f"{' '.join(words)} {answer}", "stop", 3, len(words),
                request.seed, began, began, began, deadline.elapsed_s, 1.0, 0.0, 3.0 * len(words),
            )  # fmt: skip

    def die(self, request: Request, pids: Path) -> None:
        """End the process at once, the first few times that a certain sample is asked for."""
        if f"{request.problem_id}:{request.sample_index}" == self.dies_on and count(pids) < self.times:
            (pids / str(os.getpid())).touch()
            os._exit(1)

    def wait(self, pids: Path) -> None:
        """Wait until so many processes have a model like this."""
        while count(pids) < self.crowd:
            time.sleep(0.05)


def count(folder: Path) -> int:
    return len(list(folder.iterdir()))


def drawer(
    seconds: float = 0.0, spins: int = 0, dies_on: str = "", times: int = 1, crowd: int = 0, pids: str = ""
) -> Drawer:
    """A model that sleeps and spins for each completion, and dies on a sample as often as it is told to."""
    return Drawer(seconds, spins, dies_on, times, crowd, Path(pids) if pids else None)
