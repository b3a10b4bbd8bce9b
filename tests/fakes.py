"""A clock that tests move by hand, and an engine whose every time and text is known beforehand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.budgets import Deadline
from harness.nouns import Completion, FinishReason, Problem, Request, Task, Verdict


class FakeClock:
    """Stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class StepEngine:
    """Decodes all its requests in lockstep, a token each `step_s`; sample i of any problem takes `lengths[i]` steps.

    It stores nothing, polls the deadline at every step, and its text counts its tokens, so that truth is easy to see.
    """

    clock: FakeClock
    lengths: Sequence[int] = (3, 5, 9)
    step_s: float = 0.5
    flops_per_token: float = 10.0
    name: str = "steps"
    facts: dict[str, object] = field(default_factory=lambda: {"engine": "steps"})
    asked: list[list[tuple[str, int]]] = field(default_factory=list)
    stop_after: int | None = None

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        self.asked.append([(request.problem_id, request.sample_index) for request in requests])
        began = deadline.elapsed_s
        running = dict.fromkeys(range(len(requests)), 0)
        finished = 0
        while running and not deadline.expired:
            self.clock.sleep(self.step_s)
            deadline.charge(tokens=len(running), flops=self.flops_per_token * len(running))
            for i in list(running):
                running[i] += 1
                if running[i] == min(self.lengths[requests[i].sample_index], requests[i].sampling.max_tokens):
                    del running[i]
                    cut = requests[i].sampling.max_tokens < self.lengths[requests[i].sample_index]
                    yield self.row(requests[i], began, deadline, "length" if cut else "stop")
                    finished += 1
                    if finished == self.stop_after:
                        raise KeyboardInterrupt
        for i, tokens in running.items():
            if tokens:
                yield self.row(requests[i], began, deadline, "deadline", tokens)

    def row(
        self, request: Request, began: float, deadline: Deadline, why: FinishReason, tokens: int | None = None
    ) -> Completion:
        tokens = min(self.lengths[request.sample_index], request.sampling.max_tokens) if tokens is None else tokens
        answer = 4 if request.sample_index % 2 == 0 else 5
        text = f"{'step ' * tokens}{answer}" if why == "stop" else "step " * tokens
        return Completion(
            request.problem_id, request.sample_index, text, why, 2, tokens, request.seed, began, began,
            began + self.step_s, deadline.elapsed_s, 1.0, 0.0, tokens * self.flops_per_token,
        )  # fmt: skip


def last_word(text: str) -> str | None:
    return text.split()[-1] if text.split() else None


def same(gold: str, answer: str) -> Verdict:
    return Verdict("correct", "equal") if gold == answer else Verdict("wrong", "not equal")


def toy_task(count: int = 2) -> Task:
    """Every problem's answer is 4: even samples of StepEngine are right, odd ones wrong."""
    return Task(
        "toy", [Problem(f"toy/{i}", f"What is 2 + 2, for the {i}th time?", "4") for i in range(count)], last_word, same
    )


PLUGINS = '''
from harness.nouns import Completion, Problem, Task, Verdict


def sums(num_problems: int = 4, hard: bool = False) -> Task:
    """Sums."""
    problems = [Problem(f"sums/{i}", f"{i} + {i} =", str(2 * i)) for i in range(num_problems)]
    grade = lambda gold, answer: Verdict("correct" if gold == answer else "wrong")
    return Task("sums", problems, lambda text: text.split()[-1] if text else None, grade)


def longest(prompt, candidates, *, least: int = 0):
    """The longest text."""
    return max((one for one in candidates if len(one.text) >= least), key=lambda one: len(one.text), default=None)


class Adder:
    name, facts = "adder", {"engine": "adder"}

    def __init__(self, wrong_every: int) -> None:
        self.wrong_every = wrong_every

    def generate(self, requests, deadline):
        for request in requests:
            number = int(request.prompt.split()[0]) * 2 + (request.sample_index % self.wrong_every == 0)
            now = deadline.elapsed_s
            deadline.charge(tokens=2, flops=7.0)
            yield Completion(request.problem_id, request.sample_index, f"is {number}", "stop", 3, 2, request.seed,
                             now, now, now, deadline.elapsed_s, 1.0, 3.0, 4.0)


def adder(wrong_every: int = 2) -> Adder:
    """Adds, and errs in every so manieth sample."""
    return Adder(wrong_every)
'''


def write_plugins(folder: Path) -> Path:
    """A user's file with a task, a selector and a model."""
    path = folder / "mine.py"
    path.write_text(PLUGINS)
    return path
