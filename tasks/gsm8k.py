"""`gsm8k`: grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168), 1,319 test and 7,473 train rows."""

from collections.abc import Sequence
from typing import Literal

from harness.errors import UserError
from harness.nouns import Problem, Task

from .data import Hub, Row, plain_number, read_rows, when_needed, with_distinct_ids
from .fewshot import GRADE_SCHOOL, Example, shots
from .grading import extract_explicit_cut, extract_number, grade, group
from .prompts import chat


def gsm8k(split: Literal["test", "train"] = "test", data: str | None = None, num_fewshot: int = 0) -> Task:
    """Grade-school word problems; the answer is one number.

    `data` is a file with `question` and `answer`; without it the split comes from openai/gsm8k on the hub. Raises
    UserError on data that cannot be read and on more than 8 few-shot examples.
    """
    examples = shots("gsm8k", GRADE_SCHOOL, num_fewshot)

    def read() -> Sequence[Problem]:
        rows = read_rows(data, Hub("openai/gsm8k", split, "main"))
        return with_distinct_ids(as_problem(row, split, examples) for row in rows)

    return Task("gsm8k", when_needed(data, read), extract_number, grade, extract_explicit_cut, group)


def as_problem(row: Row, split: str, examples: tuple[Example, ...]) -> Problem:
    """One row as a problem."""
    solution = row.text("answer")
    return Problem(
        f"gsm8k/{split}/{row.index}",
        chat(row.text("question"), examples),
        final_number(row, solution),
        {"solution": solution},
    )


def final_number(row: Row, solution: str) -> str:
    """The number after `####`. Raises UserError where there is none."""
    try:
        return plain_number(solution.rpartition("####")[2])
    except ValueError:
        raise UserError(f"{row.where}: field 'answer' must end in a line '#### NUMBER'") from None
