r"""A recursive-descent reader of formulas: tokens to a tree, with a bound on nesting.

It reads what answers are made of, LaTeX and plain text alike, and refuses everything else: an unknown command, two
numbers side by side, a bracket without its partner. It evaluates nothing.
"""

from fractions import Fraction

from .measures import (
    compound_unit,
    fraction_parts,
    joined,
    plain_fraction,
    temperature,
    unit_in_parentheses,
    whole,
    with_unit,
)
from .nodes import MINUS_ONE, Node, Unreadable, negated, num
from .stream import Stream
from .tokens import END, Token
from .vocabulary import NAMED_SETS, RELATIONS, listed

LONGEST_EXPONENT = 6
"""Digits of the exponent of a number such as 4.5e33."""
TIMES = frozenset(("*", r"\cdot", r"\times", r"\ast", r"\bullet"))
OVER = frozenset(("/", r"\div"))
SIGNS = {"+": "add", "-": "sub", r"\pm": "pm", r"\mp": "mp"}
SETS = {r"\cup": "union", r"\cap": "intersect", r"\setminus": "setminus", r"\backslash": "setminus"}
BETWEEN = frozenset((*RELATIONS, *TIMES, *OVER, *SETS, *SIGNS, *NAMED_SETS)) | listed(
    r"\rfloor \rceil \rvert \pmod \bmod \mod \{ \not \end \mid \vert"
)
"""Commands that never begin a factor."""
CURRENCIES = {r"\$": "dollar", "€": "euro", "£": "gbp", "₹": "rupee"}


def listing(s: Stream) -> Node:
    """Items between commas, "and" or "or"; a single item is itself."""
    items, joined = [relation(s)], ""
    while s.peek().kind == "sep":
        while s.peek().kind == "sep":
            joined = s.take().text
        if s.peek() is END or s.peek().text in (")", "]", "}", r"\}"):
            break
        items.append(relation(s))
    return items[0] if len(items) == 1 else Node("group", tuple(items), "and" if joined == "and" else "")


def relation(s: Stream) -> Node:
    """Expressions joined by =, <, and the like; what begins with a relation has an unnamed left side."""
    operands, signs = [], []
    if s.peek().kind != "text" and s.peek().text in RELATIONS:
        operands.append(Node("sym", (), "_"))
    else:
        operands.append(set_expression(s))
    while s.peek().kind != "text" and s.peek().text in (*RELATIONS, r"\not"):
        sign = s.take().text
        if sign == r"\not":
            sign = {"=": r"\ne"}.get(s.take().text, "?")
        signs.append(RELATIONS.get(sign, "?"))
        operands.append(set_expression(s))
    if s.peek().text in (r"\pmod", r"\bmod", r"\mod") and signs:
        s.take()
        return Node("rel", (*operands, argument(s)), " ".join([*signs, "mod"]))
    return Node("rel", tuple(operands), " ".join(signs)) if signs else operands[0]


def set_expression(s: Stream) -> Node:
    """Unions, intersections and differences of sets, or a ratio, or a sum."""
    node = expression(s)
    while s.peek().text in SETS:
        node = Node(SETS[s.take().text], (node, expression(s)))
    parts = [node]
    while s.peek().text == ":" and not s.bars:
        s.take()
        parts.append(expression(s))
    return parts[0] if len(parts) == 1 else Node("ratio", tuple(parts))


def expression(s: Stream) -> Node:
    """A sum of terms; a plus-minus sign becomes a node that stands for both."""
    node = s.nested(term)
    while s.peek().text in SIGNS and s.peek().kind != "text":
        sign = SIGNS[s.take().text]
        right = s.nested(term)
        if sign in ("pm", "mp"):
            node = Node(sign, (node, right))
        else:
            right = negated(right) if sign == "sub" else right
            node = Node("add", (*node.args, right) if node.op == "add" else (node, right))
    return node


def starts_factor(s: Stream) -> bool:
    """Whether another factor follows without a sign between."""
    token = s.peek()
    if token.kind in ("num", "sym", "begin"):
        return True
    if token.kind == "op":
        return token.text in ("(", "[", "{") or (token.text == "|" and not s.bars)
    if token.kind != "cmd" or token.text in (
        r"\cr",
        r"\}",
        r"\%",
        r"\rangle",
        r"\circ",
        r"\degree",
        r"\prime",
        r"\choose",
    ):
        return False
    return token.text not in BETWEEN


def term(s: Stream) -> Node:
    """A product of factors, with the unit that may follow it."""
    factors = [unary(s)]
    while True:
        token = s.peek()
        if token.kind == "text":
            return compound(s, with_unit(s, product(factors)))
        if token.text in TIMES or token.text == "**":
            s.take()
            factors.append(unary(s))
        elif token.text in OVER:
            s.take()
            factors.append(Node("pow", (unary(s), MINUS_ONE)))
        elif starts_factor(s):
            if unit_in_parentheses(s, factors):
                return with_unit(s, product(factors))
            follow(s, factors, token)
        else:
            return product(factors)


