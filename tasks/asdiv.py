"""`asdiv`: grade-school word problems of many patterns (Miao et al. 2020, arXiv 2106.15772), 2,215 with one answer.

Most answers are numbers; 131 are names, times of day, ratios or fractions. The set's licence is non-commercial.
"""

import re
from collections.abc import Sequence

from harness.nouns import Problem, Task

from .data import Hub, Row, read_rows, when_needed, with_distinct_ids
from .fewshot import GRADE_SCHOOL, Example, shots
from .grading import extract_explicit_cut, extract_number, grade, group
from .prompts import chat


def asdiv(data: str | None = None, num_fewshot: int = 0) -> Task:
    """Grade-school word problems, most of them answered by a number.

    Rows with several answers (a `;` between them) are left out, as is usual. `data` is a file with `body`, `question`
    and `answer`; without it they come from EleutherAI/asdiv on the hub. Raises UserError on data that cannot be read
    and on more than 8 few-shot examples.
    """
    examples = shots("asdiv", GRADE_SCHOOL, num_fewshot)

    def read() -> Sequence[Problem]:
        rows = read_rows(data, Hub("EleutherAI/asdiv", "validation"))
        return with_distinct_ids(as_problem(row, examples) for row in rows if ";" not in row.text("answer"))

    return Task("asdiv", when_needed(data, read), extract_number, grade, extract_explicit_cut, group)


def as_problem(row: Row, examples: Sequence[Example]) -> Problem:
    """One row as a problem; "9 (apples)" is the answer 9 with the unit apples."""
    question = f"{row.text('body')} {row.text('question')}"
    answer = row.text("answer")
    parts = re.fullmatch(r"(?P<gold>.+?)\s+\((?P<unit>[^()]*)\)", answer)
    meta = {"subject": row.text("solution_type")} if row.has("solution_type") else {}
    if parts is None:
        return Problem(f"asdiv/{row.index}", chat(question, examples), answer, meta)
    return Problem(f"asdiv/{row.index}", chat(question, examples), parts["gold"], {**meta, "unit": parts["unit"]})
