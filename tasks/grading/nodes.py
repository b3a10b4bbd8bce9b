"""The tree an answer is read into, and the two ways reading can end badly.

Scalars: `num` (value a Fraction; `digits` counts the significant digits of one written as a decimal), `sym`, `const`
(pi, e, i, inf), `add`, `mul`, `pow`, `call`, `plain log` (without a base), `pm`, `mp`, `percent`, `degree`, `unit`.
Structures: `group` (value is its two brackets, or "" for a bare list), `rel`, `union`, `intersect`, `setminus`, `set`
(a named set), `matrix` of `row`, `ratio`, `time`, `based`, `text`.
"""

from fractions import Fraction
from typing import NamedTuple


class Unreadable(Exception):
    """The text is not an answer this reader knows; the message says what it stumbled on."""


class Undefined(Exception):
    """The formula has no value, such as a division by zero."""


class Undecided(Exception):
    """The cheap exact methods cannot tell; a worker has to."""


class Node(NamedTuple):
    """One node: an operation, its operands, and a name or a number."""

    op: str
    args: tuple["Node", ...] = ()
    value: str | Fraction = ""
    digits: int = 0

    @property
    def name(self) -> str:
        """The value where it is a name."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def number(self) -> Fraction:
        """The value where it is a number."""
        return self.value if isinstance(self.value, Fraction) else Fraction(0)


ONE, MINUS_ONE, HALF = Node("num", (), Fraction(1)), Node("num", (), Fraction(-1)), Node("num", (), Fraction(1, 2))
PI, E, IMAGINARY, INFINITY = (Node("const", (), name) for name in ("pi", "e", "i", "inf"))
HUNDREDTH = Node("num", (), Fraction(1, 100))
HALF_TURN = Node("num", (), Fraction(1, 180))


def num(value: int | Fraction) -> Node:
    """An exact number."""
    return Node("num", (), Fraction(value))


def negated(node: Node) -> Node:
    """Minus the node."""
    if node.op == "num":
        return Node("num", (), -node.number, node.digits)
    return Node("mul", (MINUS_ONE, node))


def quotient(top: Node, bottom: Node) -> Node:
    """Top over bottom."""
    return Node("mul", (top, Node("pow", (bottom, MINUS_ONE))))


def any_node(node: Node, ops: frozenset[str]) -> bool:
    """Whether the tree holds a node of one of these operations."""
    return node.op in ops or any(any_node(arg, ops) for arg in node.args)


def symbols(node: Node) -> frozenset[str]:
    """The names of the variables in the tree."""
    if node.op == "sym":
        return frozenset((node.name,))
    return frozenset().union(*(symbols(arg) for arg in node.args)) if node.args else frozenset()
