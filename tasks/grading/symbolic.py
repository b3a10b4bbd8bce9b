"""Trees to sympy expressions, node by node, and the second reader for big operators. Only workers import this."""

from typing import Any

import sympy

from .clean import cleaned
from .nodes import Node, Undecided, Unreadable

LONGEST_SECOND = 600
"""Characters that the second reader is given."""
DEEPEST_SECOND = 30
NAMES = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
    "ln": "log", "abs": "Abs", "ceil": "ceiling", "floor": "floor", "factorial": "factorial", "binomial": "binomial",
    "exp": "exp", "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "sinh": "sinh",
    "cosh": "cosh", "tanh": "tanh", "coth": "coth", "max": "Max", "min": "Min", "arg": "arg", "re": "re", "im": "im",
}  # fmt: skip


def to_sympy(node: Node) -> Any:
    """The sympy expression of a formula. Raises Undecided on a node that has none."""
    args = [to_sympy(arg) for arg in node.args]
    match node.op:
        case "num":
            return sympy.Rational(node.number.numerator, node.number.denominator)
        case "sym":
            return sympy.Symbol(node.name, real=True)
        case "const":
            return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "inf": sympy.oo}[node.name]
        case "add":
            return sympy.Add(*args)
        case "mul":
            return sympy.Mul(*args)
        case "pow":
            return sympy.Pow(*args)
        case "percent":
            return args[0] / 100
        case "degree":
            return args[0] * sympy.pi / 180
        case "call":
            return sympy_call(node.name, args)
    raise Undecided(f"no sympy expression of {node.op}")


def sympy_call(name: str, args: list[Any]) -> Any:
    """A function applied. Raises Undecided on one that sympy does not share."""
    if name == "log_base":
        return sympy.log(args[0]) / sympy.log(args[1])
    if name == "log10":
        return sympy.log(args[0]) / sympy.log(10)
    if name == "root":
        return sympy.real_root(*args) if args[0].is_negative and args[1].is_odd else sympy.root(*args)
    if name not in NAMES:
        raise Undecided(f"no sympy function {name}")
    return getattr(sympy, NAMES[name])(*args)


def second_reading(gold: str | Node, answer: str | Node) -> bool:
    """Whether two formulas, trees or texts with big operators, are equal as latex2sympy2_extended reads the texts.

    Raises Unreadable when it cannot read one of them, or when it is too long or too deep to be tried.
    """
    one, two = (side if isinstance(side, Node) else read_again(side) for side in (gold, answer))
    try:
        one, two = (to_sympy(side) if isinstance(side, Node) else side for side in (one, two))
        difference = sympy.simplify((one - two).doit())
    except Exception as trouble:
        raise Unreadable(f"second reader: no difference ({type(trouble).__name__})") from trouble
    return bool(difference == 0)


def read_again(text: str) -> Any:
    """The expression that latex2sympy2_extended reads. Raises Unreadable."""
    from latex2sympy2_extended import latex2sympy

    text = cleaned(text)
    if len(text) > LONGEST_SECOND or text.count("{") > DEEPEST_SECOND:
        raise Unreadable("too long for the second reader")
    try:
        expression = latex2sympy(text)
    except Exception as trouble:
        # The generated parser raises bare Exception among much else; all of it means that the text is not read.
        raise Unreadable(f"the second reader stopped ({type(trouble).__name__})") from trouble
    if not isinstance(expression, sympy.Expr):
        raise Unreadable("the second reader found no formula")
    variables = expression.free_symbols
    return expression.xreplace({symbol: sympy.Symbol(str(symbol), real=True) for symbol in variables})
