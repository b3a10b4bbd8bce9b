"""`aime25`: the 30 problems of the two American Invitational Mathematics Examinations of 2025 (MAA)."""

from collections.abc import Sequence

from harness.nouns import Problem, Task

from .data import Hub, Row, read_rows, when_needed, with_distinct_ids
from .fewshot import COMPETITION, Example, shots
from .grading import extract_explicit, extract_explicit_cut, grade, group
from .prompts import BOXED, chat


def aime25(data: str | None = None, num_fewshot: int = 0) -> Task:
    """30 AIME problems of 2025; the answers are integers from 0 to 999.

    `data` is a file with `problem` (or `prompt`) and `answer`; without it they come from math-ai/aime25 on the hub.
    Raises UserError on data that cannot be read and on more than 6 few-shot examples.
    """
    examples = shots("aime25", COMPETITION, num_fewshot)

    def read() -> Sequence[Problem]:
        rows = read_rows(data, Hub("math-ai/aime25", "test"))
        return with_distinct_ids(as_problem(row, examples) for row in rows)

    return Task("aime25", when_needed(data, read), extract_explicit, grade, extract_explicit_cut, group)


def as_problem(row: Row, examples: Sequence[Example]) -> Problem:
    """One row as a problem; the instruction that some copies append is taken off, since `chat` adds it."""
    question = row.text("problem", "prompt").removesuffix(BOXED).rstrip()
    known = row.fields.get("id", row.index)
    return Problem(f"aime25/{known}", chat(question, examples), row.number("answer"))
