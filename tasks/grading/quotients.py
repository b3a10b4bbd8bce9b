"""Quotients of two polynomials, their arithmetic, powers and roots."""

from fractions import Fraction
from math import isqrt
from typing import NamedTuple

from .nodes import Undecided, Undefined
from .polynomials import (
    MOST_BITS,
    ONE,
    Meter,
    Monomial,
    Polynomial,
    added,
    bits,
    content,
    factored,
    monomial_power,
    multiplied,
    normal,
    rational_power,
    spelled,
)

LARGEST_EXPANSION = 40
HALF = Fraction(1, 2)
UNIT: Polynomial = {(): ONE}


class Form(NamedTuple):
    """Numerator over denominator; a denominator of one term is always 1, as negative exponents take it up."""

    top: Polynomial
    bottom: Polynomial


def atom_form(atom: str, exponent: Fraction = ONE) -> Form:
    """One atom."""
    return Form({((atom, exponent),): ONE}, UNIT)


def opaque(name: str, parts: list[Form], meter: Meter) -> Form:
    """An atom named after a function and its operands; it may depend on others."""
    meter.exact = False
    meter.charge(sum(len(part.top) + len(part.bottom) for part in parts))
    return atom_form(f"f:{name}({'|'.join(spelled(part.top) + '/' + spelled(part.bottom) for part in parts)})")


def scaled(form: Form, factor: Fraction) -> Form:
    """The form times a rational."""
    return Form({monomial: each * factor for monomial, each in form.top.items()} if factor else {}, form.bottom)


def simple(top: Polynomial, bottom: Polynomial, meter: Meter) -> Form:
    """The quotient with a one-term denominator divided out. Raises Undefined when it is zero."""
    if not bottom:
        raise Undefined("division by zero")
    if len(bottom) == 1:
        ((monomial, coefficient),) = bottom.items()
        if not monomial:
            return Form(top if coefficient == 1 else {each: a / coefficient for each, a in top.items()}, UNIT)
        inverse, factor = monomial_power(monomial, Fraction(-1))
        return Form(multiplied(top, {inverse: factor / coefficient}, meter), UNIT)
    return Form(top, bottom)


def sum_of(one: Form, two: Form, meter: Meter) -> Form:
    """The sum."""
    if one.bottom == two.bottom:
        return Form(added(one.top, two.top, meter), one.bottom)
    left, right = multiplied(one.top, two.bottom, meter), multiplied(two.top, one.bottom, meter)
    return simple(added(left, right, meter), multiplied(one.bottom, two.bottom, meter), meter)


def product_of(one: Form, two: Form, meter: Meter) -> Form:
    """The product."""
    return simple(multiplied(one.top, two.top, meter), multiplied(one.bottom, two.bottom, meter), meter)


def divided(top: Form, bottom: Form, meter: Meter) -> Form:
    """The quotient of two forms."""
    return product_of(top, whole_power(bottom, -1, meter), meter)


def rational(form: Form) -> Fraction | None:
    """The form's value when it is a rational number."""
    if form.bottom != UNIT or len(form.top) > 1 or (form.top and () not in form.top):
        return None
    return form.top.get((), Fraction(0))


def whole_power(base: Form, exponent: int, meter: Meter) -> Form:
    """A form to a whole exponent, expanded within the bounds."""
    if exponent < 0:
        if not base.top:
            raise Undefined("division by zero")
        base, exponent = simple(base.bottom, base.top, meter), -exponent
    if len(base.top) == 1 and base.bottom == UNIT:
        ((monomial, coefficient),) = base.top.items()
        return one_term_power(monomial, coefficient, exponent)
    if exponent > LARGEST_EXPANSION:
        raise Undecided("a large power of a sum")
    top, bottom = UNIT, UNIT
    for _ in range(exponent):
        top, bottom = multiplied(top, base.top, meter), multiplied(bottom, base.bottom, meter)
    return simple(top, bottom, meter)


def one_term_power(monomial: Monomial, coefficient: Fraction, exponent: int) -> Form:
    """One term to a natural exponent; a number too large to write out keeps its primes as atoms."""
    raised, factor = monomial_power(monomial, Fraction(exponent))
    if abs(coefficient) != 1 and bits(coefficient) * exponent > MOST_BITS:
        primes, more = rational_power(abs(coefficient), Fraction(exponent))
        raised, extra = normal({**dict(raised), **{a: e + dict(raised).get(a, 0) for a, e in primes}})
        return Form({raised: factor * more * extra * (-1 if coefficient < 0 and exponent % 2 else 1)}, UNIT)
    return Form({raised: factor * coefficient**exponent}, UNIT)


