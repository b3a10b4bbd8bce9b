"""The generated task: its answers by an independent reading of its own words, its splits, its limits."""

import itertools
import re

import pytest

from harness import plugins
from harness.errors import UserError
from harness.tasks.arithmetic import split_of, worked_problems

RULES = [
    (r"(?:finds|buys|gets) (\d+) more", lambda v, a: v + a),
    (r"(?:loses|gives away|sells) (\d+) ", lambda v, a: v - a),
    (r"buys (\d+) (?:bags|boxes|packs) with (\d+) ", lambda v, a, b: v + a * b),
    (r"doubles", lambda v: 2 * v),
    (r"triples", lambda v: 3 * v),
    (r"quadruples", lambda v: 4 * v),
    (r"into (\d+) equal parts", lambda v, a: v // a if v % a == 0 else None),
]


def solved(question: str) -> int:
    """Work a question out from its words alone."""
    first, *events = question.split(". ")[:-1]
    found = re.search(r"has (\d+) ", first)
    assert found
    value = int(found.group(1))
    for event in events:
        (number,) = [rule(value, *map(int, m.groups())) for words, rule in RULES if (m := re.search(words, event))]
        assert number is not None
        value = number
    return value


@pytest.mark.parametrize("difficulty", range(1, 17))
@pytest.mark.parametrize("split", ["test", "train"])
def test_answers_follow_from_the_words(difficulty: int, split: str) -> None:
    for one in itertools.islice(worked_problems(split, difficulty, 3), 100):  # type: ignore[arg-type]
        assert solved(one.question) == one.answer
        assert one.solution.endswith(f"\\boxed{{{one.answer}}}.")
        assert one.solution.count("Step") == difficulty + 1
        for left, right in re.findall(r"([\d+*/ -]+) = (\d+)", one.solution):
            a, operator, b = left.split()[-3:]
            computed = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) / int(b)}
            assert computed[operator] == int(right)


def test_the_splits_never_meet_and_seeds_repeat() -> None:
    drawn = {
        split: {one.question for seed in range(3) for one in itertools.islice(worked_problems(split, 1, seed), 300)}
        for split in ("test", "train")
    }
    assert not drawn["test"] & drawn["train"]
    assert all(split_of(question) == split for split, questions in drawn.items() for question in questions)
    load = plugins.load_task
    assert load("arithmetic", ["seed=5"]).problems == load("arithmetic", ["seed=5"]).problems
    assert load("arithmetic", ["seed=5"]).problems != load("arithmetic", ["seed=6"]).problems


def test_every_worked_solution_grades_correct() -> None:
    task = plugins.load_task("arithmetic", ["num_problems=200", "difficulty=6"])
    for problem in task.problems:
        answer = task.extract(str(problem.meta["solution"]))
        assert answer is not None
        assert task.grade(problem.gold, answer).outcome == "correct"


def test_few_shot_examples_are_worked_train_problems() -> None:
    (problem,) = plugins.load_task("arithmetic", ["num_problems=1", "num_fewshot=2"]).problems
    assert not isinstance(problem.prompt, str)
    assert [message.role for message in problem.prompt] == ["user", "assistant"] * 2 + ["user"]
    question = problem.prompt[0].content.split("\n")[0]
    assert split_of(question) == "train"
    assert problem.prompt[1].content.endswith(f"\\boxed{{{solved(question)}}}.")


@pytest.mark.parametrize(
    ("option", "says"),
    [("difficulty=0", "must be 1 to 16, got 0"), ("num_problems=0", "at least 1"), ("split=dev", "test | train")],
)
def test_settings_out_of_range_are_refused(option: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        plugins.load_task("arithmetic", [option])
    assert says in str(caught.value)
