import gzip
import importlib
import inspect
import json
import re
import typing
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import pytest

from harness.errors import UserError
from harness.nouns import Message, Problem, Task
from harness.tasks.fewshot import COMPETITION, GRADE_SCHOOL
from harness.tasks.gold import last_boxed
from harness.tasks.prompts import BOXED, chat

SMALL = Path(__file__).parent / "data" / "tasks"
REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason="the data sets are not here")

SMALL_FILES = {
    "gsm8k": "gsm8k.jsonl",
    "math": "math.json",
    "math500": "math500.jsonl",
    "amc23": "amc23.jsonl",
    "aime24": "aime24.jsonl",
    "aime25": "aime25.jsonl",
    "minerva_math": "minerva_math.jsonl",
    "olympiadbench": "olympiadbench.jsonl",
    "svamp": "svamp.csv",
    "asdiv": "asdiv.parquet",
    "multiarith": "multiarith.jsonl.gz",
}
REAL_FILES = {
    "gsm8k": "gsm8k/test.jsonl.gz",
    "math": "math/test.jsonl.gz",
    "math500": "math500/test.jsonl.gz",
    "amc23": "amc23/test.jsonl",
    "aime24": "aime24/test.jsonl.gz",
    "aime25": "aime25/aime25.jsonl",
    "minerva_math": "minerva_math/test.jsonl.gz",
    "olympiadbench": "olympiadbench/test.jsonl.gz",
    "svamp": "svamp/test.jsonl.gz",
    "asdiv": "asdiv/test.jsonl.gz",
    "multiarith": "multiarith/multiarith.jsonl",
}
NAMES = sorted(SMALL_FILES)


def plugin(name: str) -> Callable[..., Task]:
    module = importlib.import_module(f"harness.tasks.{name}{'_' if name == 'math' else ''}")
    function: Callable[..., Task] = getattr(module, name)
    return function


def small(name: str, **options: Any) -> Task:
    return plugin(name)(data=str(SMALL / SMALL_FILES[name]), **options)


def real(name: str, **options: Any) -> Task:
    return plugin(name)(data=str(REAL / REAL_FILES[name]), **options)


