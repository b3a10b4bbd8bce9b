"""Sets of real numbers: intervals, unions, finite sets, inequalities, compared by what they contain.

All the ends that two sets mention are put in order on the line; each set is then the row of truth values at every end
and in every gap between. Open and closed ends differ in one value, and (0, 1) with (1, 2) is not (0, 2).
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import cmp_to_key

from .nodes import Node, Undecided, negated, num, symbols
from .numeric import apart, is_real
from .scalars import Context, exact_form, float_value, infinite, same

SET_OPS = frozenset(("union", "intersect", "setminus", "set"))
ORDERED = frozenset(("<", "<=", ">", ">=", "!="))
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
INF = Node("const", (), "inf")
MINUS_INF = Node("mul", (num(-1), INF))

Row = list[bool]


def is_region(node: Node) -> bool:
    """Whether the node can only be a set of numbers."""
    if node.op in ("union", "intersect", "setminus") or (node.op == "set" and node.name in ("R", "empty")):
        return True
    if node.op == "group" and node.name in ("(]", "[)"):
        return True
    if node.op == "group" and node.name in ("", "and") and node.args:
        return all(inequality(arg) for arg in node.args)
    return inequality(node)


def inequality(node: Node) -> bool:
    """Whether the node is an inequality or a membership in one variable."""
    signs = node.name.split()
    if node.op != "rel" or len(symbols(node)) != 1:
        return False
    return signs == ["in"] or (set(signs) <= ORDERED and bool(signs))


def may_be_region(node: Node) -> bool:
    """Whether the node is a set of numbers or brackets that can be read as one."""
    if is_region(node):
        return True
    if node.op != "group":
        return False
    if node.name in ("", "and"):
        return all(may_be_region(arg) for arg in node.args)
    return node.name == "{}" or (node.name in ("()", "[]") and len(node.args) == 2)


def same_region(gold: Node, answer: Node, context: Context) -> bool:
    """Whether two sets contain the same numbers. Raises Undecided when their ends cannot be put in order."""
    one, two = variables(gold), variables(answer)
    if one and two and one != two:
        return False
    ends = ordered([*ends_of(gold), *ends_of(answer)], context)
    return row_of(gold, ends, context) == row_of(answer, ends, context)


def variables(node: Node) -> frozenset[str]:
    """The variables that inequalities and memberships speak of, `_` aside."""
    return symbols(node) - {"_"} if node.op in ("rel", "group") and node.name[:1] not in ("(", "[") else frozenset()


def ends_of(node: Node) -> list[Node]:
    """Every finite end or point that the set mentions. Raises Undecided for what is no set of numbers."""
    if node.op in ("union", "intersect", "setminus") or (node.op == "group" and node.name in ("", "and")):
        return [end for arg in node.args for end in ends_of(arg)]
    if node.op == "set":
        return []
    if node.op == "group":
        return [arg for arg in node.args if not infinite(arg)]
    if node.op == "rel":
        if node.name == "in":
            return ends_of(node.args[1])
        return [bound for bound, _ in bounds(node) if not infinite(bound)]
    raise Undecided(f"no set of numbers: {node.op}")


def bounds(node: Node) -> list[tuple[Node, str]]:
    """An inequality chain in one variable as conditions `x sign bound`. Raises Undecided when it is not linear."""
    signs = node.name.split()
    conditions = []
    if any(arg.op == "call" and arg.name == "abs" for arg in node.args):
        return bounds(without_bars(node))
    for left, sign, right in zip(node.args, signs, node.args[1:], strict=False):
        if (infinite(left) or infinite(right)) and "sym" not in (left.op, right.op):
            continue
        if left.op == "sym":
            conditions.append((right, sign))
        elif right.op == "sym":
            conditions.append((left, MIRRORED[sign]))
        elif not infinite(left) and not infinite(right):
            conditions.append(linear(left, sign, right))
        else:
            raise Undecided("an infinite side")
    return conditions


def without_bars(node: Node) -> Node:
    """`|x - 1| < 3` as a chain. Raises Undecided for other inequalities with absolute values."""
    if len(node.args) == 2 and node.args[1].op == "call":
        node = Node("rel", node.args[::-1], MIRRORED[node.name])
    if len(node.args) != 2 or node.name not in ("<", "<=") or symbols(node.args[1]):
        raise Undecided("an absolute value")
    inside, bound = node.args[0].args[0], node.args[1]
    return Node("rel", (negated(bound), inside, bound), f"{node.name} {node.name}")


def linear(left: Node, sign: str, right: Node) -> tuple[Node, str]:
    """A linear inequality solved for its variable."""
    form, free = exact_form(Node("add", (left, Node("mul", (num(-1), right)))))
    variable = ((f"s:{next(iter(symbols(left) | symbols(right)))}", Fraction(1)),)
    if form is None or not free or set(form.bottom) != {()} or not {variable} <= set(form.top) <= {(), variable}:
        raise Undecided("not linear")
    slope = form.top[variable]
    return num(-form.top.get((), Fraction(0)) / slope), sign if slope > 0 else MIRRORED[sign]


def ordered(ends: Sequence[Node], context: Context) -> list[Node]:
    """The different ends in increasing order. Raises Undecided when two cannot be told apart or are not real."""
    distinct: list[Node] = []
    for end in ends:
        value = float_value(end)
        if value is None or not is_real(value):
            raise Undecided("an end without a real value")
        if not any(same(other, end, context) for other in distinct):
            distinct.append(end)

    def compare(one: Node, two: Node) -> int:
        a, b = float_value(one), float_value(two)
        if a is None or b is None or not apart(a, b):
            raise Undecided("two ends too near to order")
        return -1 if a.z.real < b.z.real else 1

    return sorted(distinct, key=cmp_to_key(compare))


def place(end: Node, ends: Sequence[Node], context: Context) -> int:
    """Where an end stands in a row: odd places are ends, even ones the gaps between."""
    sign = infinite(end)
    if sign:
        return -1 if sign < 0 else 2 * len(ends) + 1
    return next(2 * index + 1 for index, other in enumerate(ends) if same(other, end, context))


def between(low: int, low_closed: bool, high: int, high_closed: bool, size: int) -> Row:
    """The row of an interval."""
    return [low < at < high or (at == low and low_closed) or (at == high and high_closed) for at in range(size)]


def row_of(node: Node, ends: Sequence[Node], context: Context) -> Row:
    """The truth values of membership at every end and in every gap."""
    size = 2 * len(ends) + 1
    if node.op == "set":
        if node.name not in ("R", "empty"):
            raise Undecided(f"the set {node.name}")
        return [node.name == "R"] * size
    if node.op in ("union", "intersect", "setminus"):
        left, right = (row_of(arg, ends, context) for arg in node.args)
        return combined(node.op, left, right)
    if node.op == "rel":
        return relation_row(node, ends, context)
    if node.name in ("", "and"):
        return joint_row(node, [row_of(arg, ends, context) for arg in node.args])
    if node.name == "{}":
        points = {place(arg, ends, context) for arg in node.args}
        return [at in points for at in range(size)]
    low, high = (place(arg, ends, context) for arg in node.args)
    return between(low, node.name[0] == "[", high, node.name[1] == "]", size)


def joint_row(node: Node, rows: Sequence[Row]) -> Row:
    """Several conditions: all of them or any of them, whichever is neither everything nor nothing.

    "x > 0, x < 5" means both, "x < 0, x > 5" either; "and" and unequal signs mean both where that is possible.
    """
    both = [all(column) for column in zip(*rows, strict=True)]
    either = [any(column) for column in zip(*rows, strict=True)]
    if node.name == "and" or any("!=" in arg.name for arg in node.args):
        return both if any(both) else either
    return both if all(either) else either


def combined(operation: str, left: Row, right: Row) -> Row:
    """Union, intersection or difference, place by place."""
    if operation == "union":
        return [a or b for a, b in zip(left, right, strict=True)]
    return [a and b == (operation == "intersect") for a, b in zip(left, right, strict=True)]


def relation_row(node: Node, ends: Sequence[Node], context: Context) -> Row:
    """The row of an inequality chain or of a membership."""
    if node.name == "in":
        return row_of(node.args[1], ends, context)
    size = 2 * len(ends) + 1
    total = [True] * size
    for bound, sign in bounds(node):
        at = place(bound, ends, context)
        if sign == "!=":
            row = [place != at for place in range(size)]
        elif sign[0] == "<":
            row = between(-1, False, at, sign == "<=", size)
        else:
            row = between(at, sign == ">=", size, False, size)
        total = combined("intersect", total, row)
    return total
