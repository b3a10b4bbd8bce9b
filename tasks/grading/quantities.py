"""Numbers with what stands beside them (percent and degree signs, units), times of day, ratios, numbers in a base."""

from fractions import Fraction

from .nodes import HALF_TURN, HUNDREDTH, PI, Node, Undecided, num, quotient, symbols
from .scalars import Context, exact_form, rounds_to, same, within
from .shapes import STRUCTURES
from .units import Unit, unit_of
from .words import marks_of

ANGLES = frozenset(("", "angle", "radians"))
LETTER_UNITS = frozenset("mgsLlhNJWKV")


def same_quantities(gold: Node, answer: Node, context: Context) -> bool:
    """Numbers and expressions with their percent sign, degree sign and unit."""
    (one, mark, unit), (two, other, its_unit) = marks_of(gold), marks_of(answer)
    if unit and not its_unit:
        two, its_unit = letter_unit(two)
    elif not unit and (its_unit or not symbols(one)):
        one, unit = letter_unit(one) if its_unit else (one, unit)
        two, its_unit = letter_unit(two) if not its_unit else (two, its_unit)
    if mark and other and mark != other:
        return False
    if (mark and unit_of(its_unit).dimension not in ANGLES) or (other and unit_of(unit).dimension not in ANGLES):
        return False
    measures = unit_of(unit) if unit else None, unit_of(its_unit) if its_unit else None
    scale = unit_scale(measures[0], measures[1], context)
    if scale is None:
        return False
    if scale != 1:
        two = Node("mul", (num(scale), two))
        context.note("unit converted")
    if mark == other:
        return same_number(one, two, context)
    policy = context.rules.degrees if "degree" in (mark, other) else context.rules.percent
    note = "degree sign" if "degree" in (mark, other) else "percent sign"
    if policy != "value" and same_number(one, two, context):
        return context.note(f"{note} left out")
    return (
        policy != "number"
        and same_number(valued(one, mark), valued(two, other), context)
        and context.note(f"{note} as value")
    )


def letter_unit(node: Node) -> tuple[Node, str]:
    """`5 m` as a number and its unit: a single letter that is one, after a number without variables."""
    if node.op != "mul" or node.args[-1].op != "sym" or node.args[-1].name not in LETTER_UNITS:
        return node, ""
    number = node.args[0] if len(node.args) == 2 else Node("mul", node.args[:-1])
    return (node, "") if symbols(number) else (number, node.args[-1].name)


def valued(node: Node, mark: str) -> Node:
    """The number that a percent or degree sign makes."""
    if mark == "percent":
        return Node("mul", (node, HUNDREDTH))
    return Node("mul", (node, PI, HALF_TURN)) if mark == "degree" else node


def unit_scale(gold: Unit | None, answer: Unit | None, context: Context) -> Fraction | None:
    """What the answer's number is multiplied by to be in the gold answer's unit; None when the units contradict."""
    if context.rules.units == "ignored" or (gold is None and answer is None):
        return Fraction(1)
    if gold is None or answer is None:
        if context.rules.units == "required" and answer is None:
            return None
        context.note("unit left out")
        return Fraction(1)
    if gold.dimension and answer.dimension:
        return answer.size / gold.size if gold.dimension == answer.dimension else None
    if gold.name != answer.name:
        context.note("words beside the number differ")
    return Fraction(1)


def same_number(gold: Node, answer: Node, context: Context) -> bool:
    """Two formulas by value, within the rounding and tolerance that the rules allow."""
    rules = context.rules
    if rules.rel_tol and within(gold, answer, rules.rel_tol):
        return context.note(f"within {rules.rel_tol:g}")
    if rules.rounded_digits and (
        rounds_to(gold, answer, rules.rounded_digits) or rounds_to(answer, gold, rules.rounded_digits)
    ):
        return context.note("rounded decimal")
    if not same(gold, answer, context):
        return False
    return rules.unsimplified or simplified(answer)


def simplified(node: Node) -> bool:
    """Whether a rational number is written as one number or as a fraction in lowest terms; other formulas are."""
    form, _ = exact_form(node)
    if form is None or set(form.top) - {()} or set(form.bottom) != {()}:
        return True
    value = form.top.get((), Fraction(0))
    if node.op == "mul" and node.args[0] == num(-1) and len(node.args) == 2:
        node, value = node.args[1], -value
    lowest = quotient(num(value.numerator), num(value.denominator))
    return node.op == "num" or node in (lowest, num(value))


def same_times(gold: Node, answer: Node, context: Context) -> bool:
    """Times of day by hours, minutes and seconds; a time against a ratio as ratios."""
    if gold.op != answer.op:
        ratio, other = (gold, answer) if gold.op == "time" else (answer, gold)
        return not ratio.value and same_ratios(Node("ratio", ratio.args), other, context)
    if gold.value and answer.value and gold.value != answer.value:
        return False
    if clock(gold) == clock(answer):
        return True
    one, two = (Node("time", node.args) for node in (gold, answer))
    return (
        bool(gold.value) != bool(answer.value) and clock(one) == clock(two) and context.note("half of the day left out")
    )


def clock(node: Node) -> int:
    """Seconds since midnight, with the half of the day where it is given."""
    hours, minutes, seconds = [int(arg.number) for arg in node.args] + [0] * (3 - len(node.args))
    if node.value:
        hours = hours % 12 + (12 if node.value == "p" else 0)
    return 3600 * hours + 60 * minutes + seconds


def same_ratios(gold: Node, answer: Node, context: Context) -> bool:
    """Ratios up to a common factor; a ratio of two against a fraction."""
    sides = [node.args if node.op == "ratio" else (node, num(1)) for node in (gold, answer)]
    if any(node.op in STRUCTURES - {"ratio"} for node in (gold, answer)) or len(sides[0]) != len(sides[1]):
        return False
    (first, *rest), (other, *others) = sides
    return all(
        same(Node("mul", (first, b)), Node("mul", (other, a)), context) for a, b in zip(rest, others, strict=True)
    )


def same_based(gold: Node, answer: Node, context: Context) -> bool:
    """Numbers in a base by value; the base may be left out, the digits then being the same."""
    if gold.op == answer.op:
        return based_value(gold) == based_value(answer)
    based, other = (gold, answer) if gold.op == "based" else (answer, gold)
    plain = other.op == "num" and str(other.number) == based.name.lstrip("0")
    return plain and context.note("base left out")


def based_value(node: Node) -> Fraction:
    """The value of digits in their base. Raises Undecided when a digit is too large for the base."""
    base = int(node.args[1].number)
    digits, _, behind = node.name.lstrip("-").partition(".")
    try:
        value = Fraction(int(digits + behind, base), base ** len(behind))
    except ValueError as trouble:
        raise Undecided("digits that the base does not have") from trouble
    return -value if node.name.startswith("-") else value
