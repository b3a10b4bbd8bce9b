"""What a completion is entitled to, classes of answers, and that nothing is graded twice."""

from collections.abc import Sequence

import pytest
from fakes import FakeClock

from harness.grading import classes_of, known_verdicts, verdict_rows
from harness.nouns import Task, Verdict
from harness.plugins import load_task


class Counting:
    """Grades numbers by value and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, gold: str, answer: str) -> Verdict:
        self.asked.append(answer)
        return Verdict("correct" if float(gold) == float(answer) else "wrong", "by value")


def task_with(grade: Counting, cut: bool = False) -> Task:
    return Task("t", (), lambda text: text or None, grade, (lambda text: text or None) if cut else None)


def rows(texts: Sequence[str], finish_reason: str = "stop") -> list[dict[str, object]]:
    return [
        {"problem_id": "p", "sample_index": i, "text": text, "finish_reason": finish_reason}
        for i, text in enumerate(texts)
    ]


def test_equal_answers_are_graded_once_and_equivalent_ones_share_a_class() -> None:
    grade = Counting()
    found = verdict_rows(task_with(grade), "0.5", rows(["0.5", "7", "0.50", "0.5", ""]), FakeClock())
    assert [row["verdict"] for row in found] == ["correct", "wrong", "correct", "correct", "no_answer"]
    assert [row["answer_class"] for row in found] == [0, 1, 0, 0, None]
    assert found[4]["reason"] == "no answer in the text"
    assert grade.asked.count("0.5") <= 3  # once for the gold, the rest for the classes


def test_stored_verdicts_are_not_graded_again() -> None:
    grade = Counting()
    task = Task("t", (), lambda text: text, grade, group=lambda answers: list(range(len(answers))))
    first = verdict_rows(task, "1", rows(["1", "2"]), FakeClock())
    grade.asked.clear()
    again = verdict_rows(task, "1", rows(["2", "1", "3"]), FakeClock(), known_verdicts(first)["p"])
    assert grade.asked == ["3"]
    assert [row["verdict"] for row in again] == ["wrong", "correct", "wrong"]


@pytest.mark.parametrize(
    ("reason", "cut", "answer", "why"),
    [
        ("length", False, None, "cut by the token limit before an explicit answer"),
        ("length", True, "1", "by value"),
        ("deadline", True, None, "cut by the deadline"),
        ("error", True, None, "the engine failed"),
    ],
)
def test_an_unfinished_text_has_no_answer_but_an_explicit_one(reason: str, cut: bool, answer: str, why: str) -> None:
    (row,) = verdict_rows(task_with(Counting(), cut), "1", rows(["1"], reason), FakeClock())
    assert (row["answer"], row["reason"]) == (answer, why)


def test_a_task_of_ours_guesses_nothing_from_a_cut_text() -> None:
    task = load_task("gsm8k")
    cut = rows(["3 + 4 = 7 and so", r"so \boxed{7}. And then", r"so \boxed{7"], "length")
    assert [row["answer"] for row in verdict_rows(task, "7", cut)] == [None, "7", None]


def test_the_tasks_own_classes_are_used() -> None:
    task = Task("t", (), lambda text: text, Counting(), group=lambda answers: [5 if a == "x" else 9 for a in answers])
    assert classes_of(task, ["x", None, "y", "z", "x"]) == [0, None, 1, 1, 0]
