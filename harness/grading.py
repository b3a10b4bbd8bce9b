"""Completions become verdict rows: extract, grade, put equivalent answers into classes. Always outside the clock.

The task's own functions do the judging; this module only decides which of them a completion is entitled to. What they
raise is a verdict too, `unparsed`, whose reason names the task and the exception: a run is graded to its end.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, get_args

from harness.budgets import Clock, monotonic
from harness.errors import UserError
from harness.faults import Fault, boundary
from harness.inert import storable
from harness.nouns import Outcome, Task, Verdict

THREADS = 4
"""Graders wait on their worker processes for hard answers; a few threads keep those busy."""


def answer_of(task: Task, text: str, finish_reason: str) -> tuple[str | None, str]:
    """The final answer of a completion, or None with the reason why there is none. Raises Fault as the task does."""
    if finish_reason == "stop":
        return extracted(task, task.extract, text), "no answer in the text"
    if finish_reason == "length":
        answer = extracted(task, task.extract_cut, text) if task.extract_cut else None
        return answer, "cut by the token limit before an explicit answer"
    reasons = {"deadline": "cut by the deadline", "dropped": "given up by the strategy"}
    return None, reasons.get(finish_reason, "the engine failed")


def extracted(task: Task, extract: Callable[[str], str | None], text: str) -> str | None:
    """What the task's function reads in a text. Raises Fault when it raises or gives what is no answer."""
    with boundary(name_of(task)):
        answer = extract(text)
    if answer is not None and not isinstance(answer, str):
        raise Fault(f"{name_of(task)} raised TypeError: extract gave {type(answer).__name__}, not a text or None")
    return None if answer is None else storable(answer)


def name_of(task: Task) -> str:
    """How a sentence names a task; reasons of verdicts that its exceptions gave begin so."""
    return f"task {task.name}"


def answer_or_verdict(task: Task, text: str, finish_reason: str) -> tuple[str | None, Verdict]:
    """The final answer of a completion, or None with the verdict that stands in its place."""
    try:
        answer, why_not = answer_of(task, text, finish_reason)
    except Fault as fault:
        return None, Verdict("unparsed", str(fault))
    return answer, Verdict("no_answer", why_not)


def verdict_of(task: Task, gold: str, answer: str) -> Verdict:
    """The task's verdict on an answer, `unparsed` with the reason when it raises or gives none.

    Raises UserError where the task does, on a gold answer that nothing can be compared with.
    """
    try:
        with boundary(name_of(task)):
            verdict = task.grade(gold, answer)
            if not isinstance(verdict, Verdict) or verdict.outcome not in get_args(Outcome):
                raise TypeError(f"grade gave {verdict!r:.60}, not a Verdict")
    except Fault as fault:
        return Verdict("unparsed", str(fault))
    return verdict


def classes_of(task: Task, answers: Sequence[str | None]) -> list[int | None]:
    """Number the classes of equivalent answers of one problem in order of first appearance; None stays None.

    Without the task's own `group`, two answers share a class when either grades correct against the other. Where the
    task raises only equal texts share one.
    """
    distinct = list(dict.fromkeys(answer for answer in answers if answer is not None))
    try:
        with boundary(name_of(task)):
            numbers = numbered(task, distinct)
    except UserError:
        # Equal texts are equivalent whatever the task makes of them.
        numbers = {answer: number for number, answer in enumerate(distinct)}
    order: dict[int, int] = {}
    return [None if answer is None else order.setdefault(numbers[answer], len(order)) for answer in answers]


def numbered(task: Task, distinct: Sequence[str]) -> dict[str, int]:
    """A class number for each distinct answer, by the task's own `group` or by comparing."""
    if task.group is not None:
        return {answer: int(number) for answer, number in zip(distinct, task.group(distinct), strict=True)}
    return pairwise_classes(task.grade, distinct)


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


class Job(NamedTuple):
    """The completions of one problem that are to be graded, and the verdicts that stand."""

    gold: str
    completions: Sequence[Mapping[str, Any]]
    known: Known | None = None


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
    """Grade all completions of one problem: rows of the verdict schema (see `harness.storage.records.VERDICTS`).

    `completions` are rows with problem_id, sample_index, text and finish_reason. Equal answers are graded once, and
    those in `known` not again.
    """
    known = known or {}
    found = [answer_or_verdict(task, row["text"], row["finish_reason"]) for row in completions]
    fresh = list(dict.fromkeys(answer for answer, _ in found if answer is not None and answer not in known))

    def timed(answer: str) -> tuple[Verdict, float]:
        began = clock()
        verdict = verdict_of(task, gold, answer)
        return verdict, 1e3 * (clock() - began)

    with ThreadPoolExecutor(THREADS) as threads:
        graded = {**known, **dict(zip(fresh, threads.map(timed, fresh), strict=True))}
    rows = []
    classes = classes_of(task, [answer for answer, _ in found])
    for row, (answer, stead), answer_class in zip(completions, found, classes, strict=True):
        verdict, ms = (stead, 0.0) if answer is None else graded[answer]
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
