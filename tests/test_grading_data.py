"""Reference solutions grade correct against their own golds, on small own samples and on the data sets, if there."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.tasks.grading import extract_explicit, extract_number, grade
from harness.tasks.grading.extraction import closed_boxes

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

needs_data = pytest.mark.skipif(not DATA.exists(), reason="the data sets are not here")

SAMPLES = [
    ("72", "48 / 2 = <<48/2=24>>24 in May.\nAltogether 48 + 24 = 72 clips.\n#### 72", extract_number),
    ("1,450,000", "So 45*30,000 = 1,350,000 and the total is 1,450,000\n#### 1,450,000", extract_number),
    (
        r"\left( 3, \frac{\pi}{2} \right)",
        r"so $(r,\theta) = \boxed{\left( 3, \frac{\pi}{2} \right)}.$",
        extract_explicit,
    ),
    ("025", r"Hence $r^2 + s^2 + t^2 = \boxed{25}$.", extract_explicit),
    ("27.0", r"\boxed{27}", extract_explicit),
    ("9 (apples)", "#### 9", extract_number),
    ("np.arcsin(10/13)", r"\boxed{\arcsin \frac{10}{13}}", extract_explicit),
    ("4.5e33", r"\boxed{4.5 \times 10^{33}}", extract_explicit),
    (r"$\frac{1}{2 n+2}$", r"\boxed{\frac{1}{2(n+1)}}", extract_explicit),
    ("$-2,0,2$", r"\boxed{0, 2, -2}", extract_explicit),
]


@pytest.mark.parametrize(("gold", "solution", "extract"), SAMPLES)
def test_a_sample_solution_grades_correct(gold: str, solution: str, extract: Callable[[str], str | None]) -> None:
    answer = extract(solution)
    assert answer is not None
    assert grade(gold, answer).outcome == "correct"


def rows(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return [json.loads(line) for line in file]


def refused(pairs: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    return [(gold, answer) for gold, answer in pairs if answer is None or grade(gold, answer).outcome != "correct"]


@needs_data
@pytest.mark.parametrize("split", ["test", "train"])
def test_gsm8k(split: str) -> None:
    solutions = [row["answer"] for row in rows(f"gsm8k/{split}.jsonl.gz")]
    assert refused([(each.rsplit("####", 1)[1].strip(), extract_number(each)) for each in solutions]) == []


# The last box is one of several there, all of which answer the question (or, in two rows, say the same in two ways).
LAST_BOX_IS_A_PART = {"1", r"\frac{2}{5}", "(0,0)", r"\left(-\tfrac52, -\tfrac52\right)", r"\frac{5\pi}{4}"}


@needs_data
def test_math_but_for_rows_whose_answer_has_several_boxes() -> None:
    solutions = [row["solution"] for row in rows("math/test.jsonl.gz")]
    pairs = [(closed_boxes(each)[-1][2], extract_explicit(each)) for each in solutions]
    assert {gold for gold, _ in refused(pairs)} == LAST_BOX_IS_A_PART
    assert len(refused(pairs)) == 5


@needs_data
def test_math500() -> None:
    assert refused([(row["answer"], extract_explicit(row["solution"])) for row in rows("math500/test.jsonl.gz")]) == []


@needs_data
def test_competitions() -> None:
    assert refused([(row["answer"], extract_explicit(row["solution"])) for row in rows("aime24/test.jsonl.gz")]) == []
    assert refused([(str(row["answer"]), str(int(row["answer"]))) for row in rows("aime25/aime25.jsonl")]) == []
    assert refused([(str(row["answer"]), f"{row['answer']:.0f}") for row in rows("amc23/test.jsonl")]) == []


@needs_data
def test_minerva() -> None:
    solutions = [row["solution"] for row in rows("minerva_math/test.jsonl.gz")]
    assert refused([(closed_boxes(each)[-1][2], extract_explicit(each)) for each in solutions]) == []


@needs_data
def test_olympiadbench() -> None:
    pairs: list[tuple[str, str | None]] = []
    for row in rows("olympiadbench/test.jsonl.gz"):
        (final,) = row["final_answer"]
        pairs.append(
            (f"{final} {row['unit'] or ''}", extract_explicit(rf"so \boxed{{{final.strip().replace('$', '')}}}."))
        )
    assert refused(pairs) == []


@needs_data
def test_word_problems() -> None:
    assert (
        refused([(str(row["Answer"]), extract_number(f"so {row['Answer']!r}")) for row in rows("svamp/test.jsonl.gz")])
        == []
    )
    assert refused([(str(row["target"]), f"{row['target']}") for row in rows("multiarith/multiarith.jsonl")]) == []
    asdiv = [row["answer"] for row in rows("asdiv/test.jsonl.gz")]
    assert refused([(each, extract_explicit(f"#### {each}")) for each in asdiv]) == []
    assert refused([(each, re.sub(r"\s+\(.*\)", "", each)) for each in asdiv]) == []


@needs_data
def test_the_published_verdicts_on_the_gsm8k_example_solutions() -> None:
    counts = dict.fromkeys(("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"), 0)
    for row in rows("gsm8k_example_model_solutions/example_model_solutions.jsonl.gz"):
        gold = row["ground_truth"].rsplit("A:", 1)[1].strip()
        for system in counts:
            answer = extract_number(row[system]["solution"])
            correct = answer is not None and grade(gold, answer).outcome == "correct"
            assert correct == row[system]["is_correct"]
            counts[system] += correct
    assert list(counts.values()) == [286, 515, 458, 742]
