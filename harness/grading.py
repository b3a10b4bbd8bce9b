"""Completions become verdict rows: extract, grade, put equivalent answers into classes. Always outside the clock.

The task's own functions do the judging; this module only decides which of them a completion is entitled to.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.budgets import Clock, monotonic
from harness.nouns import Task, Verdict

THREADS = 4
"""Graders wait on their worker processes for hard answers; a few threads keep those busy."""


def answer_of(task: Task, text: str, finish_reason: str) -> tuple[str | None, str]:
    """The final answer of a completion, or None with the reason why there is none."""
    if finish_reason == "stop":
        return task.extract(text), "no answer in the text"
    if finish_reason == "length":
        answer = task.extract_cut(text) if task.extract_cut else None
        return answer, "cut by the token limit before an explicit answer"
    return None, "cut by the deadline" if finish_reason == "deadline" else "the engine failed"


def classes_of(task: Task, answers: Sequence[str | None]) -> list[int | None]:
    """Number the classes of equivalent answers of one problem in order of first appearance; None stays None.

    Without the task's own `group`, two answers share a class when either grades correct against the other.
    """
    distinct = list(dict.fromkeys(answer for answer in answers if answer is not None))
    if task.group is not None:
        numbers = dict(zip(distinct, task.group(distinct), strict=True))
    else:
        numbers = pairwise_classes(task.grade, distinct)
    order: dict[int, int] = {}
    return [None if answer is None else order.setdefault(numbers[answer], len(order)) for answer in answers]


def pairwise_classes(grade: Callable[[str, str], Verdict], distinct: Sequence[str]) -> dict[str, int]:
    """A class number for each distinct answer, comparing with one representative of each class."""
    representatives: list[str] = []
    numbers: dict[str, int] = {}
    for answer in distinct:
        same = (
            number
            for number, other in enumerate(representatives)
            if grade(other, answer).outcome == "correct" or grade(answer, other).outcome == "correct"
        )
        numbers[answer] = next(same, len(representatives))
        if numbers[answer] == len(representatives):
            representatives.append(answer)
    return numbers


Known = Mapping[str, tuple[Verdict, float]]
"""Verdicts that stand, by answer, with the milliseconds that they took."""


def known_verdicts(rows: Iterable[Mapping[str, Any]]) -> dict[str, Known]:
    """What verdict rows that are stored already say, by problem and answer: the memo beside a run."""
    known: dict[str, dict[str, tuple[Verdict, float]]] = {}
    for row in rows:
        if row["answer"] is not None:
            known.setdefault(row["problem_id"], {})[row["answer"]] = (Verdict(row["verdict"], row["reason"]), row["ms"])
    return dict(known)


def verdict_rows(
    task: Task,
    gold: str,
    completions: Sequence[Mapping[str, Any]],
    clock: Clock = monotonic,
    known: Known | None = None,
) -> list[dict[str, Any]]:
    """Grade all completions of one problem: rows of the verdict schema (see `harness.records.VERDICTS`).

    `completions` are rows with problem_id, sample_index, text and finish_reason. Equal answers are graded once, and
    those in `known` not again.
    """
    known = known or {}
    found = [answer_of(task, row["text"], row["finish_reason"]) for row in completions]
    fresh = list(dict.fromkeys(answer for answer, _ in found if answer is not None and answer not in known))

    def timed(answer: str) -> tuple[Verdict, float]:
        began = clock()
        verdict = task.grade(gold, answer)
        return verdict, 1e3 * (clock() - began)

    with ThreadPoolExecutor(THREADS) as threads:
        graded = {**known, **dict(zip(fresh, threads.map(timed, fresh), strict=True))}
    rows = []
    classes = classes_of(task, [answer for answer, _ in found])
    for row, (answer, why_not), answer_class in zip(completions, found, classes, strict=True):
        verdict, ms = (Verdict("no_answer", why_not), 0.0) if answer is None else graded[answer]
        rows.append(
            {
                "problem_id": row["problem_id"],
                "sample_index": row["sample_index"],
                "answer": answer,
                "answer_class": answer_class,
                "verdict": verdict.outcome,
                "reason": verdict.reason,
                "ms": ms,
            }
        )
    return rows
