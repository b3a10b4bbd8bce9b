"""Accuracy against seconds, samples, tokens and FLOPs, as a paper shows it: PNG, SVG and PDF."""

import re
from collections.abc import Collection, Sequence
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from harness.summary import Axis, RunSummary

from .files import replace_file
from .sheet import draw, paper_style

FIGURES: dict[str, tuple[Axis, ...]] = {
    "accuracy": ("seconds", "k"),
    "accuracy-seconds": ("seconds",),
    "accuracy-k": ("k",),
    "accuracy-tokens": ("tokens",),
    "accuracy-flops": ("flops",),
}
UNDATED: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Formats, and what to leave out of each so that the same curves always give the same bytes."""


def figures(summaries: Sequence[RunSummary], out: Path) -> list[Path]:
    """Draw every figure that has points, for each task and protocol among the runs.

    `out` is an existing folder. Returns the paths written: `accuracy.png` (seconds and k side by side),
    `accuracy-seconds.png`, `accuracy-k.png`, `accuracy-tokens.png`, `accuracy-flops.png`, each also as
    `.svg` and `.pdf`; the task's and the protocol's names follow where there are several.
    """
    written = []
    with paper_style():
        for suffix, runs in groups(summaries).items():
            for name, axes in FIGURES.items():
                figure = draw(runs, axes)
                if figure is not None:
                    for form in UNDATED:
                        written.append(replace_file(out / f"{name}{suffix}.{form}", rendered(figure, form)))
    return written


def groups(summaries: Sequence[RunSummary]) -> dict[str, list[RunSummary]]:
    """The runs by task and protocol, under the ending that their files' names get."""
    keyed: dict[tuple[str, str], list[RunSummary]] = {}
    for summary in summaries:
        keyed.setdefault((summary.task, summary.protocol), []).append(summary)
    tasks, protocols = {task for task, _ in keyed}, {protocol for _, protocol in keyed}
    found: dict[str, list[RunSummary]] = {}
    for task, protocol in keyed:
        parts = ([slug(task)] if len(tasks) > 1 else []) + ([protocol] if len(protocols) > 1 else [])
        found[free("".join(f"-{part}" for part in parts), found)] = keyed[task, protocol]
    return found


def free(suffix: str, taken: Collection[str]) -> str:
    """The ending, with a number where some figure's name would otherwise be another's (`k` can be a task too)."""
    names = {name + other for name in FIGURES for other in taken}
    numbered = (suffix if place == 1 else f"{suffix}-{place}" for place in count(1))
    return next(ending for ending in numbered if names.isdisjoint(name + ending for name in FIGURES))


def slug(name: str) -> str:
    """Lower-case letters and digits joined by hyphens, at most 60 of them: a safe part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].rstrip("-") or "task"


def rendered(figure: Figure, form: str) -> bytes:
    """The figure's file in memory; call it inside `paper_style()`."""
    buffer = BytesIO()
    figure.savefig(buffer, format=form, metadata=UNDATED[form])
    return buffer.getvalue()