def raw_rows(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return [json.loads(line) for line in text.split(b"\n") if line]


def asked(problem: Problem) -> str:
    assert isinstance(problem.prompt, tuple)
    assert problem.prompt[-1].role == "user"
    return problem.prompt[-1].content


EXPECTED = {
    "gsm8k": {"gsm8k/test/0": "82", "gsm8k/test/1": "3750", "gsm8k/test/2": "-7"},
    "math": {"math/test/0": "-3", "math/test/1": "1, 2", "math/test/2": r"\tfrac16", "math/test/3": r"9\pi"},
    "math500": {
        "math500/test/prealgebra/90001.json": r"\frac{1}{2}",
        "math500/test/algebra/90002.json": "7, -7",
        "math500/test/counting_and_probability/90003.json": "24",
    },
    "amc23": {"amc23/0": "13", "amc23/1": "-3"},
    "aime24": {"aime24/90": "7", "aime24/91": "24"},
    "aime25": {"aime25/0": "97", "aime25/1": "36"},
    "minerva_math": {
        "minerva_math/0": "2e3",
        "minerva_math/1": r"\arcsin(3/5)",
        "minerva_math/2": r"2e^{-a \cdot t}",
    },
    "olympiadbench": {
        "olympiadbench/1": "4,-4",
        "olympiadbench/2": "n^{2}",
        "olympiadbench/3": "3.7",
        "olympiadbench/4": "(-3,3)",
    },
    "svamp": {"svamp/chal-9001": "14", "svamp/chal-9002": "2.5"},
    "asdiv": {"asdiv/0": "8", "asdiv/1": "Bo", "asdiv/3": "3:2"},
    "multiarith": {"multiarith/0": "11", "multiarith/1": "11"},
}


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_golds(name: str) -> None:
    task = small(name)
    assert task.name == name
    assert {problem.id: problem.gold for problem in task.problems} == EXPECTED[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_instruction_is_asked_once_and_the_solution_never(name: str) -> None:
    for problem in small(name).problems:
        assert asked(problem).count(BOXED) == 1
        assert asked(problem).endswith(f"\n{BOXED}")
        assert str(problem.meta.get("solution", "no solution")) not in asked(problem)


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_text_counts_only_with_an_explicit_answer(name: str) -> None:
    task = small(name)
    assert task.extract_cut is not None
    assert task.extract_cut("We add 3 and 4 and get 7") is None
    assert task.extract_cut(r"So it is $\boxed{7}$, which we now che") == "7"


def test_only_grade_school_tasks_fall_back_on_the_last_number() -> None:
    guessing = {name for name in NAMES if small(name).extract("First 3, then 7") == "7"}
    assert guessing == {"asdiv", "gsm8k", "multiarith", "svamp"}


@pytest.mark.parametrize("name", NAMES)
def test_few_shot_examples_are_earlier_turns(name: str) -> None:
    plain, shown = small(name).problems[0], small(name, num_fewshot=4).problems[0]
    assert len(shown.prompt) == 9
    assert shown.prompt[-1] == plain.prompt[-1]
    roles = [turn.role for turn in shown.prompt if isinstance(turn, Message)]
    assert roles == ["user", "assistant"] * 4 + ["user"]
    with pytest.raises(UserError, match=f"{name}: num_fewshot must be 0 to [68], got 9"):
        small(name, num_fewshot=9)
    with pytest.raises(UserError, match="got -1"):
        small(name, num_fewshot=-1)


def allowed(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        return all(part is NoneType or allowed(part) for part in typing.get_args(annotation))
    return annotation in (str, int, float, bool, tuple[int, ...]) or typing.get_origin(annotation) is typing.Literal


@pytest.mark.parametrize("name", NAMES)
def test_options_are_what_the_command_line_can_read(name: str) -> None:
    function = plugin(name)
    hints = typing.get_type_hints(function)
    assert hints.pop("return") is Task
    assert hints["data"] == str | None
    assert hints["num_fewshot"] is int
    assert all(allowed(annotation) for annotation in hints.values())
    assert all(option.default is not option.empty for option in inspect.signature(function).parameters.values())
    assert function.__doc__


def test_math_filters() -> None:
    def kept(**options: Any) -> list[str]:
        return [problem.id for problem in small("math", **options).problems]

    assert kept(level=(1,)) == ["math/test/0", "math/test/2"]
    assert kept(level=(1, 2), subject="Algebra") == ["math/test/0", "math/test/1"]
    assert kept(subject="Counting & Probability") == kept(subject="counting_and_probability") == ["math/test/2"]
    assert kept(subject="geometry") == ["math/test/3"]
    assert "level" not in small("math").problems[3].meta
    assert [problem.meta["level"] for problem in small("math500", level=(3,)).problems] == [3, 3]
    with pytest.raises(UserError, match="math: level must be 1 to 5, got 2, 7"):
        kept(level=(2, 7))
    with pytest.raises(UserError, match="math500: no subject 'topology'; there are algebra, counting_and_probability"):
        small("math500", subject="topology")
    with pytest.raises(UserError, match="math: no problem is left with level=\\(5,\\) and subject=None"):
        kept(level=(5,))


def test_olympiadbench_filter_units_and_context() -> None:
    task = small("olympiadbench", answer_type="Numerical")
    assert [problem.id for problem in task.problems] == ["olympiadbench/1", "olympiadbench/3"]
    assert task.problems[1].meta["unit"] == "%"
    assert asked(small("olympiadbench").problems[1]).startswith("A square has side $n$.\nWhat is its area?\n")
    with pytest.raises(UserError, match="olympiadbench: no problem in the data has answer_type=Tuple"):
        small("olympiadbench", answer_type="Tuple")


def test_units_and_instructions_of_the_data_are_set_aside() -> None:
    assert small("asdiv").problems[0].meta["unit"] == "cups"
    assert asked(small("svamp").problems[0]).startswith(
        "Uma has 70 pears and 33 plums. She puts the pears into 5 baskets How many pears are in each basket?\n"
    )
    assert asked(small("aime25").problems[0]) == f"Find the largest two-digit prime.\n{BOXED}"


def test_gsm8k_split_is_part_of_the_id() -> None:
    assert small("gsm8k", split="train").problems[0].id == "gsm8k/train/0"


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"so $\boxed{1}$ and then $\boxed{ \frac{a_{1}}{2} }$.", r"\frac{a_{1}}{2}"),
        (r"\boxed{\left\{ 1, 2 \right\}}", r"\left\{ 1, 2 \right\}"),
        (r"\fbox{3}", "3"),
        (r"\framebox{204} minutes", "204"),
        (r"\boxed{1} but \boxed{2", "1"),
        (r"\boxed{}", ""),
        ("no box", None),
        ("", None),
    ],
)
def test_last_boxed(solution: str, gold: str | None) -> None:
    assert last_boxed(solution) == gold


