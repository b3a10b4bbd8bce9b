"""The exact form of a formula: a quotient of two polynomials (`polynomials.py`), compared by cross-multiplication.

What has no such form (a sine of something, a nested root) becomes an opaque atom named by the canonical spelling of its
operands: equal forms are then still equal formulas, but different forms no longer prove a difference.
"""

from fractions import Fraction

from .functions import logarithm, on_rationals, trigonometric
from .nodes import Node, Undecided
from .polynomials import ONE, Meter, constant
from .quotients import UNIT, Form, atom_form, opaque, power_by, product_of, rational, scaled, sum_of


def form_of(node: Node, meter: Meter) -> Form:
    """The exact form of a formula. Raises Undecided when it has none within bounds, Undefined when it has no value."""
    match node.op:
        case "num":
            return Form(constant(node.number), UNIT)
        case "sym":
            return atom_form(f"s:{node.name}")
        case "const":
            if node.name == "inf":
                raise Undecided("infinity in a formula")
            return atom_form(f":{node.name}")
        case "add":
            total = form_of(node.args[0], meter)
            for arg in node.args[1:]:
                total = sum_of(total, form_of(arg, meter), meter)
            return total
        case "mul":
            total = form_of(node.args[0], meter)
            for arg in node.args[1:]:
                total = product_of(total, form_of(arg, meter), meter)
            return total
        case "pow":
            return power_by(form_of(node.args[0], meter), form_of(node.args[1], meter), meter)
        case "percent":
            return scaled(form_of(node.args[0], meter), Fraction(1, 100))
        case "degree":
            return product_of(form_of(node.args[0], meter), Form({((":pi", ONE),): Fraction(1, 180)}, UNIT), meter)
        case "call":
            return call_form(node, meter)
    raise Undecided(f"no exact form of {node.op}")


def call_form(node: Node, meter: Meter) -> Form:
    """A function applied: exact where its value is known, opaque elsewhere."""
    name = node.name
    if name == "derivative":
        return derivative(node, meter)
    parts = [form_of(arg, meter) for arg in node.args]
    known = [rational(part) for part in parts]
    if all(value is not None for value in known):
        value = on_rationals(name, [value for value in known if value is not None])
        if value is not None:
            return Form(constant(value), UNIT)
    if name == "root" and known[1]:
        return power_by(parts[0], Form(constant(1 / known[1]), UNIT), meter)
    if name == "exp":
        return power_by(atom_form(":e"), parts[0], meter)
    if name in ("ln", "log", "log10", "log_base"):
        return logarithm(name, parts, meter)
    if name in ("sin", "cos", "tan"):
        return trigonometric(name, parts[0], meter)
    if name.startswith("user "):
        return free_call(name, parts, meter)
    return opaque(name, parts, meter)


def free_call(name: str, parts: list[Form], meter: Meter) -> Form:
    """An unknown function applied is as free as a variable."""
    before = meter.exact
    form = opaque(name, parts, meter)
    meter.exact = before
    return form


def derivative(node: Node, meter: Meter) -> Form:
    """A derivative: one free atom for each pair of top and bottom."""
    top, bottom = (form_of(arg, meter) for arg in node.args)
    return free_call("derivative", [top, bottom], meter)