def root_power(base: Form, exponent: Fraction, meter: Meter) -> Form:
    """A form to a broken exponent: exact for one term, opaque for sums unless the root can be taken apart."""
    if not base.top:
        return base
    if len(base.top) == 1 and base.bottom == UNIT:
        ((monomial, coefficient),) = base.top.items()
        if takes_roots(monomial, exponent):
            return one_term_root(monomial, coefficient, exponent, meter)
    if exponent == HALF and base.bottom == UNIT and (found := denested(base.top, meter)):
        return found
    scale = content(base.top) / content(base.bottom)
    monomial, factor = rational_power(scale, exponent)
    inner = Form(
        {m: c / content(base.top) for m, c in base.top.items()},
        {m: c / content(base.bottom) for m, c in base.bottom.items()},
    )
    name = opaque("root", [inner], meter).top
    ((atom, _),) = next(iter(name))
    return product_of(Form({monomial: factor}, UNIT), atom_form(atom, exponent), meter)


def takes_roots(monomial: Monomial, exponent: Fraction) -> bool:
    """Whether a root may go through to each factor: not to x squared, whose square root is not x."""
    odd_root = exponent.denominator % 2
    for atom, each in monomial:
        if atom == ":i" or (atom[0] == "f" and not odd_root):
            return False
        if atom[0] == "s" and each.denominator == 1 and each % 2 == 0 and not odd_root and (each * exponent) % 2:
            return False
    return True


def one_term_root(monomial: Monomial, coefficient: Fraction, exponent: Fraction, meter: Meter) -> Form:
    """One term to a broken exponent; odd roots of negative numbers are the real ones, square roots turn into i."""
    root, factor = rational_power(abs(coefficient), exponent)
    raised, more = monomial_power(monomial, exponent)
    form = multiplied({root: factor}, {raised: more}, meter)
    if coefficient > 0:
        return Form(form, UNIT)
    if exponent.denominator % 2:
        return Form({m: c * (-1) ** exponent.numerator for m, c in form.items()}, UNIT)
    if exponent.denominator == 2 and not monomial:
        turn, sign = normal({":i": Fraction(exponent.numerator)})
        return Form(multiplied(form, {turn: sign}, meter), UNIT)
    raise Undecided("an even root of a negative term")


def denested(radicand: Polynomial, meter: Meter) -> Form | None:
    """The square root of a + b where b squared is rational, as a sum of two roots, when a^2 - b^2 is a square."""
    if len(radicand) != 2 or () not in radicand:
        return None
    whole = radicand[()]
    ((monomial, coefficient),) = ((m, c) for m, c in radicand.items() if m)
    if any(atom[0] != "#" for atom, _ in monomial):
        return None
    square = multiplied({monomial: coefficient}, {monomial: coefficient}, meter)
    inside = whole**2 - square.get((), Fraction(0))
    if set(square) != {()} or inside < 0 or whole <= 0:
        return None
    difference = Fraction(isqrt(inside.numerator), isqrt(inside.denominator))
    if difference**2 != inside:
        return None
    halves = ((whole + difference) / 2, (whole - difference) / 2)
    large, small = (Form(dict([rational_power(half, HALF)]) if half else {}, UNIT) for half in halves)
    return Form(added(large.top, small.top, meter, ONE if coefficient > 0 else -ONE), UNIT)


def symbolic_power(base: Form, power: Form, meter: Meter) -> Form:
    """A power with a variable exponent: b^(2x+1) is (b^x)^2 times b, for a positive number or a variable b."""
    if power.bottom != UNIT or base.bottom != UNIT or len(base.top) != 1:
        return opaque("power", [base, power], meter)
    ((monomial, coefficient),) = base.top.items()
    if coefficient < 0 or any(atom[0] == "f" or atom == ":i" for atom, _ in monomial):
        return opaque("power", [base, power], meter)
    atoms, scale = rational_power(coefficient, ONE)
    prime_powers = dict(monomial) | dict(atoms)
    for value, sign in ((scale.numerator, 1), (scale.denominator, -1)):
        for atom, each in rational_atoms(value).items():
            prime_powers[atom] = prime_powers.get(atom, Fraction(0)) + sign * each
    total = Form(UNIT, UNIT)
    for exponent, count in power.top.items():
        for atom, each in prime_powers.items():
            if not exponent:
                raised, factor = normal({atom: each * count})
                total = product_of(total, Form({raised: factor}, UNIT), meter)
            else:
                meter.exact = meter.exact and all(part[0] == "s" for part, _ in exponent)
                total = product_of(total, atom_form(f"x:{atom}^{spelled({exponent: ONE})}", each * count), meter)
    return total


def rational_atoms(value: int) -> dict[str, Fraction]:
    """The primes of a natural number."""
    return factored(value) if value > 1 else {}


def power_by(base: Form, power: Form, meter: Meter) -> Form:
    """A form to the power of another."""
    known = rational(power)
    if known is None:
        return symbolic_power(base, power, meter)
    if known.denominator == 1:
        return whole_power(base, known.numerator, meter)
    return root_power(base, known, meter)
