"""Classes of equivalent answers for voting: an equivalence relation even where single verdicts are not transitive.

Answers of one canonical spelling are joined first, which is cheap; the classes that are left are compared with each
other where their spellings do not already prove a difference. Joined is joined for all: the classes are the connected
parts of "graded correct, one way or the other", so the order of the answers cannot matter. Percent and degree signs
only drop here, or 10, 10% and 0.1 would all vote together.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

from harness.nouns import Verdict

from .clean import cleaned
from .nodes import Node, Undefined, Unreadable, any_node
from .reader import read, reads_two_ways
from .rules import Rules
from .scalars import exact_form, float_value
from .shapes import STRUCTURES
from .words import marks_of, words

Compare = Callable[[str, str], Verdict]

NEAR = 1e-4
UNSURE = STRUCTURES | {"pm", "mp", "plain log", "unit", "percent", "degree"}


class Spelling(NamedTuple):
    """What an answer is joined by: kind (exact, words, unread, other) and key. `outline` holds its numbers."""

    kind: str
    key: object
    decimal: bool = False
    outline: tuple[complex, ...] | None = None


def voting(rules: Rules) -> Rules:
    """The rules without what makes verdicts intransitive."""
    percent = "number" if rules.percent == "either" else rules.percent
    return replace(rules, percent=percent, degrees="number" if rules.degrees == "either" else rules.degrees)


def classes(answers: Sequence[str], rules: Rules, compare: Compare) -> list[int]:
    """The number of each answer's class, by first appearance."""
    spellings = {answer: spelling(answer, rules) for answer in dict.fromkeys(answers)}
    members: dict[tuple[str, object], str] = {}
    for answer in sorted(spellings, key=lambda text: (len(text), text)):
        members.setdefault(spellings[answer][:2], answer)
    parent = {answer: members[spellings[answer][:2]] for answer in spellings}
    for one, two in combinations(members.values(), 2):
        if not may_agree(spellings[one], spellings[two], rules) or root(parent, one) == root(parent, two):
            continue
        if "correct" in (compare(one, two).outcome, compare(two, one).outcome):
            parent[root(parent, one)] = root(parent, two)
    numbers: dict[str, int] = {}
    return [numbers.setdefault(root(parent, answer), len(numbers)) for answer in answers]


def root(parent: dict[str, str], answer: str) -> str:
    """The representative of the class an answer was joined to."""
    while parent[answer] != answer:
        answer = parent[answer]
    return answer


def spelling(answer: str, rules: Rules) -> Spelling:
    """The canonical spelling of an answer."""
    try:
        node = read(answer, rules.decimal_comma)
    except Unreadable as trouble:
        return Spelling("other" if "big operator" in str(trouble) else "unread", cleaned(answer).replace(" ", ""))
    if node.op == "text":
        return Spelling("words", words(answer, rules.case))
    if reads_two_ways(answer):
        return Spelling("other", (node, "two ways"))
    number, mark, unit = marks_of(node)
    if mark and not unit and "value" not in (rules.percent, rules.degrees):
        node = number
    return scalar_spelling(node) or Spelling("other", node, False, outline(node))


def scalar_spelling(node: Node) -> Spelling | None:
    """The spelling of a formula by its exact form, or by its tree and value where different forms may be equal."""
    if any_node(node, UNSURE):
        return None
    try:
        form, free = exact_form(node)
    except Undefined:
        return Spelling("unread", node)
    if form is None or not free or set(form.bottom) != {()}:
        return Spelling("other", node, False, outline(node))
    return Spelling("exact", frozenset(form.top.items()), node.op == "num" and node.digits > 0, outline(node))


def outline(node: Node) -> tuple[complex, ...] | None:
    """The different numbers that a list, tuple, set, matrix or formula holds, in order; None when one is not known.

    Answers whose outlines differ are different, whatever their brackets.
    """
    found: list[complex] = []
    for leaf in leaves(node):
        value = float_value(leaf)
        if value is None or value.error > NEAR * NEAR * abs(value.z):
            return None
        if all(abs(value.z - other) > NEAR * abs(other) for other in found):
            found.append(complex(value.z))
    return tuple(sorted(found, key=lambda z: (round(z.real, 6), z.imag)))


def leaves(node: Node) -> list[Node]:
    """The formulas in nested brackets and matrices."""
    if node.op in ("group", "matrix", "row"):
        return [leaf for arg in node.args for leaf in leaves(arg)]
    return [node]


def may_agree(one: Spelling, two: Spelling, rules: Rules) -> bool:
    """Whether two different spellings can still be equal answers."""
    kinds = {one.kind, two.kind}
    if "unread" in kinds:
        return False
    if "words" in kinds:
        return len(kinds) == 2 and all(side.kind == "words" or side.outline is None for side in (one, two))
    if one.outline is not None and two.outline is not None:
        if kinds == {"exact"} and not (one.decimal or two.decimal or rules.rel_tol):
            return False
        if rules.rel_tol:
            return (
                len(one.outline) != 1
                or len(two.outline) != 1
                or near(one.outline[0], two.outline[0], 2 * rules.rel_tol)
            )
        return len(one.outline) == len(two.outline) and all(map(near, one.outline, two.outline))
    return kinds != {"exact"}


def near(a: complex, b: complex, share: float = 0.0) -> bool:
    """Whether two numbers are near enough to be looked at closely."""
    return abs(a - b) <= (10 * NEAR + share) * max(abs(a), abs(b))
