"""`math500`: the 500 problems of MATH that Lightman et al. 2023 (arXiv 2305.20050) held out, the usual MATH test."""

from collections.abc import Sequence

from harness.nouns import Problem, Task

from .data import Hub, Row, read_rows, when_needed, with_distinct_ids
from .fewshot import COMPETITION, Example, shots
from .grading import extract_explicit, extract_explicit_cut, grade, group
from .math_ import keep, meta_of
from .prompts import chat


def math500(
    level: tuple[int, ...] | None = None, subject: str | None = None, data: str | None = None, num_fewshot: int = 0
) -> Task:
    """The 500 held-out competition problems of MATH.

    `level` and `subject` keep only what they name. `data` is a file with `problem`, `solution`, `answer`, `subject`,
    `level` and `unique_id`; without it they come from HuggingFaceH4/MATH-500 on the hub. Raises UserError on data that
    cannot be read, on a level or a subject that no problem has and on more than 6 few-shot examples.
    """
    examples = shots("math500", COMPETITION, num_fewshot)

    def read() -> Sequence[Problem]:
        rows = read_rows(data, Hub("HuggingFaceH4/MATH-500", "test"))
        return keep("math500", with_distinct_ids(as_problem(row, examples) for row in rows), level, subject)

    return Task("math500", when_needed(data, read), extract_explicit, grade, extract_explicit_cut, group)


def as_problem(row: Row, examples: Sequence[Example]) -> Problem:
    """One row as a problem."""
    question = chat(row.text("problem"), examples)
    return Problem(f"math500/{row.text('unique_id')}", question, row.text("answer"), meta_of(row))
