r"""`olympiadbench`: 675 open-ended text-only English competition problems (He et al. 2024, arXiv 2402.14008).

The gold string is the published answer without its dollars, several answers with commas between, in any
order. The tolerance that one row states (0.1 for 4.2 %) is not used, since its question asks for one decimal place.
"""

from collections.abc import Sequence
from typing import Any, Literal

from harness.errors import UserError
from harness.nouns import Problem, Task

from .data import Hub, Row, read_rows, when_needed, with_distinct_ids
from .fewshot import COMPETITION, Example, shots
from .grading import extract_explicit, extract_explicit_cut, grade, group
from .prompts import chat

AnswerType = Literal["Numerical", "Expression", "Tuple", "Interval"]

MISPRINTED = {
    "$t(0,4]$": "(0,4]",  # row 2045: the values of t are asked for
    r"$\frac{1}{2},\sqrt{x}$": r"\frac{1}{2}\sqrt{x}",  # row 2498: its solution ends in the product
}


def olympiadbench(answer_type: AnswerType | None = None, data: str | None = None, num_fewshot: int = 0) -> Task:
    """Olympiad-level problems answered by numbers, expressions, tuples or intervals.

    `answer_type` keeps only the problems of that type. `data` is a file with `id`, `question`, `final_answer`,
    `answer_type` and the set's other fields; without it they come from Hothan/OlympiadBench (OE_TO_maths_en_COMP) on
    the hub. Raises UserError on data that cannot be read, where no problem has the type and on more than 6 few-shot
    examples.
    """
    examples = shots("olympiadbench", COMPETITION, num_fewshot)

    def read() -> Sequence[Problem]:
        rows = read_rows(data, Hub("Hothan/OlympiadBench", "train", "OE_TO_maths_en_COMP"))
        problems = with_distinct_ids(as_problem(row, examples) for row in rows)
        kept = [problem for problem in problems if answer_type in (None, problem.meta["answer_type"])]
        if not kept:
            raise UserError(f"olympiadbench: no problem in the data has answer_type={answer_type}")
        return kept

    return Task("olympiadbench", when_needed(data, read), extract_explicit, grade, extract_explicit_cut, group)


def as_problem(row: Row, examples: Sequence[Example]) -> Problem:
    """One row as a problem, its context before its question."""
    context = row.text("context") if row.fields.get("context") else ""
    question = f"{context}\n{row.text('question')}".strip()
    return Problem(f"olympiadbench/{row.value('id')}", chat(question, examples), gold_of(row), meta_of(row))


def gold_of(row: Row) -> str:
    """The published answer as one LaTeX string, without a clause that explains its letters."""
    published = ",".join(texts(row, "final_answer"))
    formula = published.partition(", where")[0].replace("$", "").replace(r"\quad", "")
    return MISPRINTED.get(published) or formula.strip().removesuffix(".")


def texts(row: Row, name: str) -> list[str]:
    """A field that holds a list of texts, or one text. Raises UserError otherwise."""
    found: Any = row.value(name)
    each = [found] if isinstance(found, str) else found
    if not isinstance(each, list) or not each or not all(isinstance(one, str) for one in each):
        raise row.complaint((name,), "a list of texts", found)
    return each


def meta_of(row: Row) -> dict[str, str | int | float]:
    """Subject, type of answer, unit and the first solution."""
    meta: dict[str, str | int | float] = {"answer_type": row.text("answer_type")}
    meta |= {key: row.text(name) for key, name in (("subject", "subfield"), ("unit", "unit")) if row.fields.get(name)}
    return meta | {"solution": texts(row, "solution")[0]} if row.has("solution") else meta
