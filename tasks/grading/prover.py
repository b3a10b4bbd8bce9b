"""The worker's proof that two formulas are equal or not: many digits first, then sympy on trees, never on strings.

The difference is evaluated with more and more digits: a number that is not zero settles on a value, one that is zero
keeps shrinking with the precision. Agreement to the last precision at every point is reported at once as provisional;
sympy then tries to make it exact, and stands when it finds otherwise.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import mpmath

from .nodes import Node, Undecided, negated, symbols
from .numeric import coordinate
from .scalars import has_i

PRECISIONS = (40, 80, 160, 320)
SETTLED = 1e-8
POINTS = 4


def mp_value(node: Node, point: Mapping[str, Any]) -> Any:
    """The value of a formula with the digits that mpmath is set to. Raises Undecided on what has none."""
    match node.op:
        case "num":
            return mpmath.mpf(node.number.numerator) / node.number.denominator
        case "sym":
            return point[node.name]
        case "const":
            return {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.mpc(0, 1), "inf": mpmath.inf}[node.name] * 1
        case "add":
            return mpmath.fsum(mp_value(arg, point) for arg in node.args)
        case "mul":
            return mpmath.fprod(mp_value(arg, point) for arg in node.args)
        case "pow":
            return mp_power(mp_value(node.args[0], point), mp_value(node.args[1], point))
        case "percent":
            return mp_value(node.args[0], point) / 100
        case "degree":
            return mp_value(node.args[0], point) * mpmath.pi / 180
        case "call":
            return mp_call(node.name, [mp_value(arg, point) for arg in node.args])
    raise Undecided(f"no value of {node.op}")


def mp_power(base: Any, exponent: Any) -> Any:
    """A power; whole exponents go by multiplication."""
    if mpmath.im(exponent) == 0 and mpmath.isint(mpmath.re(exponent)):
        return base ** int(mpmath.re(exponent))
    return mpmath.power(base, exponent)


def mp_root(radicand: Any, degree: Any) -> Any:
    """The real root of a negative number where the degree is odd."""
    if mpmath.im(radicand) == 0 and mpmath.re(radicand) < 0 and mpmath.isint(degree) and int(degree) % 2:
        return -mpmath.power(-radicand, 1 / mpmath.mpf(degree))
    return mpmath.power(radicand, 1 / mpmath.mpf(degree))


MP_NAMES = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
    "ln": "ln", "log10": "log10", "abs": "fabs", "ceil": "ceil", "floor": "floor", "factorial": "factorial",
    "binomial": "binomial", "exp": "exp", "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec",
    "csc": "csc", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "coth": "coth", "arg": "arg", "re": "re", "im": "im",
    "sgn": "sign",
}  # fmt: skip


def mp_call(name: str, values: list[Any]) -> Any:
    """A function of values. Raises Undecided on an unknown one."""
    if name == "log_base":
        return mpmath.log(values[0]) / mpmath.log(values[1])
    if name == "root":
        return mp_root(values[0], values[1])
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if name not in MP_NAMES:
        raise Undecided(f"no value of {name}")
    return getattr(mpmath, MP_NAMES[name])(*values)


def is_zero_at(difference: Node, point: Mapping[str, Fraction]) -> bool | None:
    """Whether a formula is zero at a point, by its values with more and more digits; None when they are no help."""
    before = None
    value = mpmath.mpf(1)
    for digits in PRECISIONS:
        with mpmath.workdps(digits):
            exact = {name: mpmath.mpf(each.numerator) / each.denominator for name, each in point.items()}
            try:
                value = mpmath.mpmathify(mp_value(difference, exact))
            except (ZeroDivisionError, ValueError, TypeError, OverflowError, KeyError):
                return None
            if mpmath.isnan(value) or mpmath.isinf(value):
                return None
            if before is not None and value and abs(value - before) <= SETTLED * abs(value):
                return False
            before = value
    return bool(abs(value) < mpmath.mpf(10) ** (-PRECISIONS[-1] // 2))


def places(names: frozenset[str]) -> list[dict[str, Fraction]]:
    """Points with rational coordinates, then points with whole ones."""
    if not names:
        return [{}]
    broken = [
        {name: Fraction(coordinate(name, turn)).limit_denominator(10**6) for name in names}
        for turn in range(POINTS + 2)
    ]
    whole = [{name: Fraction(2 + turn + index * 3) for index, name in enumerate(sorted(names))} for turn in range(2)]
    return broken + whole


def real_at(node: Node, point: Mapping[str, Fraction]) -> bool:
    """Whether a formula has a real value at a point."""
    try:
        value = mp_value(node, {name: mpmath.mpf(each.numerator) / each.denominator for name, each in point.items()})
    except (ZeroDivisionError, ValueError, TypeError, OverflowError, KeyError, Undecided):
        return False
    return bool(abs(mpmath.im(value)) <= mpmath.mpf(10) ** -10 * (1 + abs(value)))


def prover(provisional: Callable[[], None]) -> Callable[[Node, Node], bool]:
    """A prover that calls `provisional` when the digits agree, before sympy has its say."""

    def prove(gold: Node, answer: Node) -> bool:
        difference = Node("add", (gold, negated(answer)))
        names = symbols(difference)
        restricted = bool(names) and not has_i(difference)
        verdicts = []
        for point in places(names):
            if restricted and not (real_at(gold, point) and real_at(answer, point)):
                continue
            verdict = is_zero_at(difference, point)
            if verdict is False:
                return False
            verdicts += [] if verdict is None else [verdict]
            if len(verdicts) >= POINTS:
                break
        if len(verdicts) < min(2, len(places(names))):
            return prove_exactly(difference) is True
        provisional()
        return prove_exactly(difference) is not False

    return prove


def prove_exactly(difference: Node) -> bool | None:
    """What sympy makes of the difference: zero, a number that is not zero, or no conclusion."""
    import sympy

    from .symbolic import to_sympy

    try:
        rest = sympy.simplify(to_sympy(difference))
    except (Undecided, TypeError, ValueError, AttributeError, NotImplementedError, RecursionError, ArithmeticError):
        return None
    if rest == 0:
        return True
    return False if rest.is_Rational else None
