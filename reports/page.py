"""One self-contained HTML page: verdicts, figures, table and facts. It loads nothing and runs no script."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from harness.summary import Axis, Point, RunSummary

from .captions import caption_text
from .figures import groups, rendered
from .files import replace_file
from .sheet import draw, paper_style
from .tables import HEADS, RIGHT, cells, markdown_cell, table_rows

TEMPLATE = Path(__file__).with_name("page.html")
ON_SCREEN = 1.2
"""How much larger a figure is on a screen than on paper."""
SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
PANELS: tuple[tuple[Axis, ...], ...] = (("seconds", "k"), ("tokens", "flops"))


def page(summaries: Sequence[RunSummary], out: Path) -> list[Path]:
    """Write `index.html` into the existing folder `out`; what runs say is shown as text. Returns its path."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text("utf-8"))
    html = template.render(
        title=title(summaries),
        caption=caption_text(summaries),
        runs=summaries,
        figures=inline_figures(summaries),
        heads=[(head, name in RIGHT) for name, (head, _) in HEADS.items()],
        rows=[[(shown(cell), name in RIGHT) for name, cell in cells(row).items()] for row in table_rows(summaries)],
    )
    return [replace_file(out / "index.html", html)]


def title(summaries: Sequence[RunSummary]) -> str:
    """The page's title: the tasks."""
    tasks = dict.fromkeys(summary.task for summary in summaries)
    return f"Accuracy for the time given: {', '.join(tasks)}" if tasks else "No runs"


def shown(cell: str | Point | None) -> str:
    """A cell as plain text, which the template escapes."""
    return cell if isinstance(cell, str) else markdown_cell(cell)


def inline_figures(summaries: Sequence[RunSummary]) -> list[Markup]:
    """Each task's and protocol's figures as SVG elements."""
    found: list[Markup] = []
    with paper_style():
        for runs in groups(summaries).values():
            for axes in PANELS:
                figure = draw(runs, axes)
                if figure is not None:
                    words = f"accuracy against {' and '.join(axes)}: {runs[0].task}, {runs[0].protocol} protocol"
                    found.append(inline(rendered(figure, "svg"), f"figure{len(found)}-", words))
    return found


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
    root.set("aria-label", words)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def refers(name: str, value: str) -> bool:
    """Whether an attribute points at an id of its own document; a colour such as `#0072b2` does not."""
    return name.endswith("href") or "url(#" in value