def evaluated(side: str) -> Fraction:
    """A sum, difference, product or quotient of two numbers, or a number."""
    parts = re.fullmatch(r"([\d.]+)(?: ([-+*/]) ([\d.]+))?", side.strip())
    assert parts is not None, side
    left, right = Fraction(parts[1]), Fraction(parts[3] or 0)
    return {None: left, "+": left + right, "-": left - right, "*": left * right}.get(
        parts[2], left / right if right else left
    )


@pytest.mark.parametrize(("question", "solution"), GRADE_SCHOOL)
def test_grade_school_examples_compute_right(question: str, solution: str) -> None:
    equations = re.findall(r"([\d.]+ [-+*/] [\d.]+) = (\d+(?:\.\d+)?)", solution)
    assert equations
    assert all(evaluated(left) == evaluated(right) for left, right in equations)
    box = re.search(r"\\boxed\{(\d+)\}\$\.$", solution)
    assert box is not None
    assert len(re.findall(rf"\b{box[1]}\b", solution)) >= 2


@pytest.mark.parametrize(
    ("example", "answer"),
    [
        (0, lambda: str(5 - 3 * 4)),
        (1, lambda: str(sum(len(set(str(n))) == 3 and set(str(n)) <= set("13579") for n in range(100, 1000)))),
        (4, lambda: str(pow(7, 50, 5))),
        (5, lambda: rf"\frac{{1}}{{{36 // sum(a + b >= 10 for a in range(1, 7) for b in range(1, 7))}}}"),
    ],
)
def test_competition_examples_by_brute_force(example: int, answer: Callable[[], str]) -> None:
    assert rf"\boxed{{{answer()}}}" in COMPETITION[example][1]


def test_competition_examples_at_sampled_points() -> None:
    assert r"\boxed{\frac{x - 3}{x + 2}}" in COMPETITION[2][1]
    for x in (Fraction(1), Fraction(7, 3), Fraction(-9)):
        assert (x * x - 9) / (x * x + 5 * x + 6) == (x - 3) / (x + 2)
    assert r"\boxed{2\sqrt{10}}" in COMPETITION[3][1]
    assert 2**2 + 6**2 == 2**2 * 10


def test_chat_keeps_the_order_of_examples() -> None:
    turns = chat("c", [("a", "1"), ("b", "2")], "do")
    assert [(turn.role, turn.content) for turn in turns] == [
        ("user", "a\ndo"),
        ("assistant", "1"),
        ("user", "b\ndo"),
        ("assistant", "2"),
        ("user", "c\ndo"),
    ]


