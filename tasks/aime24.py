"""`aime24`: the 30 problems of the two American Invitational Mathematics Examinations of 2024 (MAA)."""

from collections.abc import Sequence

from harness.nouns import Problem, Task

from .data import Hub, Row, read_rows, when_needed, with_distinct_ids
from .fewshot import COMPETITION, Example, shots
from .grading import extract_explicit, extract_explicit_cut, grade, group
from .prompts import chat


def aime24(data: str | None = None, num_fewshot: int = 0) -> Task:
    """30 AIME problems of 2024; the answers are integers from 0 to 999.

    `data` is a file with `id`, `problem`, `answer` and perhaps `solution`; without it they come from
    HuggingFaceH4/aime_2024 on the hub. Raises UserError on data that cannot be read and on more than 6 few-shot
    examples.
    """
    examples = shots("aime24", COMPETITION, num_fewshot)

    def read() -> Sequence[Problem]:
        rows = read_rows(data, Hub("HuggingFaceH4/aime_2024", "train"))
        return with_distinct_ids(as_problem(row, examples) for row in rows)

    return Task("aime24", when_needed(data, read), extract_explicit, grade, extract_explicit_cut, group)


def as_problem(row: Row, examples: Sequence[Example]) -> Problem:
    """One row as a problem; "025" becomes "25"."""
    meta = {"solution": row.text("solution")} if row.has("solution") else {}
    known = row.fields.get("id", row.index)
    return Problem(f"aime24/{known}", chat(row.text("problem"), examples), row.number("answer"), meta)
