"""Functions whose values are known exactly: of rationals, logarithms of primes, sines at multiples of 15 degrees."""

from collections.abc import Callable
from fractions import Fraction
from math import comb, factorial, gcd, lcm

from .polynomials import ONE, Meter, Polynomial, added, constant
from .quotients import HALF, UNIT, Form, atom_form, divided, opaque, rational_atoms, scaled

LARGEST_FACTORIAL = 1000
SINES: tuple[Callable[[], Polynomial], ...] = (
    lambda: {},
    lambda: {(("#2", HALF), ("#3", HALF)): Fraction(1, 4), (("#2", HALF),): Fraction(-1, 4)},
    lambda: {(): HALF},
    lambda: {(("#2", HALF),): HALF},
    lambda: {(("#3", HALF),): HALF},
    lambda: {(("#2", HALF), ("#3", HALF)): Fraction(1, 4), (("#2", HALF),): Fraction(1, 4)},
    lambda: {(): ONE},
)
"""Sines of 0, 15, ..., 90 degrees."""


def on_rationals(name: str, values: list[Fraction]) -> Fraction | None:
    """The value of a function whose arguments are rational, where that is rational and small."""
    whole = [value.numerator for value in values if value.denominator == 1]
    if name == "abs":
        return abs(values[0])
    if name in ("floor", "ceil"):
        return Fraction(values[0] // 1 if name == "floor" else -(-values[0] // 1))
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if len(whole) < len(values):
        return None
    if name == "factorial" and 0 <= whole[0] <= LARGEST_FACTORIAL:
        return Fraction(factorial(whole[0]))
    if name == "binomial" and 0 <= whole[0] <= LARGEST_FACTORIAL and whole[1] >= 0:
        return Fraction(comb(whole[0], whole[1]))
    if name in ("gcd", "lcm"):
        return Fraction(gcd(*whole) if name == "gcd" else lcm(*whole))
    return None


def logarithm(name: str, parts: list[Form], meter: Meter) -> Form:
    """Logarithms as quotients of sums of logarithms of primes. A plain `log` of a number stays apart from `ln`."""
    top = natural_logarithm(parts[0], meter)
    if name == "ln":
        return top
    if name == "log_base":
        return divided(top, natural_logarithm(parts[1], meter), meter)
    base = atom_form("f:log base") if name == "log" else natural_logarithm(Form(constant(Fraction(10)), UNIT), meter)
    return divided(top, base, meter)


def natural_logarithm(form: Form, meter: Meter) -> Form:
    """The logarithm of a positive number of primes and e, as a sum; of anything else opaque."""
    if len(form.top) != 1 or form.bottom != UNIT:
        return opaque("ln", [form], meter)
    ((monomial, coefficient),) = form.top.items()
    if coefficient <= 0 or any(atom[0] != "#" and atom != ":e" for atom, _ in monomial):
        return opaque("ln", [form], meter)
    meter.exact = False
    total: Polynomial = {}
    exponents = dict(monomial)
    for value, sign in ((coefficient.numerator, 1), (coefficient.denominator, -1)):
        for atom, each in rational_atoms(value).items():
            exponents[atom] = exponents.get(atom, Fraction(0)) + sign * each
    for atom, each in exponents.items():
        total = added(total, constant(each) if atom == ":e" else {((f"f:ln {atom}", ONE),): each}, meter)
    return Form(total, UNIT)


def trigonometric(name: str, angle: Form, meter: Meter) -> Form:
    """Exact at multiples of 15 degrees; elsewhere opaque, with the sign of the argument taken out."""
    steps = fifteenths(angle)
    if steps is not None:
        if name != "tan":
            return Form(sine(steps + (6 if name == "cos" else 0)), UNIT)
        return divided(Form(sine(steps), UNIT), Form(sine(steps + 6), UNIT), meter)
    if name == "tan":
        return divided(trigonometric("sin", angle, meter), trigonometric("cos", angle, meter), meter)
    if angle.top and min(angle.top.items())[1] < 0:
        return scaled(trigonometric(name, scaled(angle, -ONE), meter), ONE if name == "cos" else -ONE)
    return opaque(name, [angle], meter)


def fifteenths(angle: Form) -> int | None:
    """How many times 15 degrees the angle is, when it is a whole number of times."""
    if not angle.top:
        return 0
    if angle.bottom != UNIT or set(angle.top) != {((":pi", ONE),)}:
        return None
    steps = 12 * angle.top[((":pi", ONE),)]
    return steps.numerator if steps.denominator == 1 else None


def sine(steps: int) -> Polynomial:
    """The sine of so many times 15 degrees."""
    steps %= 24
    sign = -1 if steps >= 12 else 1
    steps %= 12
    return {monomial: each * sign for monomial, each in SINES[min(steps, 12 - steps)]().items()}
