r"""Formulas in a text as MathML, made when the page is written; what cannot be read stays as its source.

The converter passes some of its input on as markup (`\text{<img>}`, `\href`, `\style`), so nothing it gives is used as
it is: the tree is rebuilt from the elements and attributes below, and every text in it is escaped.
"""

import html
import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from markupsafe import Markup, escape

from harness.inert import inert

ELEMENTS = frozenset({
    "math", "menclose", "mfrac", "mi", "mn", "mo", "mover", "mpadded", "mphantom", "mroot", "mrow", "ms", "mspace",
    "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover",
})  # fmt: skip
ATTRIBUTES = frozenset({
    "accent", "accentunder", "columnalign", "displaystyle", "fence", "form", "largeop", "linethickness", "mathvariant",
    "maxsize", "minsize", "movablelimits", "notation", "scriptlevel", "separator", "stretchy", "width",
})  # fmt: skip
VALUE = re.compile(r"[a-z -]{1,30}|-?\d{0,2}(\.\d{1,3})?(em|ex|px|pt)?")
"""Words and small lengths: no attribute can move a formula over another text."""

LONGEST, DEEPEST = 600, 24
"""Characters of a formula, and braces within braces: longer or deeper ones stay text."""

FORMULA = re.compile(
    r"\$\$(?P<dollars>.+?)\$\$|\\\[(?P<bracket>.+?)\\\]|\\\((?P<paren>.+?)\\\)"
    r"|(?<![\\$\w])\$(?P<dollar>[^\s$](?:[^$\n]{0,598}[^\s$\\])?)\$(?!\d)",
    re.DOTALL,
)
r"""`$$..$$`, `\[..\]`, `\(..\)` and `$..$`; a sum of money opens none, for its closing sign would follow a blank."""


class Typesetter:
    """Turns texts into HTML with their formulas typeset, at most `formulas` different ones; later ones stay text."""

    def __init__(self, formulas: int = 50_000) -> None:
        self.left = formulas
        self.known: dict[tuple[str, bool], Markup | None] = {}

    def text(self, text: str) -> Markup:
        """A whole text: everything outside formulas escaped, its control characters spelled out."""
        return Markup("").join(self.parts(inert(text)))

    def answer(self, text: str) -> Markup:
        """A bare answer: a formula where it holds a command, a power or an index, else text."""
        made = self.formula(inert(text), block=False) if re.search(r"[\\^_]", text) else None
        return escape(inert(text)) if made is None else made

    def parts(self, text: str) -> Iterator[Markup]:
        """The pieces of a text in order."""
        done = 0
        for found in FORMULA.finditer(text):
            block = found["dollars"] is not None or found["bracket"] is not None
            source = next(group for group in found.groups() if group is not None)
            made = self.formula(source, block)
            if made is not None:
                yield escape(text[done : found.start()])
                yield made
                done = found.end()
        yield escape(text[done:])

    def formula(self, source: str, block: bool) -> Markup | None:
        """A formula as MathML; None where it cannot be read, is too long, or too many came before."""
        key = source.strip(), block
        if key not in self.known:
            if self.left <= 0:
                return None
            self.left -= 1
            self.known[key] = mathml(*key)
        return self.known[key]


def mathml(source: str, block: bool) -> Markup | None:
    """Convert one formula; None where the converter fails or gives an element that is not MathML's."""
    if not source or len(source) > LONGEST or depth(source) > DEEPEST:
        return None
    from latex2mathml.converter import convert_to_element

    try:
        tree = convert_to_element(source, display="block" if block else "inline")
        return Markup("").join(rebuilt(tree, source))
    except Exception:
        # The converter raises whatever its tables stumble over (IndexError, KeyError, RecursionError, its own errors).
        return None


def depth(source: str) -> int:
    """How deep braces stand in braces at most."""
    level = deepest = 0
    for sign in source:
        level += (sign == "{") - (sign == "}")
        deepest = max(deepest, level)
    return deepest


def rebuilt(element: Element, source: str = "") -> Iterator[Markup]:
    """The element written anew. Raises ValueError at an element that is not MathML's."""
    name = element.tag
    if name not in ELEMENTS:
        raise ValueError(f"{name} is no element of MathML")
    kept = {key: value for key, value in element.attrib.items() if key in ATTRIBUTES and VALUE.fullmatch(value)}
    if name == "math":
        kept = {"display": element.attrib["display"], "alttext": source}
    attributes = Markup("").join(Markup(' {}="{}"').format(key, value) for key, value in kept.items())
    yield Markup(f"<{name}") + attributes + Markup(">") + escape(html.unescape(element.text or ""))
    for child in element:
        yield from rebuilt(child)
        yield escape(html.unescape(child.tail or ""))
    yield Markup(f"</{name}>")