HUB_ROWS: list[tuple[str, tuple[str, str | None, str], dict[str, Any], str, str]] = [
    ("gsm8k", ("openai/gsm8k", "main", "test"), {"question": "q", "answer": "a\n#### 3"}, "gsm8k/test/0", "3"),
    (
        "math500",
        ("HuggingFaceH4/MATH-500", None, "test"),
        {
            "problem": "q",
            "solution": "s",
            "answer": "3",
            "subject": "Algebra",
            "level": 2,
            "unique_id": "test/algebra/1",
        },
        "math500/test/algebra/1",
        "3",
    ),
    ("amc23", ("math-ai/amc23", None, "test"), {"id": 4, "question": "q", "answer": "3.0", "url": "u"}, "amc23/4", "3"),
    (
        "aime24",
        ("HuggingFaceH4/aime_2024", None, "train"),
        {"id": 61, "problem": "q", "solution": "s", "answer": "003", "url": "u", "year": "2024"},
        "aime24/61",
        "3",
    ),
    ("aime25", ("math-ai/aime25", None, "test"), {"problem": "q", "answer": "3", "id": "7"}, "aime25/7", "3"),
    ("minerva_math", ("math-ai/minervamath", None, "test"), {"question": "q", "answer": "3."}, "minerva_math/0", "3."),
    (
        "olympiadbench",
        ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train"),
        {"id": 9, "question": "q", "solution": ["s"], "final_answer": ["$3$"], "context": None, "image_1": None}
        | {"is_multiple_answer": False, "unit": None, "answer_type": "Numerical", "error": None, "subfield": "Algebra"},
        "olympiadbench/9",
        "3",
    ),
    (
        "svamp",
        ("ChilleD/SVAMP", None, "train+test"),
        {"ID": "chal-5", "Body": "b.", "Question": "q", "Equation": "( 1 + 2 )", "Answer": "3.0", "Type": "Addition"},
        "svamp/chal-5",
        "3",
    ),
    (
        "asdiv",
        ("EleutherAI/asdiv", None, "validation"),
        {"body": "b", "question": "q", "solution_type": "Sum", "answer": "3 (pens)", "formula": "1+2=3"},
        "asdiv/0",
        "3",
    ),
    (
        "multiarith",
        ("ChilleD/MultiArith", None, "train+test"),
        {"question": "q", "final_ans": "3"},
        "multiarith/0",
        "3",
    ),
]


@pytest.mark.parametrize(("name", "wanted", "row", "identity", "gold"), HUB_ROWS)
def test_rows_of_the_hub(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    wanted: tuple[str, str | None, str],
    row: dict[str, Any],
    identity: str,
    gold: str,
) -> None:
    import datasets

    asked_for = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda hub, config, split: asked_for.append((hub, config, split)) or [row]
    )
    (problem,) = plugin(name)().problems
    assert asked_for == [wanted]
    assert (problem.id, problem.gold) == (identity, gold)


# ---- the data sets themselves, where a developer has them

ROWS = {
    "gsm8k": 1319,
    "math": 5000,
    "math500": 500,
    "amc23": 40,
    "aime24": 30,
    "aime25": 30,
    "minerva_math": 272,
    "olympiadbench": 675,
    "svamp": 1000,
    "asdiv": 2215,
    "multiarith": 600,
}


@pytest.fixture(scope="module")
def sets() -> dict[str, Task]:
    return {name: real(name) for name in NAMES}


@needs_data
def test_row_counts_and_distinct_ids(sets: dict[str, Task]) -> None:
    assert {name: len(task.problems) for name, task in sets.items()} == ROWS
    ids = [problem.id for task in sets.values() for problem in task.problems]
    assert len(set(ids)) == len(ids)


@needs_data
def test_original_archive_of_math_holds_the_same_problems(sets: dict[str, Task]) -> None:
    archive = str(REAL / "math" / "MATH.tar.gz")
    test, train = plugin("math")(data=archive), plugin("math")(data=archive, split="train")
    assert {(asked(p), p.gold) for p in test.problems} == {(asked(p), p.gold) for p in sets["math"].problems}
    assert len(train.problems) == 7500 - 2  # number_theory/7115 and 7117 box nothing
    by_name = {problem.id.removeprefix("math/"): problem for problem in test.problems}
    for problem in sets["math500"].problems:
        original = by_name[problem.id.removeprefix("math500/")]
        assert asked(problem) == asked(original)
        assert dict(problem.meta) == dict(original.meta)
        assert problem.gold == original.gold


