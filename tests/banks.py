"""Made-up banks for tests of selectors: candidates from plain lists, and brute force over every subset."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from harness.analysis.bank import Item
from harness.nouns import Candidate, Graded

Answers = Sequence[str | None]


def vote(answers: Sequence[str | None]) -> float:
    """The value of a vote, counted apart from the code under test: the share of the gold among the modes."""
    voted = [answer for answer in answers if answer is not None]
    modes = {answer for answer in voted if voted.count(answer) == max(map(voted.count, voted))}
    return ("4" in modes) / len(modes) if modes else 0.0


def graded_of(
    answers: Answers,
    gold: str = "4",
    scores: Sequence[Sequence[float]] | None = None,
    finished: Sequence[float] | None = None,
    logits: bool = False,
) -> Graded:
    """Answers are their own classes; the gold is the correct one."""
    classes = {answer: number for number, answer in enumerate(dict.fromkeys(a for a in answers if a is not None))}
    times = finished or [float(i) for i in range(len(answers))]
    rows = scores or [()] * len(answers)
    candidates = tuple(
        Candidate(
            i, f"text {i}", answer, None if answer is None else classes[answer], 5, times[i],
            scores=tuple(rows[i]), scores_are_logits=logits,
        )
        for i, answer in enumerate(answers)
    )  # fmt: skip
    return Graded(candidates, np.array([answer == gold for answer in answers], bool))


def item_of(graded: Graded, name: str = "p") -> Item:
    """An item whose every axis is the finish time."""
    positions = dict.fromkeys(("seconds", "flops", "tokens"), graded.finished_s)
    return Item(name, "Q", graded, positions)


def over_subsets(n: int, k: int, value: Callable[[tuple[int, ...]], float]) -> float:
    """The mean of a value over every k-subset of 0 .. n - 1."""
    values = [value(places) for places in itertools.combinations(range(n), k)]
    return math.fsum(values) / len(values)
