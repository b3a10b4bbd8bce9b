"""What follows a number without a sign: the fraction of a mixed number, a unit, a scale of temperature."""

from fractions import Fraction

from .nodes import (
    Node,
    Unreadable,
    negated,
    num,
    quotient,
)
from .stream import Stream
from .units import SINGLE_UNITS, unit_of
from .vocabulary import MULTIPLIERS


def whole(node: Node) -> bool:
    """Whether the node is a whole number, perhaps with a minus sign."""
    return node.op == "num" and not node.digits and node.number.denominator == 1


def joined(left: Node, fraction: Node) -> Node:
    """The mixed number."""
    return Node("add", (left, negated(fraction) if left.number < 0 else fraction))


def fraction_parts(node: Node) -> tuple[Fraction, Fraction]:
    """Top and bottom of a fraction of two whole numbers, or zeros."""
    if node.op == "mul" and len(node.args) == 2 and node.args[1].op == "pow" and node.args[1].args[0].op == "num":
        return node.args[0].number if node.args[0].op == "num" else Fraction(0), node.args[1].args[0].number
    return Fraction(0), Fraction(0)


def plain_fraction(s: Stream) -> Node | None:
    """`1/2` after a whole number and a space, consumed; None when something else follows."""
    top, slash, bottom = s.peek(), s.peek(1), s.peek(2)
    if not (top.spaced and slash.text == "/" and top.text.isdigit() and bottom.text.isdigit() and bottom.kind == "num"):
        return None
    if not 0 < int(top.text[:9]) < int(bottom.text[:9]):
        return None
    s.at += 3
    return quotient(num(int(top.text)), num(int(bottom.text)))


def unit_in_parentheses(s: Stream, factors: list[Node]) -> bool:
    """Whether a unit in parentheses follows a number: `9 (apples)`."""
    if s.peek().text != "(" or not s.peek().spaced:
        return False
    word = s.peek(1)
    return word.kind == "text" or (
        factors[-1].op == "num" and word.kind == "sym" and word.text in SINGLE_UNITS and s.peek(2).text == ")"
    )


def with_unit(s: Stream, node: Node) -> Node:
    """The node with the words that follow it, which must be its unit."""
    words, per, enclosed = [], False, s.accept("(")
    while s.peek().kind == "text" or (enclosed and s.peek().kind == "sym") or (per and s.peek().kind == "sym"):
        words.append(s.take().text)
        per = False
        if s.peek().text in ("^", "**") and s.peek(1).kind in ("num", "op"):
            s.take()
            braced = s.accept("{")
            words.append("^" + s.take().text)
            if braced:
                s.expect("}")
        if s.peek().text == "/" and s.peek(1).kind in ("text", "sym"):
            words.append(s.take().text)
            per = True
        s.accept("-")
        s.accept(".")
    if enclosed:
        s.expect(")")
    if words and words[0].lower() in MULTIPLIERS:
        node = Node("mul", (node, num(MULTIPLIERS[words.pop(0).lower()])))
    words = [word for text in words for word in text.split()]
    name = " ".join(words)
    if not name:
        return node
    if name.lower() in ("percent", "per cent"):
        return Node("percent", (node,))
    if name.lower() in ("degrees", "degree"):
        return Node("degree", (node,))
    return Node("unit", (node,), name)


def temperature(s: Stream, node: Node) -> Node:
    """A degree sign before C or F is a unit of temperature."""
    if node.op != "degree" or s.peek().text not in ("C", "F"):
        return node
    return Node("unit", node.args, "celsius" if s.take().text == "C" else "fahrenheit")


def compound_unit(large: Node, small: Node) -> Node:
    """Two quantities side by side in the smaller unit. Raises Unreadable when they do not measure the same."""
    one, two = unit_of(large.name), unit_of(small.name)
    if small.op != "unit" or not one.dimension or one.dimension != two.dimension or one.size <= two.size:
        raise Unreadable("a number follows a unit")
    whole_part = Node("mul", (num(one.size / two.size), large.args[0]))
    return Node("unit", (Node("add", (whole_part, small.args[0])),), small.name)
