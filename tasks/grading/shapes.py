"""Other ways to write one structure: both signs of a plus-minus, `x = 1, 2`, an assignment, a sum of unit vectors."""

from collections.abc import Sequence

from .nodes import (
    MINUS_ONE,
    Node,
    any_node,
    negated,
    num,
    symbols,
)

BOTH_SIGNS = frozenset(("pm", "mp"))
STRUCTURES = frozenset(
    ("group", "matrix", "union", "intersect", "setminus", "set", "rel", "text", "time", "based", "ratio")
)
LISTS = ("", "and")
MOST_ITEMS = 200
UNIT_VECTORS = frozenset(mark + letter for mark in (r"\hat", r"\vec", r"\mathbf") for letter in "ijk")


def both_signs(node: Node) -> Node:
    """The node with every plus-minus written out: a list of the two versions."""
    if node.op == "group":
        items = [item for arg in node.args for item in unlisted(both_signs(arg))]
        return Node("group", tuple(items[:MOST_ITEMS]), node.value)
    if not any_node(node, BOTH_SIGNS):
        return node
    return Node("group", (with_sign(node, 1), with_sign(node, -1)), "")


def unlisted(node: Node) -> Sequence[Node]:
    """The items of a bare list, or the node alone."""
    return node.args if node.op == "group" and node.name in LISTS else (node,)


def with_sign(node: Node, sign: int) -> Node:
    """The node with the upper or the lower of its double signs."""
    args = tuple(with_sign(arg, sign) for arg in node.args)
    if node.op in BOTH_SIGNS:
        right = args[1] if (node.op == "pm") == (sign == 1) else negated(args[1])
        return right if args[0] == num(0) else Node("add", (args[0], right))
    return Node(node.op, args, node.value, node.digits) if args else node


def exact_side(node: Node) -> Node:
    """`x = 8/3` beside its approximation 2.67, without the approximation; one that stands alone counts as equality."""
    if node.op != "rel" or "~" not in node.name:
        return node
    signs, args = node.name.split(), node.args
    while signs and signs[-1] == "~" and (len(args) > 2 or not is_name(args[0])):
        signs, args = signs[:-1], args[:-1]
    return Node("rel", args, " ".join("=" if sign == "~" else sign for sign in signs)) if signs else args[0]


def spread(node: Node) -> Node:
    """`x = 1, 2` as `x = 1, x = 2`, and the same with other signs; `|x| > 3` as two conditions."""
    node = exact_side(node)
    if node.op == "rel" and node.name in (">", ">=") and node.args[0].op == "call" and node.args[0].name == "abs":
        inside, bound = node.args[0].args[0], node.args[1]
        lower = Node("rel", (inside, negated(bound)), node.name.replace(">", "<"))
        return Node("group", (Node("rel", (inside, bound), node.name), lower), "")
    if node.op != "group" or node.name not in LISTS or node.args[0].op != "rel" or node.args[0].name not in ("=", "!="):
        return node
    first = node.args[0]
    items = (item if item.op in STRUCTURES else Node("rel", (first.args[0], item), first.value) for item in node.args)
    return Node("group", tuple(items), node.value)


def has_relations(node: Node) -> bool:
    """Whether the node is a bare list of relations."""
    return node.op == "group" and node.name in LISTS and any(arg.op == "rel" for arg in node.args)


def assigned(node: Node) -> Node | None:
    """`x = 2` as 2 and `x = 2, y = 3` as a list; None for what is no assignment."""
    if node.op == "group":
        items = [assigned(arg) if arg.op == "rel" else arg for arg in node.args]
        known = tuple(item for item in items if item is not None)
        return Node("group", known, node.value) if len(known) == len(items) else None
    if node.name == "in" and is_name(node.args[0]):
        return node.args[1]
    if set(node.name.split()) != {"="}:
        return None
    if is_name(node.args[0]):
        return node.args[-1]
    return node.args[0] if len(node.args) == 2 and is_name(node.args[1]) else None


def is_name(node: Node) -> bool:
    """Whether a side of an equation only names what is sought: a variable, f(x), AB, an angle."""
    if node.op == "sym":
        return True
    if node.op == "call":
        return node.name.startswith("user ") or node.name == "abs"
    if node.op == "pow":
        return node.args[0].op == "sym" and node.args[1] == MINUS_ONE
    return node.op in ("mul", "group") and all(is_name(arg) for arg in node.args)


def as_vector(node: Node, other: Node) -> Node:
    r"""A sum of multiples of `\mathbf{i}`, `\mathbf{j}`, `\mathbf{k}` as a tuple where the other side is one."""
    if other.op not in ("group", "matrix") or node.op in STRUCTURES or not symbols(node) & UNIT_VECTORS:
        return node
    size = len(other.args) if other.op == "group" else len(cells(other))
    parts = tuple(coordinate(node, axis) for axis in range(size))
    return Node("group", parts, "()")


def coordinate(node: Node, axis: int) -> Node:
    """The formula with one unit vector put to 1 and the others to 0."""
    if node.op == "sym" and node.name in UNIT_VECTORS:
        return num(int(node.name[-1] == "ijk"[axis])) if axis < 3 else num(0)
    args = tuple(coordinate(arg, axis) for arg in node.args)
    return Node(node.op, args, node.value, node.digits) if args else node


def distinct(items: Sequence[Node]) -> Sequence[Node]:
    """The items of a set, each once as far as their spelling tells."""
    return tuple(dict.fromkeys(items))


def cells(matrix: Node) -> list[Node]:
    """The entries of a matrix, row by row."""
    return [cell for row in matrix.args for cell in row.args]
