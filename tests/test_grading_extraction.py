"""Extraction: each rule, which rule fired, and texts that were cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.tasks.grading import (
    extract_choice,
    extract_explicit,
    extract_explicit_cut,
    extract_number,
    find_answer,
)
from harness.tasks.grading.extraction import NUMBER, WITH_LAST_NUMBER, last_number

EXPLICIT = [
    (r"so $\boxed{\frac{1}{2}}$ is it", r"\frac{1}{2}", "boxed"),
    (r"first \boxed{1}, no: \boxed{2}", "2", "boxed"),
    (r"\boxed{\{1, \{2\}\}}", r"\{1, \{2\}\}", "boxed"),
    (r"thus \boxed 5.", "5", "boxed"),
    (r"thus \boxed{ 5 }", "5", "boxed"),
    (r"thus \fbox{7}", "7", "boxed"),
    (r"\boxed{\boxed{3}}", "3", "boxed"),
    (r"either \boxed{x=1} or \boxed{x=2}", "x=1, x=2", "boxed"),
    (r"roots are $\boxed{-2}$ and $\boxed{1}$.", "-2, 1", "boxed"),
    (r"\boxed{} and before \boxed{4}", "4", "boxed"),
    ("So it is.\n#### 1,234", "1,234", "hashes"),
    ("#### 1\n#### 2\n", "2", "hashes"),
    ("The answer is $x=1$ or $x=2$.", "$x=1$ or $x=2$", "phrase"),
    ("The final answer is 3.14. I hope it is correct.", "3.14", "phrase"),
    ("**Answer:** 42", "42", "phrase"),
    ("The answer is 42 because 6 * 7 = 42.", "42", "phrase"),
    ("The answer to the question is: 42", "42", "phrase"),
    ("Final Answer: (C)", "(C)", "phrase"),
    ("The answer is:\n$$\n\\frac{5}{2}\n$$\n", r"\frac{5}{2}", "phrase"),
    ("the answer is 3:45 p.m.", "3:45 p.m", "phrase"),
    ("The answer is 12 apples.", "12 apples", "phrase"),
    ("The answer is $10{,}000$.", "$10{,}000$", "phrase"),
]


@pytest.mark.parametrize(("text", "answer", "rule"), EXPLICIT)
def test_explicit_answers_and_the_rule_that_found_them(text: str, answer: str, rule: str) -> None:
    found = find_answer(text)
    assert found is not None
    assert (found.answer, found.rule) == (answer, rule)
    assert extract_explicit(text) == answer


@pytest.mark.parametrize(
    "text", ["", "I do not know.", "6 * 7 = 42", r"\boxed{}", "####", "The answer is", r"\boxed{42"]
)
def test_no_answer_is_no_guess(text: str) -> None:
    assert extract_explicit(text) is None


CUT = [
    (r"so \boxed{42} and then", "42"),
    (r"so \boxed{1} but really \boxed{4", "1"),
    (r"so \boxed{4", None),
    (r"so \boxed{\frac{1}{2}", None),
    (r"so \boxed 4", None),
    (r"so \boxed 4 and", "4"),
    ("#### 42\n", "42"),
    ("#### 4", None),
    ("#### 41\nno, #### 4", "41"),
    ("The answer is 42. Check:", "42"),
    ("The answer is 42\n", "42"),
    ("The answer is 4", None),
    ("The answer is 3.", None),
    ("so 6 * 7 = 42", None),
]


@pytest.mark.parametrize(("text", "answer"), CUT)
def test_a_cut_text_needs_an_answer_whose_end_is_visible(text: str, answer: str | None) -> None:
    assert extract_explicit_cut(text) == answer


NUMBERS = [
    ("It was 5-3 and then -4.", "-4"),
    ("It cost $1,234.50.", "$1,234.50"),
    ("a rise of 50%", "50%"),
    ("it is 3/4 of that", "3/4"),
    ("she has 10{,}000 left", "10{,}000"),
    ("5 - 3 = 2", "2"),
    ("the loss is -$5", "-$5"),
    (".5 litres", ".5"),
    ("in 1e-5 seconds", "1e-5"),
    ("A: 18", "18"),
    (r"\boxed{7} out of 9", "7"),
    ("#### 7\nThat took 3 steps", "7"),
    ("no number", None),
]


@pytest.mark.parametrize(("text", "answer"), NUMBERS)
def test_the_last_number_where_nothing_is_stated(text: str, answer: str | None) -> None:
    assert extract_number(text) == answer


def test_the_rule_of_a_last_number_is_named() -> None:
    found = find_answer("then 12", WITH_LAST_NUMBER)
    assert found is not None
    assert found.rule == "last_number"


CHOICES = [
    ("The answer is (C) 42.", "C"),
    (r"\boxed{\text{(B)}}", "B"),
    (r"\boxed{D}", "D"),
    ("Answer: D", "D"),
    ("so\n\nE", "E"),
    ("The correct option is A.", "A"),
    ("the answer is $\\text{(E)}$", "E"),
    ("The answer is a banana", None),
    ("I like B movies", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "answer"), CHOICES)
def test_choices(text: str, answer: str | None) -> None:
    assert extract_choice(text) == answer


def test_a_long_text_is_searched_from_its_end() -> None:
    assert extract_explicit("x" * 2_000_000 + r" \boxed{5}") == "5"
    assert extract_explicit(r"\boxed{" + "1" * 5000 + "}") is None


@pytest.mark.parametrize(
    "text", [r"\boxed{" * 20_000, "####\n" * 50_000, "the answer is " * 20_000, "1," * 100_000, "(" * 100_000]
)
def test_hostile_texts_are_searched_in_linear_time(text: str) -> None:
    for extract in (extract_explicit, extract_explicit_cut, extract_number, extract_choice):
        extract(text)


@given(st.text(alphabet="0123456789 .,-−$%/\\{}()[]xe+\n€²٣", max_size=24))
def test_the_last_number_is_what_a_scan_of_the_whole_text_finds_last(text: str) -> None:
    scanned = [found[0] for found in NUMBER.finditer(text) if any(letter.isdigit() for letter in found[0])]
    assert last_number(text) == (scanned[-1] if scanned else None)
