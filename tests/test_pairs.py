"""Pairs judged line by line: order, bounded reading ahead, and what a line must hold."""

from collections.abc import Iterator

import pytest

from harness.errors import UserError
from harness.pairs import AT_ONCE, judge_all, read_pairs
from harness.plugins import load_task

TASK = load_task("math")


def test_verdicts_come_in_the_order_of_the_lines_hard_ones_included() -> None:
    hard = {"gold": r"\sin^2 x + \cos^2 x", "pred": "1"}
    lines = [
        {"gold": "1", "pred": "1"},
        hard,
        {"gold": "1", "pred": "2"},
        hard,
        {"gold": "3", "text": "It is 3, or so."},
    ]
    found = list(judge_all(TASK, lines * 60))
    assert [row["verdict"] for row in found] == ["correct", "correct", "wrong", "correct", "no_answer"] * 60
    assert [{name: row[name] for name in line} for row, line in zip(found, lines * 60, strict=True)] == lines * 60


def test_an_endless_file_is_read_no_further_than_it_must() -> None:
    taken = 0

    def endless() -> Iterator[dict[str, str]]:
        nonlocal taken
        while True:
            taken += 1
            yield {"gold": "1", "pred": "1"}

    assert next(judge_all(TASK, endless()))["verdict"] == "correct"
    assert taken <= AT_ONCE


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "f, line 2: not JSON"),
        ("[]", "f, line 2: wants an object whose gold is a text"),
        ('{"gold": 3, "pred": "3"}', "f, line 2: wants an object whose gold is a text"),
        ('{"gold": " ", "pred": "3"}', "f, line 2: wants an object whose gold is a text"),
        ('{"gold": "3"}', "f, line 2: wants pred (an answer) or text (a whole completion) as text; the line has gold"),
        ('{"gold": "3", "pred": 3}', "f, line 2: wants pred"),
    ],
)
def test_a_bad_line_is_named_by_its_number(line: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        list(read_pairs(["", line], "f"))
    assert str(caught.value).startswith(says)
