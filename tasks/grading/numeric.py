"""Floating-point values with a bound on their error: enough to prove formulas different, never equal."""

import cmath
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .nodes import Node, Undecided

EPSILON = 2.0**-50
SAFETY = 1e3
"""How many error bounds apart two values must be to count as different."""
ROUNDING = 1e-11
CONSTANTS = {"pi": math.pi, "e": math.e, "i": 1j}


class Value(NamedTuple):
    """A complex number and a bound on its absolute error."""

    z: complex
    error: float


def evaluated(node: Node, point: Mapping[str, float]) -> Value:
    """The value of a formula at a point. Raises Undecided where floats do not tell."""
    try:
        value = value_of(node, point)
    except (OverflowError, ZeroDivisionError, ValueError) as trouble:
        raise Undecided(f"no floating-point value: {trouble}") from trouble
    if not (cmath.isfinite(value.z) and math.isfinite(value.error)):
        raise Undecided("no floating-point value")
    return value


def value_of(node: Node, point: Mapping[str, float]) -> Value:
    """The recursion of `evaluated`."""
    match node.op:
        case "num":
            z = float(node.number)
            return Value(z, abs(z) * EPSILON)
        case "sym":
            return Value(point[node.name], 0.0)
        case "const" if node.name in CONSTANTS:
            return Value(CONSTANTS[node.name], 4 * EPSILON)
        case "add":
            parts = [value_of(arg, point) for arg in node.args]
            return Value(sum(p.z for p in parts), sum(p.error + abs(p.z) * EPSILON for p in parts))
        case "mul":
            total = value_of(node.args[0], point)
            for arg in node.args[1:]:
                total = times(total, value_of(arg, point))
            return total
        case "pow":
            return power(value_of(node.args[0], point), value_of(node.args[1], point))
        case "percent":
            return times(value_of(node.args[0], point), Value(0.01, EPSILON))
        case "degree":
            return times(value_of(node.args[0], point), Value(math.pi / 180, EPSILON))
        case "call":
            return applied(node.name, [value_of(arg, point) for arg in node.args])
    raise Undecided(f"no floating-point value of {node.op}")


def times(a: Value, b: Value) -> Value:
    """The product."""
    z = a.z * b.z
    return Value(z, abs(a.z) * b.error + abs(b.z) * a.error + a.error * b.error + abs(z) * EPSILON)


def power(base: Value, exponent: Value) -> Value:
    """A power; of a negative number only to a whole exponent or one half. Raises Undecided elsewhere and near zero."""
    n = exponent.z.real
    if exponent.z.imag == 0 and n == round(n) and exponent.error <= abs(n) * EPSILON * 4 and abs(n) < 1e6:
        clear(base) if n < 0 else None
        z = complex(base.z) ** int(n) if base.z.imag else base.z.real ** int(n)
        slope = abs(n) * abs(z) / abs(base.z) if base.z else float(n == 1)
        return Value(z, slope * base.error * 2 + abs(z) * EPSILON * (abs(n) + 1))
    clear(base)
    if base.z.imag == 0 and base.z.real < 0 and exponent.z != 0.5:
        raise Undecided("a negative number to a broken power")
    logarithm = cmath.log(base.z)
    z = cmath.sqrt(base.z) if exponent.z == 0.5 else cmath.exp(exponent.z * logarithm)
    z = z.real if base.z.imag == 0 and base.z.real > 0 and exponent.z.imag == 0 else z
    share = abs(exponent.z) * base.error / abs(base.z) + abs(logarithm) * exponent.error
    return Value(z, abs(z) * (2 * share + EPSILON * (4 + abs(exponent.z * logarithm))))


def clear(value: Value) -> None:
    """Raises Undecided when the value may be zero."""
    if abs(value.z) <= SAFETY * value.error:
        raise Undecided("too near to zero")


