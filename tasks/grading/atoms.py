"""What a formula is built from: numbers, variables, functions, fractions, roots, brackets, matrices."""

from fractions import Fraction

from .formulas import (
    argument,
    braces,
    expression,
    listing,
    number,
    set_expression,
)
from .macros import fraction, function, operands, root
from .nodes import IMAGINARY, INFINITY, PI, E, Node, Unreadable, num, quotient
from .stream import Stream
from .tokens import END, Token
from .vocabulary import (
    ACCENTS,
    CLOSERS,
    FONT_MACROS,
    FUNCTIONS,
    GREEK,
    MATRICES,
    NAMED_SETS,
    NUMBER_WORDS,
    REFUSED,
    WHOLE_PARTS,
)

CALLED = frozenset("fgh")
CONSTANTS = {r"\pi": PI, r"\infty": INFINITY, "e": E, "i": IMAGINARY}


def atom(s: Stream) -> Node:
    """One thing without an operation around it."""
    token = s.take()
    if token.kind == "num":
        return numeral(s, token)
    if token.kind == "sym":
        return variable(s, token.text)
    if token.kind == "begin":
        return matrix(s, token.text)
    if token.kind == "cmd":
        return command(s, token.text)
    if token.kind == "op":
        return bracketed(s, token.text)
    if token.kind == "text" and s.peek().text in ("=", "("):
        return Node("sym", (), token.text)
    raise Unreadable(
        f"'{token.text}' stands where a formula should" if token is not END else "the formula ends too early"
    )


def numeral(s: Stream, token: Token) -> Node:
    """A number; with a subscript its base, with an overline its repeating decimals."""
    node = number(token.text)
    if s.peek().text in (r"\overline", r"\bar") and "." in token.text:
        s.take()
        return repeating(token.text, raw_argument(s))
    if s.accept("_"):
        base = base_of(s)
        if base.op != "num" or base.digits:
            raise Unreadable("a base that is not a whole number")
        return Node("based", (node, base), token.text)
    return node


def base_of(s: Stream) -> Node:
    """The base in a subscript: a number or its word, with or without parentheses."""
    braced = s.accept("{")
    if s.peek().kind == "text" and s.peek().text.lower() in NUMBER_WORDS:
        base = num(NUMBER_WORDS[s.take().text.lower()])
    elif braced:
        base = expression(s)
    else:
        return number(s.take().text) if s.peek().kind == "num" else s.nested(s.atom)
    if braced:
        s.expect("}")
    return base


def repeating(start: str, period: str) -> Node:
    """`0.1` and `6` as one sixth. Raises Unreadable when the period is not digits."""
    if not period.isdigit():
        raise Unreadable(f"a repeating decimal with the period '{period}'")
    places = len(start.partition(".")[2])
    tail = Fraction(int(period), (10 ** len(period) - 1) * 10**places)
    return Node("num", (), Fraction(start + "0" if start.endswith(".") else start) + tail)


def subscript(s: Stream) -> str:
    """The subscript that follows, flattened to a name; empty when none does."""
    if not s.accept("_"):
        return ""
    if not s.accept("{"):
        return "_" + s.take().text.lstrip("\\")
    parts, depth = [], 1
    while depth:
        token = s.take()
        if token is END:
            raise Unreadable("a subscript that is not closed")
        depth += (token.text == "{") - (token.text == "}")
        parts.append(token.text.lstrip("\\") if depth else "")
    return "_" + "".join(parts).replace(" ", "")


def variable(s: Stream, letter: str) -> Node:
    """A variable with its subscript, a constant, or a function without a known name applied to something."""
    name = letter + subscript(s)
    if name in CONSTANTS:
        return CONSTANTS[name]
    strokes = 0
    while s.accept("'"):
        strokes += 1
    node = Node("sym", (), name + "'" * strokes)
    if s.peek().text == "(" and (letter in CALLED or strokes or called_on_number(s)):
        return Node("call", operands(s), f"user {node.name}")
    return node


def called_on_number(s: Stream) -> bool:
    """Whether `(number)` follows."""
    return s.peek(1).kind == "num" and s.peek(2).text == ")"


def command(s: Stream, name: str) -> Node:
    """What a command stands for. Raises Unreadable on one that is not known."""
    bare = name[1:]
    if name in CONSTANTS:
        return CONSTANTS[name]
    if name == r"\frac":
        return fraction(s)
    if name == r"\sqrt":
        return root(s)
    if name == r"\cbrt":
        return Node("pow", (argument(s), quotient(num(1), num(3))))
    if bare in GREEK:
        return Node("sym", (), bare + subscript(s))
    if bare in FUNCTIONS:
        return function(s, FUNCTIONS[bare])
    if name in (r"\binom", r"\choose"):
        return Node("call", (argument(s), argument(s)), "binomial")
    if name in WHOLE_PARTS:
        closer, meaning = WHOLE_PARTS[name]
        inside = expression(s)
        s.expect(closer)
        return Node("call", (inside,), meaning)
    return rarer(s, name)


