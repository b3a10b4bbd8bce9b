"""Whether two formulas have one value: exact forms first, floats only to prove a difference, a prover for the rest."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

from .exact import form_of
from .nodes import E, Node, Undecided, any_node, num, symbols
from .numeric import Value, apart, evaluated, is_real, points
from .polynomials import Meter, Polynomial, multiplied
from .quotients import Form
from .rules import Rules

Prover = Callable[[Node, Node], bool]


def no_prover(gold: Node, answer: Node) -> bool:
    """The prover of the main process, which has none. Raises Undecided."""
    raise Undecided("needs a worker")


@dataclass(slots=True)
class Context:
    """The rules of a comparison, its prover, and the conventions that were used."""

    rules: Rules
    prove: Prover = no_prover
    notes: list[str] = field(default_factory=list)

    def note(self, convention: str) -> bool:
        """Record a convention; returns True."""
        if convention not in self.notes:
            self.notes.append(convention)
        return True


@lru_cache(maxsize=1 << 14)
def exact_form(node: Node) -> tuple[Form | None, bool]:
    """The exact form, or None, and whether different forms prove a difference. Raises Undefined."""
    meter = Meter()
    try:
        return form_of(node, meter), meter.exact
    except (Undecided, OverflowError, RecursionError):
        return None, False


@lru_cache(maxsize=1 << 14)
def float_value(node: Node) -> Value | None:
    """The floating-point value of a formula without variables, or None."""
    try:
        return evaluated(node, {})
    except (Undecided, KeyError):
        return None


def same(gold: Node, answer: Node, context: Context) -> bool:
    """Whether two formulas are equal. Raises Undecided when only a worker can tell, Undefined on a division by zero."""
    if gold == answer:
        return True
    if gold.op == "num" and answer.op == "num":
        return gold.number == answer.number
    if infinite(gold) or infinite(answer):
        return infinite(gold) == infinite(answer)
    if any_node(gold, PLAIN_LOG) or any_node(answer, PLAIN_LOG):
        return same_logs(gold, answer, context)
    decided = same_exactly(gold, answer)
    if decided is not None:
        return decided
    if differ_in_floats(gold, answer):
        return False
    return context.prove(gold, answer)


def same_exactly(gold: Node, answer: Node) -> bool | None:
    """What the exact forms say, or None when they do not."""
    (one, free), (two, also_free) = exact_form(gold), exact_form(answer)
    if one is None or two is None:
        return None
    if one == two:
        return True
    if free and also_free and one.bottom == two.bottom:
        return False
    meter = Meter()
    try:
        equal = multiplied(one.top, two.bottom, meter) == multiplied(two.top, one.bottom, meter)
    except Undecided:
        return None
    return equal if equal or (free and also_free) else None


def differ_in_floats(gold: Node, answer: Node) -> bool:
    """Whether the two certainly differ: at a point where both are real, or at all when there are no variables."""
    names = symbols(gold) | symbols(answer)
    complex_counts = not names or has_i(gold) or has_i(answer)
    for point in points(names):
        try:
            one, two = evaluated(gold, point), evaluated(answer, point)
        except Undecided:
            continue
        if (complex_counts or (is_real(one) and is_real(two))) and apart(one, two):
            return True
    return False


def has_i(node: Node) -> bool:
    """Whether the imaginary unit is in the formula."""
    return (node.op == "const" and node.name == "i") or any(has_i(arg) for arg in node.args)


def infinite(node: Node) -> int:
    """1 for infinity, -1 for minus infinity, 0 for anything else."""
    if node.op == "const":
        return int(node.name == "inf")
    if node.op == "mul" and len(node.args) == 2 and infinite(node.args[1]) and node.args[0].op == "num":
        return 1 if node.args[0].number > 0 else -1
    return 0


PLAIN_LOG = frozenset(("plain log",))


def same_logs(gold: Node, answer: Node, context: Context) -> bool:
    """A logarithm without a base is natural or to base ten, whichever fits both sides."""
    undecided: Undecided | None = None
    for base in (E, num(10)):
        try:
            if same(with_base(gold, base), with_base(answer, base), context):
                return context.note("log without a base")
        except Undecided as trouble:
            undecided = trouble
    if undecided:
        raise undecided
    return False


def with_base(node: Node, base: Node) -> Node:
    """The formula with every plain logarithm to this base."""
    args = tuple(with_base(arg, base) for arg in node.args)
    if node.op == "plain log":
        return Node("call", (*args, base), "log_base")
    return Node(node.op, args, node.value, node.digits) if args else node


def rounds_to(decimal: Node, exact: Node, digits: int) -> bool:
    """Whether a decimal with enough digits is the rounding or the truncation of an exact number."""
    if decimal.op != "num" or decimal.digits < digits or not decimal.number or (exact.op == "num" and exact.digits):
        return False
    value = float_value(exact)
    if value is None or not is_real(value):
        return False
    size, written = abs(decimal.number), decimal.number
    place = Fraction(10) ** (1 - decimal.digits)
    while size >= 10:
        size, place = size / 10, place * 10
    while size < 1:
        size, place = size * 10, place / 10
    beyond = Fraction(value.z.real) - written
    slack = Fraction(value.error) * 8
    if decimal.digits > 14:
        return abs(beyond) <= place + slack + abs(written) / 10**14
    outward = beyond if written > 0 else -beyond
    return abs(beyond) <= place / 2 + slack or -slack <= outward < place


def within(gold: Node, answer: Node, rel_tol: float) -> bool:
    """Whether two numbers agree to a share of the gold one."""
    one, two = float_value(gold), float_value(answer)
    return one is not None and two is not None and abs(one.z - two.z) <= rel_tol * abs(one.z) * (1 + 1e-9)


def polynomial_of(left: Node, right: Node) -> Polynomial | None:
    """The numerator of left minus right with the common powers of variables taken out, or None."""
    difference = Node("add", (left, Node("mul", (num(-1), right))))
    form, free = exact_form(difference)
    if form is None or not free or not form.top:
        return None
    lowest: dict[str, Fraction] = {}
    for atom in {atom for monomial in form.top for atom, _ in monomial if atom[0] == "s"}:
        lowest[atom] = min(dict(monomial).get(atom, Fraction(0)) for monomial in form.top)
    return {
        tuple(
            sorted((a, e - lowest.get(a, 0)) for a, e in complete(monomial, lowest) if e != lowest.get(a, 0))
        ): coefficient
        for monomial, coefficient in form.top.items()
    }


def complete(monomial: tuple[tuple[str, Fraction], ...], atoms: dict[str, Fraction]) -> list[tuple[str, Fraction]]:
    """The monomial with a zero exponent for every atom it lacks."""
    exponents = dict.fromkeys(atoms, Fraction(0)) | dict(monomial)
    return list(exponents.items())


def proportion(one: Polynomial, two: Polynomial) -> Fraction | None:
    """The rational c with two = c * one, or None."""
    if set(one) != set(two):
        return None
    ratios = {two[monomial] / one[monomial] for monomial in one}
    return ratios.pop() if len(ratios) == 1 else None