SMOOTH: dict[str, tuple[Callable[[complex], complex], Callable[[complex], complex]]] = {
    "sin": (cmath.sin, cmath.cos),
    "cos": (cmath.cos, cmath.sin),
    "tan": (cmath.tan, lambda z: 1 / cmath.cos(z) ** 2),
    "cot": (lambda z: 1 / cmath.tan(z), lambda z: 1 / cmath.sin(z) ** 2),
    "sec": (lambda z: 1 / cmath.cos(z), lambda z: cmath.sin(z) / cmath.cos(z) ** 2),
    "csc": (lambda z: 1 / cmath.sin(z), lambda z: cmath.cos(z) / cmath.sin(z) ** 2),
    "sinh": (cmath.sinh, cmath.cosh),
    "cosh": (cmath.cosh, cmath.sinh),
    "tanh": (cmath.tanh, lambda z: 1 / cmath.cosh(z) ** 2),
    "arcsin": (cmath.asin, lambda z: 1 / cmath.sqrt(1 - z * z)),
    "arccos": (cmath.acos, lambda z: 1 / cmath.sqrt(1 - z * z)),
    "arctan": (cmath.atan, lambda z: 1 / (1 + z * z)),
    "arcsinh": (cmath.asinh, lambda z: 1 / cmath.sqrt(1 + z * z)),
    "arccosh": (cmath.acosh, lambda z: 1 / cmath.sqrt(z * z - 1)),
    "arctanh": (cmath.atanh, lambda z: 1 / (1 - z * z)),
    "exp": (cmath.exp, cmath.exp),
    "ln": (cmath.log, lambda z: 1 / z),
    "log10": (cmath.log10, lambda z: 0.5 / z),
}


def applied(name: str, values: Sequence[Value]) -> Value:
    """A function of values. Raises Undecided on one that floats do not know."""
    first = values[0]
    if name in SMOOTH:
        call, slope = SMOOTH[name]
        z = call(first.z)
        bound = abs(slope(first.z)) * first.error * 2 + (abs(z) + abs(first.z) * EPSILON + EPSILON) * 4 * EPSILON
        return Value(z.real if abs(z.imag) <= bound else z, bound + abs(first.z) * EPSILON * EPSILON)
    if name == "log_base":
        clear(applied("ln", values[1:]))
        inverse = power(applied("ln", values[1:]), Value(-1.0, 0.0))
        return times(applied("ln", values[:1]), inverse)
    if name == "root":
        return real_root(first, values[1])
    if name == "abs":
        return Value(abs(first.z), first.error)
    if name in ("floor", "ceil") and first.z.imag == 0:
        if abs(first.z.real - round(first.z.real)) <= SAFETY * first.error + ROUNDING:
            raise Undecided("too near to a whole number")
        return Value(float(math.floor(first.z.real) + (name == "ceil")), 0.0)
    if name == "factorial" and first.z.imag == 0 and 0 <= first.z.real < 150:
        z = math.gamma(first.z.real + 1)
        return Value(z, abs(z) * (first.error * 10 + 1e-13))
    raise Undecided(f"no floating-point value of {name}")


def real_root(radicand: Value, degree: Value) -> Value:
    """The root of a degree; the real one of a negative number where the degree is odd."""
    inverse = power(degree, Value(-1.0, 0.0))
    if radicand.z.imag == 0 and radicand.z.real < 0 and degree.z.real % 2 == 1:
        positive = power(Value(-radicand.z, radicand.error), inverse)
        return Value(-positive.z, positive.error)
    return power(radicand, inverse)


def points(names: frozenset[str]) -> list[dict[str, float]]:
    """Places to try: the same for every formula in these variables, of both signs and several sizes."""
    if not names:
        return [{}]
    return [{name: coordinate(name, turn) for name in names} for turn in range(5)]


def coordinate(name: str, turn: int) -> float:
    """A number between 0.3 and 2.3, or its mirror image, drawn from the name and the turn."""
    share = zlib.crc32(f"{turn}/{name}".encode()) / 2**32
    return (0.3 + 2 * share) * (-1 if turn >= 3 and share > 0.4 else 1)


def is_real(value: Value) -> bool:
    """Whether the imaginary part is within the error."""
    return abs(value.z.imag) <= SAFETY * value.error + 1e-12 * abs(value.z)


def apart(a: Value, b: Value) -> bool:
    """Whether two values are certainly different."""
    return abs(a.z - b.z) > SAFETY * (a.error + b.error) + ROUNDING * max(abs(a.z), abs(b.z))
