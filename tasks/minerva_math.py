r"""`minerva_math`: 272 university problems from MIT OpenCourseWare (Lewkowycz et al. 2022, arXiv 2206.14858).

The gold answers are the `\boxed{}` of the solutions, some of them in a programmer's spelling, which is turned into
LaTeX here. The set's licence is non-commercial.
"""

import re
from collections.abc import Sequence

from harness.errors import UserError
from harness.nouns import Problem, Task

from .data import Hub, Row, read_rows, when_needed, with_distinct_ids
from .fewshot import COMPETITION, Example, shots
from .gold import last_boxed
from .grading import Rules, extract_explicit, extract_explicit_cut, grader, grouper
from .prompts import chat

ROUNDED = Rules(rel_tol=1e-4)
"""The golds are rounded values of computations, so a number may differ by this share: our choice."""

SPELLINGS = (
    (re.compile(r"\bnp\.(\w+)"), r"\\\1"),  # np.arcsin(10/13)
    (re.compile(r"\\exp\s*{([^{}]*)}"), r"e^{\1}"),  # \exp{a*t}
    (re.compile(r"(?<=\d)\.(?=/)"), ""),  # -1./3
    (re.compile(r"\*"), r" \\cdot "),
    (re.compile(r"\$\s*\$|\$"), " "),  # a formula that two pairs of dollars hold
)


def minerva_math(data: str | None = None, num_fewshot: int = 0) -> Task:
    """University problems of physics, chemistry, astronomy, economics and differential equations.

    `data` is a file with `problem`, `solution` and `type` (or `question` and `answer`); without it they come from
    math-ai/minervamath on the hub. Raises UserError on data that cannot be read and on more than 6 few-shot examples.
    """
    examples = shots("minerva_math", COMPETITION, num_fewshot)

    def read() -> Sequence[Problem]:
        rows = read_rows(data, Hub("math-ai/minervamath", "test"))
        return with_distinct_ids(as_problem(row, examples) for row in rows)

    return Task(
        "minerva_math",
        when_needed(data, read),
        extract_explicit,
        grader(ROUNDED),
        extract_explicit_cut,
        grouper(ROUNDED),
    )


def as_problem(row: Row, examples: Sequence[Example]) -> Problem:
    """One row as a problem."""
    meta = {key: row.text(name) for key, name in (("subject", "type"), ("solution", "solution")) if row.has(name)}
    question = chat(row.text("problem", "question"), examples)
    return Problem(f"minerva_math/{row.fields.get('idx', row.index)}", question, in_latex(answer_of(row)), meta)


def answer_of(row: Row) -> str:
    r"""The answer field, else the last `\boxed{}` of the solution. Raises UserError where there is neither."""
    if row.has("answer"):
        return row.text("answer")
    answer = last_boxed(row.text("solution"))
    if answer is None:
        raise UserError(rf"{row.where}: field 'solution' has no \boxed{{...}} that holds the answer")
    return answer


def in_latex(answer: str) -> str:
    """An answer with a programmer's spellings turned into LaTeX."""
    for pattern, latex in SPELLINGS:
        answer = pattern.sub(latex, answer)
    return answer.strip()
