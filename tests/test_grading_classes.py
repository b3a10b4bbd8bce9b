"""Classes for voting: partitions known by hand, independent of order, cheap for many answers."""

import random

import pytest

from harness.tasks.grading import Rules, group, grouper

PARTITIONS = [
    [["0.5", "1/2", r"\frac{1}{2}", r"\frac{2}{4}", ".5"], ["0.25", "1/4"], ["2"]],
    [["10", r"10\%", "10 percent"], ["0.1", "1/10"]],
    [[r"\text{odd}", "odd", "Odd"], [r"\text{even}", "even"], ["ddo"]],
    [["(0,1)", r"\left(0, 1\right)", "0 < x < 1"], ["[0,1]", r"0 \le x \le 1"], ["(0,1]"]],
    [["1,2", "2, 1", r"\{1,2\}"], ["1,3"], ["(3,1)"]],
    [["x^2+2x+1", "(x+1)^2"], ["x^2+1"], ["(x-1)^2"]],
    [[r"\sqrt{12}", r"2\sqrt{3}"], [r"\sqrt{3}"], ["3.46"]],
    [[r"\frac{1}{"], [r"\frac{2}{"], ["5"]],
    [[r"\sin 2x", r"2 \sin x \cos x"], [r"\sin x"]],
    [["1,000", "1000", "10^3"], ["100"]],
    [["C", "(C)", r"\text{(C)}"], ["D", "(D)"]],
    [["5 cm", "5", r"5\text{ cm}"], ["6"]],
    [["1/3", "0.333333333333", "0.3333333333333333"], ["0.333"]],
]


def as_sets(answers: list[str], classes: list[int]) -> set[frozenset[str]]:
    return {
        frozenset(answer for answer, number in zip(answers, classes, strict=True) if number == each)
        for each in set(classes)
    }


@pytest.mark.parametrize("partition", PARTITIONS)
def test_equivalent_answers_share_a_class_whatever_the_order(partition: list[list[str]]) -> None:
    answers = [answer for part in partition for answer in part] * 2
    expected = {frozenset(part) for part in partition}
    for seed in range(4):
        random.Random(seed).shuffle(answers)
        assert as_sets(answers, group(answers)) == expected


def test_classes_are_numbered_by_first_appearance() -> None:
    assert group(["2", "1/2", "0.5", "2.0", "3"]) == [0, 1, 1, 0, 2]
    assert group([]) == []


def test_256_different_answers() -> None:
    answers = [rf"\frac{{{n}}}{{{n + 1}}}" for n in range(128)] + [rf"{n}/{n + 1}" for n in range(128)]
    assert group(answers) == [*range(128), *range(128)]


def test_a_task_groups_by_its_own_rules() -> None:
    assert grouper(Rules(rel_tol=0.01))(["100", "100.5", "200"]) == [0, 0, 1]
    assert grouper(Rules(percent="value"))([r"10\%", "10", "0.1"]) == [0, 1, 0]
