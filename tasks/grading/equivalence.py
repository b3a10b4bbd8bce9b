"""Whether two answers are the same: which structures may stand for each other, and by which convention.

The entry is `equal`. It works on trees alone; whatever only sympy can tell raises Undecided unless the context brings a
prover. Conventions that made two answers the same are noted in the context, for the reason of the verdict.
"""

from collections.abc import Sequence

from .nodes import Node, Undecided, any_node, negated, symbols
from .quantities import same_based, same_quantities, same_ratios, same_times
from .regions import inequality, is_region, may_be_region, same_region
from .scalars import Context, polynomial_of, proportion, same
from .shapes import (
    BOTH_SIGNS,
    LISTS,
    MOST_ITEMS,
    STRUCTURES,
    as_vector,
    assigned,
    both_signs,
    cells,
    distinct,
    has_relations,
    spread,
)
from .words import marks_of


def equal(gold: Node, answer: Node, context: Context) -> bool:
    """Whether two answers are the same by the context's rules. Raises Undecided and Undefined."""
    if gold == answer:
        return True
    if any_node(gold, BOTH_SIGNS) or any_node(answer, BOTH_SIGNS):
        gold, answer = both_signs(gold), both_signs(answer)
    if gold.op == "text" or answer.op == "text":
        return False
    gold, answer = spread(gold), spread(answer)
    if gold.op == "rel" or answer.op == "rel" or has_relations(gold) or has_relations(answer):
        return same_relations(gold, answer, context)
    return same_structures(gold, answer, context)


def same_relations(gold: Node, answer: Node, context: Context) -> bool:
    """Where at least one side holds equations or inequalities."""
    if (is_region(gold) and may_be_region(answer)) or (is_region(answer) and may_be_region(gold)):
        try:
            return same_region(gold, answer, context) and context.note("inequality as interval")
        except Undecided:
            if not (inequality(gold) and inequality(answer)):
                raise
    if gold.op == "rel" and answer.op == "rel":
        return same_relation(gold, answer, context)
    if has_relations(gold) and has_relations(answer):
        return same_items(gold.args, answer.args, context, any_order=True)
    if not context.rules.assignment:
        return False
    stripped, other = (assigned(gold), answer) if has_relations(gold) or gold.op == "rel" else (gold, assigned(answer))
    if stripped is None or other is None:
        return False
    return equal(stripped, other, context) and context.note("assignment dropped")


def same_relation(gold: Node, answer: Node, context: Context) -> bool:
    """Equations and inequalities between expressions: the same up to a constant factor and the side things stand on."""
    one, two = gold.name.split(), answer.name.split()
    if (
        one == two
        and len(gold.args) == len(answer.args)
        and all(equal(a, b, context) for a, b in zip(gold.args, answer.args, strict=True))
    ):
        return True
    if len(one) > 1 or len(two) > 1:
        return flipped_chain(gold, answer, context)
    sign, other = one[0], two[0]
    if sign in ("<", "<=") and other in (">", ">="):
        answer, other = Node("rel", answer.args[::-1], other), other.replace(">", "<")
    elif sign in (">", ">=") and other in ("<", "<="):
        gold, sign = Node("rel", gold.args[::-1], sign), sign.replace(">", "<")
    if sign != other or sign not in ("=", "!=", "<", "<=", ">", ">="):
        return False
    if "=" in sign[:1] and named_function(gold) and named_function(answer) and mapped(gold, answer, context):
        return True
    return proportional(gold, answer, sign, context)


