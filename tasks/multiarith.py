"""`multiarith`: word problems of several steps (Roy and Roth 2015, arXiv 1608.01413), 600 rows."""

from collections.abc import Sequence

from harness.nouns import Problem, Task

from .data import Hub, Row, read_rows, when_needed, with_distinct_ids
from .fewshot import GRADE_SCHOOL, Example, shots
from .grading import extract_explicit_cut, extract_number, grade, group
from .prompts import chat


def multiarith(data: str | None = None, num_fewshot: int = 0) -> Task:
    """Word problems of two or three steps; the answer is one number.

    `data` is a file with `input` and `target` (or `question` and `final_ans`); without it both splits (420 and 180
    rows) come from ChilleD/MultiArith on the hub. Raises UserError on data that cannot be read and on more than 8
    few-shot examples.
    """
    examples = shots("multiarith", GRADE_SCHOOL, num_fewshot)

    def read() -> Sequence[Problem]:
        rows = read_rows(data, Hub("ChilleD/MultiArith", "train+test"))
        return with_distinct_ids(as_problem(row, examples) for row in rows)

    return Task("multiarith", when_needed(data, read), extract_number, grade, extract_explicit_cut, group)


def as_problem(row: Row, examples: Sequence[Example]) -> Problem:
    """One row as a problem."""
    question = chat(row.text("input", "question"), examples)
    return Problem(f"multiarith/{row.index}", question, row.number("target", "final_ans"))
