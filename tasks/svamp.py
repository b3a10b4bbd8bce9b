"""`svamp`: one-step word problems with varied wording (Patel et al. 2021, arXiv 2103.07191), 1,000 rows."""

from collections.abc import Sequence

from harness.nouns import Problem, Task

from .data import Hub, Row, read_rows, when_needed, with_distinct_ids
from .fewshot import GRADE_SCHOOL, Example, shots
from .grading import extract_explicit_cut, extract_number, grade, group
from .prompts import chat


def svamp(data: str | None = None, num_fewshot: int = 0) -> Task:
    """One-step word problems; the answer is one number.

    `data` is a file with `ID`, `Body`, `Question` and `Answer`; without it both splits (700 and 300 rows) come from
    ChilleD/SVAMP on the hub. Raises UserError on data that cannot be read and on more than 8 few-shot examples.
    """
    examples = shots("svamp", GRADE_SCHOOL, num_fewshot)

    def read() -> Sequence[Problem]:
        rows = read_rows(data, Hub("ChilleD/SVAMP", "train+test"))
        return with_distinct_ids(as_problem(row, examples) for row in rows)

    return Task("svamp", when_needed(data, read), extract_number, grade, extract_explicit_cut, group)


def as_problem(row: Row, examples: Sequence[Example]) -> Problem:
    """One row as a problem: the body and the question as they stand, one space between."""
    question = f"{row.text('Body')} {row.text('Question')}"
    meta = {"subject": row.text("Type")} if row.has("Type") else {}
    return Problem(f"svamp/{row.text('ID')}", chat(question, examples), row.number("Answer"), meta)