def flipped_chain(gold: Node, answer: Node, context: Context) -> bool:
    """A chain of relations read from the other end."""
    turned = [{"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(sign, sign) for sign in reversed(answer.name.split())]
    if gold.name.split() != turned or len(gold.args) != len(answer.args):
        return False
    return all(equal(a, b, context) for a, b in zip(gold.args, answer.args[::-1], strict=True))


def named_function(node: Node) -> bool:
    """Whether the equation defines y or a function of something."""
    return node.args[0] == Node("sym", (), "y") or node.args[0].op == "call"


def mapped(gold: Node, answer: Node, context: Context) -> bool:
    """`y = 2x` and `f(x) = 2x` define the same function."""
    one, two = gold.args[0], answer.args[0]
    if one.op == two.op:
        return False
    return equal(gold.args[1], answer.args[1], context) and context.note("y for f(x)")


def proportional(gold: Node, answer: Node, sign: str, context: Context) -> bool:
    """Whether left minus right agrees up to a constant factor, which is positive for an inequality."""
    if symbols(gold) != symbols(answer):
        return False
    if any_node(gold, STRUCTURES - {"rel"}) or any_node(answer, STRUCTURES - {"rel"}):
        return False
    if not any(marks_of(arg)[1:] != ("", "") for arg in (*gold.args, *answer.args)):
        one, two = (polynomial_of(*node.args) for node in (gold, answer))
        if one and two:
            ratio = proportion(one, two)
            return ratio is not None and (sign in ("=", "!=") or ratio > 0)
    differences = [Node("add", (node.args[0], negated(node.args[1]))) for node in (gold, answer)]
    if same(differences[0], differences[1], context):
        return True
    return sign in ("=", "!=") and same(differences[0], negated(differences[1]), context)


def same_structures(gold: Node, answer: Node, context: Context) -> bool:
    """Sets, lists, tuples, intervals, matrices, ratios, times, numbers in a base, or numbers."""
    gold, answer = as_vector(gold, answer), as_vector(answer, gold)
    if "matrix" in (gold.op, answer.op):
        return same_matrices(gold, answer, context)
    if (is_region(gold) and may_be_region(answer)) or (is_region(answer) and may_be_region(gold)):
        return same_region(gold, answer, context)
    if gold.op == "group" and answer.op == "group":
        return same_groups(gold, answer, context)
    if "group" in (gold.op, answer.op):
        group, other = (gold, answer) if gold.op == "group" else (answer, gold)
        return same_as_all(group, other, context)
    for kind, judge in (("time", same_times), ("ratio", same_ratios), ("based", same_based)):
        if kind in (gold.op, answer.op):
            return judge(gold, answer, context)
    if gold.op in STRUCTURES or answer.op in STRUCTURES:
        return structural(gold, answer, context)
    return same_quantities(gold, answer, context)


def structural(gold: Node, answer: Node, context: Context) -> bool:
    """The same operation on equal parts, for sets that are not on the real line."""
    if (gold.op, gold.value, len(gold.args)) != (answer.op, answer.value, len(answer.args)) or not gold.args:
        return False
    return all(equal(a, b, context) for a, b in zip(gold.args, answer.args, strict=True))


def same_groups(gold: Node, answer: Node, context: Context) -> bool:
    """Lists, tuples, sets and intervals, by their brackets."""
    one, two = ("" if node.name in LISTS else node.name for node in (gold, answer))
    if "{}" in (one, two):
        if {one, two} <= {"{}", ""}:
            return same_items(distinct(gold.args), distinct(answer.args), context, any_order=True)
        return False
    if one == two == "":
        return same_items(gold.args, answer.args, context, any_order=context.rules.order == "any")
    if "" in (one, two):
        # A pair in other brackets is an interval, and so is [1, 2]; no list of two says which of its ends belong to it.
        if {one, two} - {"", "()"} and (len(gold.args) == 2 or {one, two} != {"", "[]"}):
            return False
        return same_items(gold.args, answer.args, context, any_order=False) and context.note("brackets left out")
    if one != two and len(gold.args) == 2:
        return False
    return same_items(gold.args, answer.args, context, any_order=False)


def same_as_all(group: Node, other: Node, context: Context) -> bool:
    """A set of one, or a list that says the same thing several times, against that thing."""
    if group.name not in ("", "and", "{}") or len(group.args) > MOST_ITEMS:
        return False
    return all(equal(item, other, context) for item in group.args) and context.note("list of one thing")


def same_items(gold: Sequence[Node], answer: Sequence[Node], context: Context, any_order: bool) -> bool:
    """Whether items agree one to one, in their order or in any. Raises Undecided when the undecided pairs matter."""
    if len(gold) != len(answer) or len(gold) > MOST_ITEMS:
        return False
    if not any_order:
        return all(equal(a, b, context) for a, b in zip(gold, answer, strict=True))
    left, undecided = list(answer), False
    for item in gold:
        for place, other in enumerate(left):
            try:
                if equal(item, other, context):
                    del left[place]
                    break
            except Undecided:
                undecided = True
        else:
            if undecided:
                raise Undecided("the items of a list")
            return False
    return not left


def same_matrices(gold: Node, answer: Node, context: Context) -> bool:
    """Matrices of one shape entry by entry; a single row or column may be written as a tuple."""
    if gold.op == answer.op:
        if [len(row.args) for row in gold.args] != [len(row.args) for row in answer.args]:
            return False
        pairs = zip(cells(gold), cells(answer), strict=True)
        return all(equal(a, b, context) for a, b in pairs)
    matrix, other = (gold, answer) if gold.op == "matrix" else (answer, gold)
    if min(len(matrix.args), max((len(row.args) for row in matrix.args), default=0)) != 1 or other.op != "group":
        return False
    if other.name == "{}" or len(cells(matrix)) != len(other.args):
        return False
    return all(equal(a, b, context) for a, b in zip(cells(matrix), other.args, strict=True)) and context.note(
        "vector as tuple"
    )
