"""Exact sums of products: polynomials with rational coefficients in named atoms with rational exponents.

A `Monomial` is a sorted tuple of (atom, exponent), a `Polynomial` a dictionary from monomials to coefficients that
holds no zeros. Atoms are strings: `#2` a prime, `:i` the imaginary unit, `:pi`, `:e`, `s:x` a variable; any other is
opaque.
Roots of primes with exponents between 0 and 1 are linearly independent over the rationals, also with i beside them,
so within those atoms two polynomials are equal exactly when their dictionaries are. Every operation is charged to a
`Meter`, which raises Undecided when the work is more than the main process should do.
"""

from fractions import Fraction

from .nodes import Undecided

Monomial = tuple[tuple[str, Fraction], ...]
Polynomial = dict[Monomial, Fraction]

MOST_WORK = 12_000
MOST_BITS = 16_000
MOST_TERMS = 300
LARGEST_FACTOR = 1000
ZERO, ONE = Fraction(0), Fraction(1)


class Meter:
    """Counts monomial operations, weighted by the size of the coefficients."""

    __slots__ = ("exact", "work")

    def __init__(self) -> None:
        self.work = 0
        # Becomes False once an atom is met that may depend on the others.
        self.exact = True

    def charge(self, work: int) -> None:
        """Add work. Raises Undecided beyond the bound."""
        self.work += work
        if self.work > MOST_WORK:
            raise Undecided("too large to expand in place")


def constant(value: Fraction) -> Polynomial:
    """The constant polynomial."""
    return {(): value} if value else {}


def bits(value: Fraction) -> int:
    """The size of a coefficient."""
    return value.numerator.bit_length() + value.denominator.bit_length()


def added(left: Polynomial, right: Polynomial, meter: Meter, scale: Fraction = ONE) -> Polynomial:
    """Left plus `scale` times right."""
    meter.charge(len(right))
    total = dict(left)
    for monomial, coefficient in right.items():
        new = total.get(monomial, ZERO) + coefficient * scale
        if new:
            total[monomial] = new
        else:
            total.pop(monomial, None)
    return total


def multiplied(left: Polynomial, right: Polynomial, meter: Meter) -> Polynomial:
    """The product, collected."""
    if len(left) > MOST_TERMS or len(right) > MOST_TERMS:
        raise Undecided("too many terms")
    total: Polynomial = {}
    for one, a in left.items():
        for two, b in right.items():
            coefficient = a * b
            size = bits(coefficient)
            meter.charge(1 + size // 256)
            if size > MOST_BITS:
                raise Undecided("a coefficient is too large")
            monomial = one or two
            if one and two:
                monomial, factor = joined(one, two)
                coefficient *= factor
            new = total.get(monomial, ZERO) + coefficient
            if new:
                total[monomial] = new
            else:
                del total[monomial]
    return total


def joined(one: Monomial, two: Monomial) -> tuple[Monomial, Fraction]:
    """The product of two monomials, with the rational that falls out of primes and of i."""
    exponents = dict(one)
    for atom, exponent in two:
        exponents[atom] = exponents.get(atom, ZERO) + exponent
    return normal(exponents)


def normal(exponents: dict[str, Fraction]) -> tuple[Monomial, Fraction]:
    """Exponents of primes brought into [0, 1) and of i into {0, 1}; what falls out is the factor."""
    factor = ONE
    kept: list[tuple[str, Fraction]] = []
    for atom, exponent in exponents.items():
        if atom[0] == "#":
            whole = exponent.numerator // exponent.denominator
            if whole and abs(whole) * int(atom[1:]).bit_length() < MOST_BITS:
                factor *= Fraction(int(atom[1:])) ** whole
                exponent -= whole
        elif atom == ":i" and exponent.denominator == 1:
            turns = exponent.numerator % 4
            factor = -factor if turns >= 2 else factor
            exponent = Fraction(turns % 2)
        if exponent:
            kept.append((atom, exponent))
    return tuple(sorted(kept)), factor


def monomial_power(monomial: Monomial, exponent: Fraction) -> tuple[Monomial, Fraction]:
    """A monomial to a rational exponent, with the rational that falls out."""
    return normal({atom: each * exponent for atom, each in monomial})


def factored(value: int) -> dict[str, Fraction]:
    """A positive whole number as primes with exponents. Raises Undecided when trial division does not suffice."""
    if value.bit_length() > 256:
        raise Undecided("a number too large to factor")
    factors: dict[str, Fraction] = {}
    divisor = 2
    while divisor <= LARGEST_FACTOR and divisor * divisor <= value:
        while value % divisor == 0:
            factors[f"#{divisor}"] = factors.get(f"#{divisor}", ZERO) + 1
            value //= divisor
        divisor += 1 if divisor == 2 else 2
    if value > 1:
        if value >= LARGEST_FACTOR**2:
            raise Undecided("a number too large to factor")
        factors[f"#{value}"] = factors.get(f"#{value}", ZERO) + 1
    return factors


def rational_power(value: Fraction, exponent: Fraction) -> tuple[Monomial, Fraction]:
    """A positive rational to a rational exponent as a monomial of primes times a rational."""
    exponents = {atom: each * exponent for atom, each in factored(value.numerator).items()}
    for atom, each in factored(value.denominator).items():
        exponents[atom] = exponents.get(atom, ZERO) - each * exponent
    return normal(exponents)


def content(polynomial: Polynomial) -> Fraction:
    """The positive rational that leaves whole coprime coefficients."""
    from math import gcd, lcm

    top, bottom = 0, 1
    for coefficient in polynomial.values():
        top, bottom = gcd(top, coefficient.numerator), lcm(bottom, coefficient.denominator)
    return Fraction(top, bottom) if top else ONE


def spelled(polynomial: Polynomial) -> str:
    """A canonical spelling, to be the name of an opaque atom."""
    return "+".join(
        f"{coefficient}*{'*'.join(f'{atom}^{exponent}' for atom, exponent in monomial)}"
        for monomial, coefficient in sorted(polynomial.items())
    )
