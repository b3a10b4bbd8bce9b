"""From two texts to a verdict with its reason, without processes: what a worker and the main process both run."""

import re
from collections.abc import Callable

from harness.nouns import Verdict

from .clean import LONGEST_READ, cleaned
from .equivalence import equal
from .nodes import Node, Undecided, Undefined, Unreadable, any_node
from .reader import read, reads_two_ways
from .rules import Rules
from .scalars import Context, Prover, no_prover
from .shapes import STRUCTURES
from .words import same_choice, same_words

INTEGER = re.compile(r"([-+]?)0*(\d+)(?:\.0*)?")
SecondReader = Callable[[str | Node, str | Node], bool]
"""Compares two formulas, of which at least one is a text that this package's reader refused. Raises Unreadable."""


def no_reader(gold: str | Node, answer: str | Node) -> bool:
    """The second reader of the main process, which has none. Raises Undecided."""
    raise Undecided("needs the second reader")


def judge(
    gold: str, answer: str, rules: Rules, prove: Prover = no_prover, read_again: SecondReader = no_reader
) -> Verdict:
    """The verdict on an answer. Raises Undecided when it needs what the main process does not have."""
    if not answer.strip():
        return Verdict("no_answer", "the answer is empty")
    if gold.strip() == answer.strip():
        return Verdict("correct", "identical")
    whole = same_integer(gold, answer)
    if whole is not None:
        return Verdict("correct", "same integer") if whole else Verdict("wrong", "different integers")
    if len(answer) > LONGEST_READ:
        return Verdict("unparsed", f"longer than {LONGEST_READ} characters")
    if same_choice(gold, answer):
        return Verdict("correct", "same choice")
    context = Context(rules, prove)
    try:
        return compared(gold, answer, context)
    except Unreadable as trouble:
        return unread(gold, answer, rules, trouble, read_again)
    except Undefined as trouble:
        return Verdict("unparsed", str(trouble))
    except RecursionError:
        return Verdict("unparsed", "nested too deeply")


def same_integer(gold: str, answer: str) -> bool | None:
    """Whether two plain integers of any size are the same; None when one of the texts is none."""
    one, two = INTEGER.fullmatch(gold.strip()), INTEGER.fullmatch(answer.strip())
    if one is None or two is None:
        return None
    return one[2] == two[2] and (one[1] == "-") == (two[1] == "-" and two[2] != "0")


def compared(gold: str, answer: str, context: Context) -> Verdict:
    """The verdict on two texts that can be read, with every reading that a comma allows."""
    rules = context.rules
    one, two = side(gold, rules, "gold"), side(answer, rules, "answer")
    if "text" in (one.op, two.op):
        if same_words(gold, answer, rules.case):
            return Verdict("correct", "same words")
        return Verdict("wrong", "different words" if one.op == two.op else "words against a formula")
    if one == two or equal(one, two, context):
        return Verdict("correct", ", ".join(["equal", *context.notes]))
    if not rules.decimal_comma:
        for lists in ((reads_two_ways(gold), False), (False, reads_two_ways(answer))):
            if any(lists) and equal(read(gold, as_list=lists[0]), read(answer, as_list=lists[1]), context):
                return Verdict("correct", "equal, comma between items")
    return Verdict("wrong", "not equal")


def side(text: str, rules: Rules, which: str) -> Node:
    """The tree of one side. Raises Unreadable that says which side it was."""
    try:
        return read(text, rules.decimal_comma)
    except Unreadable as trouble:
        raise Unreadable(f"{which}: {trouble}") from trouble


def unread(gold: str, answer: str, rules: Rules, trouble: Unreadable, read_again: SecondReader) -> Verdict:
    """The verdict when a side could not be read: the same words, what the second reader finds, or unparsed."""
    if cleaned(gold) == cleaned(answer) or squeezed(gold) == squeezed(answer):
        return Verdict("correct", "same text")
    if "big operator" not in str(trouble):
        return Verdict("unparsed", str(trouble))
    try:
        sides = formula_or_text(gold, rules, "gold"), formula_or_text(answer, rules, "answer")
        equal_again = None not in sides and read_again(*(each for each in sides if each is not None))
    except Unreadable as more:
        return Verdict("unparsed", str(more))
    return Verdict("correct", "equal by the second reader") if equal_again else Verdict("wrong", "not equal")


def formula_or_text(text: str, rules: Rules, which: str) -> str | Node | None:
    """A formula's tree, the text itself where only the second reader can read it, None for what is no formula.

    Raises Unreadable when neither can.
    """
    try:
        node = side(text, rules, which)
    except Unreadable as trouble:
        if "big operator" not in str(trouble):
            raise
        return text
    return None if any_node(node, STRUCTURES) else node


def squeezed(text: str) -> str:
    """The cleaned text without spaces."""
    return cleaned(text).replace(" ", "")