def rarer(s: Stream, name: str) -> Node:
    """The commands of `command` that are not met every day."""
    if name in NAMED_SETS:
        return Node("set", (), NAMED_SETS[name])
    if name == r"\mathbb":
        return Node("set", (), raw_argument(s) + subscript(s))
    if name in FONT_MACROS or name in ACCENTS:
        text = raw_argument(s)
        mark = "" if name in FONT_MACROS and text not in ("i", "j", "k") else name
        return Node("sym", (), mark + text + subscript(s))
    if name in CLOSERS:
        return bracketed(s, name)
    if name in (r"\ldots", r"\dots", r"\cdots"):
        return Node("sym", (), r"\ldots")
    if name == r"\|":
        raise Unreadable("a norm")
    raise Unreadable(f"the big operator {name}" if name in REFUSED else f"the unknown command {name}")


def raw_argument(s: Stream) -> str:
    """The argument of a font or accent macro as text, without spaces."""
    if not s.accept("{"):
        text = s.take().text
        while (
            s.peek().kind == "sym"
            and not s.peek().spaced
            and text.isalpha()
            and text.isupper()
            and s.peek().text.isupper()
        ):
            text += s.take().text
        return text.lstrip("\\")
    parts = []
    while not s.accept("}"):
        if s.peek() is END or s.peek().text == "{":
            raise Unreadable("an accent that is not closed")
        parts.append(s.take().text)
    return "".join(parts)


def bracketed(s: Stream, opener: str) -> Node:
    """What stands in brackets: an expression, or a list with the kind of its two brackets."""
    if opener == "{":
        s.at -= 1
        return braces(s)
    if opener == "|":
        s.bars += 1
        inside = expression(s)
        s.expect("|")
        s.bars -= 1
        return Node("call", (inside,), "abs")
    if opener not in CLOSERS:
        raise Unreadable(f"'{opener}' stands where a formula should")
    # Within a set a bar stands before the condition, elsewhere in brackets it opens an absolute value.
    bars, s.bars = s.bars, int(opener in (r"\{", r"\lbrace"))
    if opener in (r"\{", r"\lbrace") and s.accept(r"\}"):
        return Node("set", (), "empty")
    inside = s.nested(listing)
    if opener in (r"\{", r"\lbrace") and s.peek().text in ("|", ":", r"\mid", r"\vert"):
        s.take()
        inside = Node("builder", (inside, listing(s)))
    closer = s.take().text
    s.bars = bars
    return enclosed(opener[-1:] if opener in ("(", "[", r"\{") else opener, closer[-1:], inside)


def enclosed(opener: str, closer: str, inside: Node) -> Node:
    """The node of a pair of brackets. Raises Unreadable when they do not fit."""
    opener = {r"\langle": "(", r"\lbrack": "[", r"\lbrace": "{"}.get(opener, opener)
    closer = {"e": ")", "k": "]"}.get(closer, closer)
    if closer not in (")", "]", "}") or (opener == "{") != (closer == "}"):
        raise Unreadable(f"'{opener}' is not closed")
    if inside.op == "builder":
        return inside.args[1]
    many = inside.op == "group" and inside.value in ("", "and")
    if not many and opener != "{":
        return inside
    return Node("group", inside.args if many else (inside,), opener + closer)


def matrix(s: Stream, environment: str) -> Node:
    r"""The rows between `\begin` and `\end`; bars make a determinant. Raises Unreadable on another environment."""
    if environment not in MATRICES and environment not in ("vmatrix", "Vmatrix"):
        raise Unreadable(f"the environment {environment}")
    rows: list[Node] = []
    cells: list[Node] = []
    while not s.accept(r"\end"):
        if s.accept(r"\cr") or s.accept(r"\hline"):
            rows, cells = ([*rows, Node("row", tuple(cells))], []) if cells else (rows, cells)
        elif not (s.peek().text == "&" and s.take()):
            cells.append(s.nested(set_expression))
    rows = [*rows, Node("row", tuple(cells))] if cells else rows
    while s.take().text != "}":
        if s.peek() is END:
            raise Unreadable("a matrix that is not closed")
    node = Node("matrix", tuple(rows))
    return Node("call", (node,), "det") if environment == "vmatrix" else node