@needs_data
def test_train_and_test_of_gsm8k_share_no_question(sets: dict[str, Task]) -> None:
    train = plugin("gsm8k")(split="train", data=str(REAL / "gsm8k" / "train.jsonl.gz"))
    assert len(train.problems) == 7473
    assert not {asked(p) for p in train.problems} & {asked(p) for p in sets["gsm8k"].problems}


@needs_data
def test_no_prompt_shows_a_solution_or_is_an_example(sets: dict[str, Task]) -> None:
    examples = {f"{question}\n{BOXED}" for question, _ in (*GRADE_SCHOOL, *COMPETITION)}
    for task in sets.values():
        for problem in task.problems:
            assert asked(problem).count(BOXED) == 1
            assert asked(problem) not in examples
            assert len(problem.prompt) == 1
            if (
                problem.id != "minerva_math/169"
            ):  # quotes an earlier part whose whole solution is the same "\\boxed{1}."
                assert str(problem.meta.get("solution", "no solution")) not in asked(problem)


def published(name: str, row: dict[str, Any]) -> str:
    """A completion that says what the data set says: its solution, or its answer as a model would put it."""
    if name == "gsm8k":
        return str(row["answer"])
    if name in ("math", "math500", "minerva_math", "aime24"):
        return str(row["solution"])
    if name == "asdiv":
        number, _, unit = row["answer"].partition(" (")
        return rf"The answer is $\boxed{{{number}" + (rf" \text{{ {unit.rstrip(')')}}}}}$." if unit else "}$.")
    if name == "olympiadbench":
        return rf"The answer is $\boxed{{{row['final_answer'][0].replace('$', '')}}}$."
    field = {"svamp": "Answer", "multiarith": "target"}.get(name, "answer")
    return rf"The answer is $\boxed{{{row[field]}}}$."


EXCUSED = {
    "math": {
        "math/test/2716",  # either focus is right: the solution boxes both, the gold is the last
        "math/test/2912",  # either vertex is right: the same
    },
    "olympiadbench": {
        "olympiadbench/1965",  # published as a sentence, of which the gold keeps the formula
        "olympiadbench/2045",  # published misprints, mended in the gold
        "olympiadbench/2498",
    },
}


@needs_data
@pytest.mark.parametrize("name", NAMES)
def test_published_solutions_are_graded_correct(name: str, sets: dict[str, Task]) -> None:
    outcomes: Counter[str] = Counter()
    failed = set()
    for row, problem in zip(raw_rows(REAL / REAL_FILES[name]), sets[name].problems, strict=True):
        answer = sets[name].extract(published(name, row))
        outcome = "no_answer" if answer is None else sets[name].grade(problem.gold, answer).outcome
        outcomes[outcome] += 1
        if outcome != "correct":
            failed.add(problem.id)
    assert failed <= EXCUSED.get(name, set()), outcomes


def respelled(gold: str) -> str:
    """The same formula in other words: display fractions, brackets of fixed size, spaces, dollars, a full stop."""
    if not re.search(r"\\(left|right)[a-zA-Z.]", gold):
        gold = gold.replace(r"\left", "").replace(r"\right", "")
    return "$" + re.sub(r"(?<=[0-9a-z}])\+", " + ", gold.replace(r"\frac", r"\dfrac")) + r"\,$ ."


@needs_data
@pytest.mark.parametrize("name", NAMES)
def test_every_gold_is_read_and_no_neighbour_stands_for_it(name: str, sets: dict[str, Task]) -> None:
    task = sets[name]
    unread = [p.id for p in task.problems if task.grade(p.gold, respelled(p.gold)).outcome != "correct"]
    assert unread == []
    confused = {
        (one.gold, two.gold)
        for one, two in zip(task.problems, task.problems[1:], strict=False)
        if one.gold != two.gold and task.grade(one.gold, two.gold).outcome == "correct"
    }
    assert confused <= ALIKE


ALIKE = {(r"\frac{3}{4}", r"\frac34"), (r"120^\circ", "120"), (r"7\%", "7"), ("5", "x=5")}
