"""Pairs of a gold answer and a model's, judged one line at a time: the work behind `ttc grade`."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.budgets import Clock, monotonic
from harness.errors import UserError
from harness.grading import THREADS, answer_or_verdict, verdict_of
from harness.inert import read_json
from harness.nouns import Task, Verdict

AT_ONCE = 4096
"""Lines in memory at a time, so that a file of any length streams."""
TOGETHER = 128


def read_pairs(lines: Iterable[str], where: str) -> Iterator[dict[str, Any]]:
    """Parse and check each line that is not blank. Raises UserError with the line's number and the reason."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = read_json(line)
        except ValueError as error:
            raise UserError(f"{where}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict) or not isinstance(row.get("gold"), str) or not row["gold"].strip():
            raise UserError(f"{where}, line {number}: wants an object whose gold is a text, got {line.strip():.60}")
        if not isinstance(row.get("pred", row.get("text")), str):
            raise UserError(
                f"{where}, line {number}: wants pred (an answer) or text (a whole completion) as text; "
                f"the line has {', '.join(sorted(row))}"
            )
        yield row


def judge(task: Task, row: Mapping[str, Any], clock: Clock = monotonic) -> dict[str, Any]:
    """One line's verdict: the line plus `answer`, `verdict`, `reason`, `ms` (extraction and grading)."""
    began = clock()
    answer, stead = row.get("pred"), Verdict("no_answer")
    if answer is None:
        answer, stead = answer_or_verdict(task, row["text"], "stop")
    verdict = stead if answer is None else verdict_of(task, row["gold"], answer)
    ms = 1e3 * (clock() - began)
    return {**row, "answer": answer, "verdict": verdict.outcome, "reason": verdict.reason, "ms": round(ms, 3)}


def judge_all(task: Task, rows: Iterable[Mapping[str, Any]], clock: Clock = monotonic) -> Iterator[dict[str, Any]]:
    """Verdicts in the order of the lines, several at a time, a bounded number in memory."""

    def judge_some(some: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [judge(task, row, clock) for row in some]

    stream = iter(rows)
    with ThreadPoolExecutor(THREADS) as threads:
        while held := list(itertools.islice(stream, AT_ONCE)):
            # A thread takes several lines at a time: an easy one costs less than handing it over.
            shares = (held[start : start + TOGETHER] for start in range(0, len(held), TOGETHER))
            for judged in threads.map(judge_some, shares):
                yield from judged
