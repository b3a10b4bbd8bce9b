"""Properties of the grader on generated formulas and on noise."""

import string
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.nouns import Verdict
from harness.tasks.grading import extract_explicit, extract_number, grade
from harness.tasks.grading.judge import judge
from harness.tasks.grading.nodes import Undecided
from harness.tasks.grading.rules import DEFAULT

SOON = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)

numbers = st.one_of(
    st.integers(-50, 50).map(str),
    st.integers(0, 9999).map(lambda n: f"{n / 100:.2f}"),
    st.tuples(st.integers(1, 20), st.integers(2, 20)).map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"),
    st.tuples(st.integers(1, 9), st.integers(2, 30)).map(lambda p: rf"{p[0]}\sqrt{{{p[1]}}}"),
    st.sampled_from([r"\pi", "e", "i", r"2\pi", "x", "3y", r"\sin x", r"\ln 2"]),
)
formulas = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: f"{p[0]} + {p[1]}" if not p[1].startswith("-") else f"{p[0]} {p[1]}"),
        st.tuples(inner, inner).map(lambda p: rf"\left({p[0]}\right) \left({p[1]}\right)"),
        st.tuples(inner, st.integers(2, 3)).map(lambda p: rf"\left({p[0]}\right)^{{{p[1]}}}"),
        st.tuples(inner, st.integers(2, 9)).map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"),
    ),
    max_leaves=4,
)
answers = st.one_of(
    formulas,
    st.tuples(formulas, formulas).map(lambda p: f"({p[0]}, {p[1]})"),
    st.lists(formulas, min_size=2, max_size=3).map(", ".join),
    st.tuples(st.integers(-9, 0), st.integers(1, 9)).map(lambda p: rf"\left({p[0]}, {p[1]}\right]"),
    st.tuples(st.sampled_from("xyk"), formulas).map(lambda p: f"{p[0]} = {p[1]}"),
    st.sampled_from([r"\text{odd}", "yes", r"\emptyset", r"x \ge 3", r"50\%", r"45^\circ", r"12_3", "3:45", r"\$5.00"]),
)


def quick(gold: str, answer: str) -> Verdict | None:
    """The verdict of the main process, None where a worker would be asked."""
    try:
        return judge(gold, answer, DEFAULT)
    except Undecided:
        return None


@given(answers)
@SOON
def test_reflexive(answer: str) -> None:
    assert grade(answer, answer + " ").outcome == "correct"


@given(answers, answers)
@SOON
def test_symmetric(one: str, two: str) -> None:
    there, back = quick(one, two), quick(two, one)
    if there is not None and back is not None:
        assert (there.outcome == "correct") == (back.outcome == "correct")


VARIATIONS: dict[str, Callable[[str], str]] = {
    "spaces": lambda text: " " + text.replace(" ", "  ").replace("+", " + ") + " ",
    "without left and right": lambda text: text.replace(r"\left", "").replace(r"\right", ""),
    "dfrac": lambda text: text.replace(r"\frac", r"\dfrac"),
    "tfrac": lambda text: text.replace(r"\frac", r"\tfrac"),
    "dollars": lambda text: f"${text}$",
    "display": lambda text: rf"\[{text}\]",
    "full stop": lambda text: text + ".",
    "thin spaces": lambda text: text.replace(" + ", r" \, + \; "),
    "boxed": lambda text: rf"\boxed{{{text}}}",
    "big brackets": lambda text: text.replace(r"\left(", r"\bigl(").replace(r"\right)", r"\bigr)"),
}


@pytest.mark.parametrize("variation", VARIATIONS)
def test_invariant_under_spelling(variation: str) -> None:
    @given(answers)
    @settings(max_examples=40, deadline=None, derandomize=True)
    def check(answer: str) -> None:
        verdict = quick(answer, VARIATIONS[variation](answer))
        assert verdict is not None, answer
        assert verdict.outcome == "correct", (answer, verdict)

    check()


@given(formulas, st.integers(1, 10**6))
@SOON
def test_a_shift_is_noticed(formula: str, shift: int) -> None:
    verdict = quick(formula, f"{formula} + {shift}")
    assert verdict is None or verdict.outcome == "wrong"


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=10**6), st.fractions(max_denominator=10**6))
@SOON
def test_rationals_agree_with_fractions(one: Fraction, two: Fraction) -> None:
    spelled = rf"\frac{{{two.numerator}}}{{{two.denominator}}}"
    assert grade(f"{one.numerator}/{one.denominator}", spelled).outcome == ("correct" if one == two else "wrong")
    again = rf"\frac{{{3 * one.numerator}}}{{{3 * one.denominator}}}"
    assert grade(f"{one.numerator}/{one.denominator}", again).outcome == "correct"


PIECES = r"""
\frac \sqrt { } ( ) [ ] \{ \} ^ _ 1 2 x i + - \cdot , = < \le \pi \infty \cup \in \pm ! \% ^\circ | \left \right
\sin \log
\text{a} \text{cm} \begin{pmatrix} \end{pmatrix} & \\ : $ \binom \lfloor \rfloor \mathbb{R} \mathbf \overline 0.
e \boxed and apples \ne \choose ' \ldots \setminus \pmod \log_
"""
LATEX = st.sampled_from([*PIECES.split(), " "])


@given(st.lists(LATEX, max_size=14).map("".join), st.sampled_from(["5", "(0,1)", "x+1", r"\text{odd}", "1,2", "x>3"]))
@settings(max_examples=1500, deadline=None, derandomize=True)
def test_random_latex_never_raises(text: str, gold: str) -> None:
    quick(gold, text)
    if text.strip():
        quick(text, gold)
        same = quick(text, text + " ")
        assert same is None or same.outcome == "correct"


@given(st.text(max_size=200))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_any_text_gets_a_verdict(text: str) -> None:
    quick("5", text)
    extract_explicit(text)
    extract_number(text)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_bytes_get_a_verdict(data: bytes) -> None:
    quick("5", data.decode("utf-8", errors="surrogateescape"))


@given(st.text(alphabet=string.ascii_letters, min_size=3, max_size=12))
@SOON
def test_letters_of_words_are_not_multiplied(word: str) -> None:
    turned = word[1:] + word[0]
    verdict = quick(rf"\text{{{word}}}", rf"\text{{{turned}}}")
    assert verdict is not None
    assert (verdict.outcome == "correct") == (word.casefold() == turned.casefold())
