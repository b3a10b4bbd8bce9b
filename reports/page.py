"""One self-contained HTML page: findings in words, interactive figures, table, and the problems one by one.

The page asks the network for nothing: its policy allows the scripts inside it, by their hashes, and no request at all.
What models and runs say is shown as text.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.analysis.comparable import reasons_apart
from harness.analysis.summary import Axis, Point, RunSummary
from harness.inert import inert
from harness.reporting import Material
from harness.running.overshoot import compliance_lines
from harness.storage.replacing import replace_file
from harness.storage.runs import Run

from .browser import OUTCOMES, folded
from .captions import caption_text
from .files import rendered
from .grouping import Group, groups
from .inlining import inline
from .interactive import as_script_data, chart
from .mathematics import Typesetter
from .problem_pages import Browser, browser_of
from .sheet import draw, paper_style
from .tables import HEADS, RIGHT, cells, left_out, markdown_cell, table_rows
from .words import findings, glossary, tests_of

HERE = Path(__file__).parent
PANELS: tuple[tuple[Axis, ...], ...] = (("seconds", "k"), ("tokens", "flops"))


def page(summaries: Sequence[RunSummary], out: Path, material: Material | None = None) -> list[Path]:
    """Write `index.html` into the existing folder `out`; what runs say is shown as text.

    The problems stand in it where they fit; those of large runs have pages of their own in a folder beside it. Returns
    the paths.
    """
    material = material or Material()
    environment = templates()
    apart = groups(summaries, material)
    script, library = (HERE / "page.js").read_text("utf-8"), plotting_library() if apart else ""
    typesetter = Typesetter()
    browsers, written = browsers_of(apart, material, out, environment, typesetter)
    table = [cells(row) for row in table_rows(summaries)]
    names = [name for name in HEADS if name not in left_out(table)]
    html = environment.get_template("page.html").render(
        title=title(summaries),
        policy=policy([library, script]),
        css=Markup((HERE / "page.css").read_text("utf-8")),
        findings=[words for group in apart for words in findings(group)],
        tests=[words for group in apart for words in tests_of(material.comparisons.get(group.places))],
        run_notes=[note for run in material.runs for note in notes_on(run)],
        apart=reasons_apart(summaries, material.settings),
        caption=caption_text(summaries),
        runs=summaries,
        figures=[figure_of(number, group) for number, group in enumerate(apart)],
        heads=[(HEADS[name][0], name in RIGHT) for name in names],
        rows=[[(shown(row[name]), name in RIGHT) for name in names] for row in table],
        browsers=browsers,
        outcomes=OUTCOMES,
        glossary=glossary(summaries),
        library=Markup(library),
        script=Markup(script),
    )
    return [replace_file(out / "index.html", html), *written]


def templates() -> Environment:
    """The templates with everything escaped that is not markup of our own, its control characters spelled out."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: inert(value) if type(value) is str else value,
    )  # fmt: skip
    environment.filters |= {
        "shorten": lambda text, count: text if len(text) <= count else text[: count - 1] + "…",
        "token": lambda text: re.sub(r"[^A-Za-z0-9_-]", "-", text),
        "words": lambda text: text.replace("_", " "),
        "visible": inert,
        "folded": folded,
        "numbers": lambda steps: ", ".join(f"{step:.3g}" for step in steps[:64]) + (", …" if len(steps) > 64 else ""),
    }
    return environment


def plotting_library() -> str:
    """The script of plotly, as its Python package carries it."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).replace("</script", r"<\/script")


def policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy: these scripts, styles inside the page, nothing from or to anywhere."""
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts if script]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def notes_on(run: Run) -> list[dict[str, str]]:
    """How a run kept its budget, what the harness took of it, and the warnings it ended with."""
    words = [*compliance_lines(run.manifest), *run.manifest["validity"].get("warnings", [])]
    return [{"run": run.name, "words": "; ".join(words)}] if words else []


def title(summaries: Sequence[RunSummary]) -> str:
    """The page's title: the tasks."""
    tasks = dict.fromkeys(summary.task for summary in summaries)
    return f"Accuracy for the time given: {', '.join(tasks)}" if tasks else "No runs"


def shown(cell: str | Point | None) -> str:
    """A cell as plain text, which the template escapes."""
    return cell if isinstance(cell, str) else markdown_cell(cell)


def figure_of(number: int, group: Group) -> dict[str, Any]:
    """One group's chart: its data for the script, and drawn figures for a browser that runs none."""
    data = chart(group)
    first = group.summaries[0]
    data["scored"] = any(series["free"] for series in data["series"])
    return {
        "number": number,
        "title": f"{first.task}, {first.protocol} protocol",
        "chart": data,
        "data": as_script_data(data),
        "drawn": drawn_figures(group.summaries, number),
    }


def drawn_figures(runs: Sequence[RunSummary], number: int) -> list[Markup]:
    """The group's figures as SVG elements."""
    found: list[Markup] = []
    with paper_style():
        for axes in PANELS:
            figure = draw(runs, axes)
            if figure is not None:
                words = f"accuracy against {' and '.join(axes)}: {runs[0].task}, {runs[0].protocol} protocol"
                found.append(inline(rendered(figure, "svg"), f"figure{number}-{len(found)}-", words))
    return found


def browsers_of(
    apart: Sequence[Group], material: Material, out: Path, environment: Environment, typesetter: Typesetter
) -> tuple[list[Browser], list[Path]]:
    """A list of problems for each group, and the pages that were written for them; none where no run is at hand."""
    if not material.runs:
        return [], []
    browsers, written = [], list[Path]()
    for group in apart:
        browser, paths = browser_of(
            group, [material.runs[place] for place in group.places], out, environment, typesetter
        )
        browsers.append(browser)
        written += paths
    return browsers, written