def product(factors: list[Node]) -> Node:
    """The product, flat."""
    return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))


def follow(s: Stream, factors: list[Node], token: Token) -> None:
    """Append a factor that follows without a sign; a whole number before a proper fraction is a mixed number."""
    last = factors[-1]
    if token.kind == "num":
        mixed = plain_fraction(s)
        if mixed is not None and whole(last):
            factors[-1] = joined(last, mixed)
            if s.accept(r"\%") or s.accept("%"):
                factors[-1] = Node("percent", (factors[-1],))
            return
        if last.op in ("num", "sym"):
            raise Unreadable(f"'{token.text}' follows without a sign")
    if token.text == r"\frac" and whole(last) and s.peek(-1).kind == "num":
        fraction = power(s)
        sign, bare = (fraction.op, fraction.args[0]) if fraction.op in ("percent", "degree") else ("", fraction)
        top, bottom = fraction_parts(bare)
        if 0 < top < bottom:
            mixed = joined(last, bare)
            factors[-1] = Node(sign, (mixed,)) if sign else mixed
        else:
            factors.append(fraction)
        return
    factors.append(power(s))


def compound(s: Stream, node: Node) -> Node:
    """`2 hours 30 minutes` as one quantity; anything else as it is."""
    return compound_unit(node, term(s)) if node.op == "unit" and s.peek().kind == "num" else node


def unary(s: Stream) -> Node:
    """A factor with its signs."""
    token = s.peek()
    if token.kind != "text" and token.text in ("+", "-"):
        s.take()
        node = s.nested(unary)
        return negated(node) if token.text == "-" else node
    if token.text in (r"\pm", r"\mp"):
        s.take()
        return Node("pm" if token.text == r"\pm" else "mp", (num(0), s.nested(term)))
    if token.text in CURRENCIES:
        s.take()
        return Node("unit", (s.nested(unary),), CURRENCIES[token.text])
    return power(s)


def power(s: Stream) -> Node:
    """An atom with exponents, factorials, percent and degree signs."""
    node = s.nested(s.atom)
    while True:
        if s.accept("!"):
            node = Node("call", (node,), "factorial")
        elif s.accept(r"\%") or s.accept("%"):
            node = Node("percent", (node,))
        elif s.accept(r"\degree") or (s.peek().text == r"\circ" and s.accept(r"\circ")):
            node = temperature(s, Node("degree", (node,)))
        elif s.accept("'") or s.accept(r"\prime"):
            node = Node("sym", (), node.name + "'") if node.op == "sym" else Node("call", (node,), "prime")
        elif s.peek().text in ("^", "**"):
            s.take()
            node = temperature(s, raised(s, node))
        else:
            return node


def raised(s: Stream, node: Node) -> Node:
    """The node to the exponent that follows; a raised ring is a degree sign and a raised stroke a derivative."""
    ahead = s.peek(1).text if s.peek().text == "{" else s.peek().text
    if ahead in (r"\circ", r"\degree", r"\prime", "o"):
        braced = s.accept("{")
        s.take()
        while s.accept(r"\prime"):
            pass
        if braced:
            s.expect("}")
        return Node("degree", (node,)) if ahead != r"\prime" else Node("call", (node,), "prime")
    if s.peek().text in ("-", "+"):
        return Node("pow", (node, s.nested(unary)))
    exponent = s.nested(braces) if s.peek().text == "{" else s.nested(power if s.peek().text == "(" else s.atom)
    if s.accept("^") or s.accept("**"):
        s.depth += 1
        exponent = raised(s, exponent)
    return Node("pow", (node, exponent))


def braces(s: Stream) -> Node:
    r"""An expression in braces, or `{n \choose k}`."""
    s.expect("{")
    bars, s.bars = s.bars, 0
    node = expression(s)
    if s.accept(r"\choose"):
        node = Node("call", (node, expression(s)), "binomial")
    s.bars = bars
    s.expect("}")
    return node


def argument(s: Stream) -> Node:
    r"""The argument of a macro: braces, one digit, or one atom."""
    token = s.peek()
    if token.text == "{":
        return s.nested(braces)
    if token.kind == "num" and token.text.isdigit() and len(token.text) > 1:
        s.tokens[s.at] = Token("num", token.text[1:])
        return num(int(token.text[0]))
    return s.nested(s.atom)


def number(text: str) -> Node:
    """A number as written; a decimal keeps its count of significant digits. Raises Unreadable when it is too large."""
    text = text.replace(" ", "")
    if text.isdigit():
        return Node("num", (), Fraction(int(text)))
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent.lstrip("+-")) > LONGEST_EXPONENT - 2:
        raise Unreadable(f"the exponent {exponent} is too large")
    digits = len(mantissa.replace(".", "").lstrip("0"))
    return Node(
        "num", (), Fraction(text + "0" if text.endswith(".") else text), max(digits, 1) if "." in mantissa else 0
    )
