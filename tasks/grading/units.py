"""The units of measurement that can be converted into each other, and the reading of their names."""

import re
from fractions import Fraction
from typing import NamedTuple

SIZES: dict[str, dict[str, int | Fraction]] = {
    "length": {
        "m meter metre": 1,
        "nm nanometer": Fraction(1, 10**9),
        "mm millimeter millimetre": Fraction(1, 1000),
        "cm centimeter centimetre": Fraction(1, 100),
        "dm decimeter": Fraction(1, 10),
        "km kilometer kilometre": 1000,
        "in inch inches": Fraction(254, 10000),
        "ft foot feet": Fraction(3048, 10000),
        "yd yard": Fraction(9144, 10000),
        "mi mile": Fraction(1609344, 1000),
    },
    "mass": {
        "g gram": 1,
        "mg milligram": Fraction(1, 1000),
        "kg kilogram": 1000,
        "t tonne": 10**6,
        "lb lbs pound": Fraction(45359237, 100000),
        "oz ounce": Fraction(45359237, 1600000),
    },
    "time": {
        "ms millisecond": Fraction(1, 1000),
        "s sec second": 1,
        "min minute": 60,
        "h hr hour": 3600,
        "day": 86400,
        "week": 604800,
    },
    "long time": {"month": 1, "yr year": 12},
    "volume": {"l liter litre": 1, "ml milliliter millilitre": Fraction(1, 1000), "cl centiliter": Fraction(1, 100)},
    "US volume": {
        "gal gallon": 768,
        "qt quart": 192,
        "pt pint": 96,
        "cup": 48,
        "tbsp tablespoon": 3,
        "tsp teaspoon": 1,
    },
    "US money": {
        "cent penny pennies": Fraction(1, 100),
        "nickel": Fraction(1, 20),
        "dime": Fraction(1, 10),
        "dollar usd buck": 1,
    },
    "euros": {"euro eur": 1},
    "pounds sterling": {"gbp sterling quid": 1},
    "rupees": {"rupee rs": 1},
    "angle": {"degree deg": 1},
    "radians": {"radian rad": 1},
    "celsius": {"celsius": 1},
    "fahrenheit": {"fahrenheit": 1},
    "length/time": {"mph": Fraction(1609344, 3600000), "kph kmh": Fraction(1000, 3600), "mps": 1},
}
UNITS = {
    name: (dimension, Fraction(size))
    for dimension, sizes in SIZES.items()
    for names, size in sizes.items()
    for name in names.split()
}
TWO_LETTER_UNITS = frozenset(("cm", "mm", "km", "kg", "mg", "ft", "lb", "oz", "hr", "ml", "mi", "yd"))
SINGLE_UNITS = frozenset("mgsLlh")
"""Letters that are a unit in parentheses after a number; elsewhere they are variables."""
# Words beside a number that never say how large it is.
EMPTY_UNITS = frozenset(("unit", "units", "", "of", "the"))
POWERS = {"square": 2, "sq": 2, "squared": 2, "^2": 2, "cubic": 3, "cu": 3, "cubed": 3, "^3": 3}


class Unit(NamedTuple):
    """What a unit measures, how large it is, and its words."""

    dimension: str
    size: Fraction
    name: str


def unit_of(name: str) -> Unit:
    """The unit that words name; words that name none have the dimension ""."""
    name = re.sub(r"'s\b", "", name.casefold()).replace(".", " ")
    tops, _, bottoms = re.sub(r"\bper\b", "/", name).partition("/")
    top, bottom = factor_of(tops), factor_of(bottoms) if bottoms else None
    if top is None or (bottoms and bottom is None):
        return Unit("", Fraction(1), name.strip())
    if bottom is None:
        return Unit(top[0], top[1], name.strip())
    return Unit(f"{top[0]}/{bottom[0]}", top[1] / bottom[1], name.strip())


def factor_of(name: str) -> tuple[str, Fraction] | None:
    """Dimension and size of `square inches`, `cm ^2` or `hours`; None for other words."""
    parts = [part for part in name.split() if part not in EMPTY_UNITS]
    power = next((POWERS[part] for part in parts if part in POWERS), 1)
    parts = [part for part in parts if part not in POWERS]
    if len(parts) != 1:
        return None
    found = known(parts[0])
    if found is None:
        return None
    return (found[0] if power == 1 else f"{found[0]}^{power}"), found[1] ** power


def known(word: str) -> tuple[str, Fraction] | None:
    """The unit of a word in the singular or the plural."""
    return UNITS.get(word) or UNITS.get(word.removesuffix("s")) or UNITS.get(word.removesuffix("es"))
