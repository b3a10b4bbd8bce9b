"""An SVG file as an element of a page."""

import re
from xml.etree import ElementTree

from markupsafe import Markup

from harness.inert import inert

ON_SCREEN = 1.2
"""How much larger a figure is on a screen than on paper."""

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"


def inline(svg: bytes, prefix: str, words: str) -> Markup:
    """An SVG file as an element of a page: its ids made its own, its metadata dropped, `words` for screen readers.

    It is parsed and written anew, so that the markup is well-formed whatever names it holds.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                element.set(name, prefix + value)
            else:
                element.set(name, re.sub(r"(^|url\()#", rf"\1#{prefix}" if refers(name, value) else r"\g<0>", value))
    # A little larger than on paper and never stretched: a narrow figure keeps the lettering of a wide one.
    root.set("width", f"{ON_SCREEN * float(root.attrib['width'].removesuffix('pt')):.0f}pt")
    root.attrib.pop("height")
    root.set("role", "img")
    root.set("aria-label", inert(words))
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def refers(name: str, value: str) -> bool:
    """Whether an attribute points at an id of its own document; a colour such as `#0072b2` does not."""
    return name.endswith("href") or "url(#" in value
