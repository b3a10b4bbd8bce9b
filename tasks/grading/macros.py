"""Commands that take operands: fractions, roots and named functions."""

from .formulas import argument, expression, starts_factor, unary
from .nodes import HALF, MINUS_ONE, Node, quotient
from .stream import Stream
from .vocabulary import FUNCTIONS

INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "sinh": "arcsinh", "cosh": "arccosh", "tanh": "arctanh"}


def operands(s: Stream) -> tuple[Node, ...]:
    """The items in the brackets that follow."""
    inside = s.nested(s.atom)
    return inside.args if inside.op == "group" else (inside,)


def fraction(s: Stream) -> Node:
    """A fraction; the letters d of a derivative do not cancel."""
    top, bottom = argument(s), argument(s)
    if leads_with_d(top) and leads_with_d(bottom):
        return Node("call", (top, bottom), "derivative")
    return quotient(top, bottom)


def leads_with_d(node: Node) -> bool:
    """Whether the node is d, or a product or power that begins with it."""
    while node.op in ("mul", "pow"):
        node = node.args[0]
    return node.op == "sym" and node.name == "d"


def root(s: Stream) -> Node:
    """A square root, or the root whose degree stands in brackets."""
    if not s.accept("["):
        return Node("pow", (radicand(s), HALF))
    degree = expression(s)
    s.expect("]")
    return Node("call", (radicand(s), degree), "root")


def radicand(s: Stream) -> Node:
    """What stands under a root: braces, or one whole number or atom."""
    return s.nested(s.atom) if s.peek().kind == "num" else argument(s)


def function(s: Stream, name: str) -> Node:
    """A named function of its argument, with the exponent or base that may stand before it."""
    exponent = base = None
    while s.peek().text in ("^", "_"):
        if s.take().text == "^":
            exponent = argument(s) if s.peek().text != "-" else unary(s)
        else:
            base = argument(s)
    arguments = function_arguments(s)
    if base is not None:
        name, arguments = ("log_base", (*arguments, base)) if name == "log" else (f"{name}_base", (*arguments, base))
    elif name == "log":
        return (
            Node("plain log", arguments) if exponent is None else Node("pow", (Node("plain log", arguments), exponent))
        )
    if exponent == MINUS_ONE and name in INVERSES:
        return Node("call", arguments, INVERSES[name])
    node = Node("call", arguments, name)
    return node if exponent is None else Node("pow", (node, exponent))


def function_arguments(s: Stream) -> tuple[Node, ...]:
    """What a function applies to: brackets, or the factors up to the next sign or function."""
    if s.peek().text in ("(", "{", "["):
        return operands(s)
    factors = [unary(s)]
    while starts_factor(s) and not (s.peek().kind == "cmd" and s.peek().text[1:] in FUNCTIONS) and s.peek().text != "(":
        factors.append(unary(s))
    return (factors[0] if len(factors) == 1 else Node("mul", tuple(factors)),)
