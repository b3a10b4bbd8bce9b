"""Text answers: compared as words, never as products of letters. Marks beside a number are taken off here too."""

import re
from fractions import Fraction

from .clean import cleaned
from .nodes import Node

MARKUP = re.compile(
    r"\\(?:text|mbox|textbf|textit|textrm|texttt|mathrm|mathbf|hbox|operatorname|emph|overline|boxed|fbox)(?![A-Za-z])"
)
WORD = re.compile(r"\w+(?:[.,:]\d+)?|[^\w\s]", re.UNICODE)
PUNCTUATION = frozenset(".,'\"{}()$\\!-;*`")
ARTICLES = frozenset(("the", "a", "an", "The", "An"))
CHOICE = re.compile(r"\(?([A-Za-z])\)?\.?")
LETTERED = re.compile(r"^(?:\(([A-Z])\)|([A-Z])[).:])\s*\S")
POSSESSIVE = re.compile(r"'s\b")
YES_NO = {"true": "yes", "false": "no"}


def words(text: str, case: bool = False) -> tuple[str, ...]:
    """The words of a text without markup, punctuation and the articles of other words."""
    found = WORD.findall(POSSESSIVE.sub("", MARKUP.sub(" ", cleaned(text))))
    kept = [word for word in found if word not in PUNCTUATION] or [word for word in found if word not in "{}$\\"]
    if any(len(word) > 1 and word.casefold() not in ARTICLES for word in kept):
        kept = [word for place, word in enumerate(kept) if word not in ARTICLES and not (word == "A" and place == 0)]
    return tuple(word if case else word.casefold() for word in kept)


def same_words(gold: str, answer: str, case: bool) -> bool:
    """Whether two texts are the same words in the same order."""
    one, two = words(gold, case), words(answer, case)
    if one == two or "".join(one) == "".join(two):
        return True
    return len(one) == len(two) == 1 and YES_NO.get(one[0], one[0]) == YES_NO.get(two[0], two[0])


def same_choice(gold: str, answer: str) -> bool:
    """Whether a gold letter is chosen: `(C)`, `(c)`, or `(C) 42`."""
    letter, chosen = lettered(gold), lettered(answer)
    return letter is not None and letter == chosen


def lettered(text: str) -> str | None:
    """The capital letter that is the text, or that begins it as `(C) 42` does."""
    bare = MARKUP.sub("", cleaned(text)).replace("{", "").replace("}", "").replace("\\", " ").strip()
    alone = CHOICE.fullmatch(bare)
    if alone:
        return alone[1].upper() if bare.startswith("(") or alone[1].isupper() else None
    found = LETTERED.match(bare)
    return (found[1] or found[2]) if found else None


def marks_of(node: Node) -> tuple[Node, str, str]:
    """The number under its percent sign, degree sign or unit: (number, "percent" | "degree" | "", unit)."""
    mark, unit, sign = "", "", 1
    while True:
        if node.op in ("percent", "degree") and not mark:
            mark, node = node.op, node.args[0]
        elif node.op == "unit" and not unit:
            unit, node = node.name, node.args[0]
        elif node.op == "mul" and len(node.args) == 2 and node.args[0].op == "num" and node.args[0].number == -1:
            if node.args[1].op not in ("percent", "degree", "unit"):
                break
            sign, node = -sign, node.args[1]
        else:
            break
    return (node if sign == 1 else Node("mul", (Node("num", (), Fraction(-1)), node))), mark, unit
