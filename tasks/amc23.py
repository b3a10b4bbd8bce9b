"""`amc23`: 40 problems of the AMC 12 of 2023 (MAA) without their choices, so that a number answers each."""

from collections.abc import Sequence

from harness.nouns import Problem, Task

from .data import Hub, Row, read_rows, when_needed, with_distinct_ids
from .fewshot import COMPETITION, Example, shots
from .grading import extract_explicit, extract_explicit_cut, grade, group
from .prompts import chat


def amc23(data: str | None = None, num_fewshot: int = 0) -> Task:
    """40 AMC 12 problems of 2023; the answers are integers.

    `data` is a file with `id`, `problem` (or `question`) and `answer`; without it they come from math-ai/amc23 on the
    hub. Raises UserError on data that cannot be read and on more than 6 few-shot examples.
    """
    examples = shots("amc23", COMPETITION, num_fewshot)

    def read() -> Sequence[Problem]:
        rows = read_rows(data, Hub("math-ai/amc23", "test"))
        return with_distinct_ids(as_problem(row, examples) for row in rows)

    return Task("amc23", when_needed(data, read), extract_explicit, grade, extract_explicit_cut, group)


def as_problem(row: Row, examples: Sequence[Example]) -> Problem:
    """One row as a problem."""
    known = row.fields.get("id", row.index)
    return Problem(f"amc23/{known}", chat(row.text("problem", "question"), examples), row.number("answer"))
