"""The problems of the page: inside it where they fit, else on a page for each in a folder beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from harness.storage.replacing import replace_file
from harness.storage.runs import Run

from .browser import ProblemView, characters, views
from .grouping import Group
from .lines import arm_names
from .mathematics import Typesetter

FITS = 2_500_000
"""Characters of completions that a page holds itself."""

TEXTS = 24
"""Completions of a problem and run whose texts stand on the problem's own page."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list: what it says, what a filter finds it by, and where or what the problem is."""

    tags: str
    heading: Markup
    href: str
    body: Markup


@dataclass(frozen=True, slots=True)
class Browser:
    """The list of one group's problems; `paged` names the folder of their pages, empty when they stand in the list."""

    title: str
    paged: str
    several: bool
    entries: Sequence[Entry]


def browser_of(
    group: Group, runs: Sequence[Run], out: Path, environment: Environment, typesetter: Typesetter
) -> tuple[Browser, list[Path]]:
    """The list of a group's problems, and the paths of the pages that were written into `out`."""
    first = group.summaries[0]
    folder = "" if characters(runs) <= FITS else f"problems{group.suffix}"
    macros = environment.get_template("problems.html").module
    names = [name.removesuffix(" (INVALID)") for name in arm_names(group.summaries)]
    entries, written = [], list[Path]()
    pages = Pages(out / folder, environment, typesetter, first.task) if folder else None
    for number, view in enumerate(views(runs, names, TEXTS if folder else None), 1):
        heading = Markup(macros.heading(view, typesetter))  # type: ignore[attr-defined]
        body = Markup("") if pages else Markup(macros.body(view, typesetter, 4))  # type: ignore[attr-defined]
        href = f"{folder}/{page_name(number)}" if pages else ""
        entries.append(Entry(" ".join(view.tags), heading, href, body))
        if pages:
            written.append(pages.write(number, view, first.problems))
    title = f"{first.task}, {first.protocol} protocol"
    return Browser(title, folder, len(group.summaries) > 1, entries), written


def page_name(number: int) -> str:
    """The file of the problem in this place."""
    return f"{number:05d}.html"


class Pages:
    """Writes the pages of one group's problems; pages of an earlier, longer report are removed."""

    def __init__(self, folder: Path, environment: Environment, typesetter: Typesetter, task: str) -> None:
        from .page import HERE, policy

        folder.mkdir(exist_ok=True)
        for old in stale(folder):
            old.unlink()
        self.folder, self.typesetter = folder, typesetter
        self.template = environment.get_template("problem.html")
        script = (HERE / "page.js").read_text("utf-8")
        self.same = {
            "task": task, "script": Markup(script), "policy": policy([script]),
            "css": Markup((HERE / "page.css").read_text("utf-8")),
        }  # fmt: skip

    def write(self, number: int, view: ProblemView, count: int) -> Path:
        """Write one problem's page; `count` is how many there are."""
        html = self.template.render(
            view=view, typeset=self.typesetter, before=page_name(number - 1) if number > 1 else "",
            after=page_name(number + 1) if number < count else "", **self.same,
        )  # fmt: skip
        return replace_file(self.folder / page_name(number), html)


def stale(folder: Path) -> Iterator[Path]:
    """The pages that an earlier report left."""
    yield from folder.glob("[0-9][0-9][0-9][0-9][0-9].html")
