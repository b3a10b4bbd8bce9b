"""Accuracy against seconds, samples, tokens and FLOPs, as a paper shows it."""

from collections.abc import Sequence
from pathlib import Path

from harness.analysis.summary import Axis, RunSummary
from harness.reporting import Material

from .files import save_figure
from .grouping import groups
from .lines import is_faceted
from .sheet import draw, paper_style

FIGURES: dict[str, tuple[Axis, ...]] = {
    "accuracy": ("seconds", "k"),
    "accuracy-seconds": ("seconds",),
    "accuracy-k": ("k",),
    "accuracy-tokens": ("tokens",),
    "accuracy-flops": ("flops",),
}
"""The figures with their panels: as wide as a page where there are several, as a column where there is one."""


def figures(summaries: Sequence[RunSummary], out: Path, material: Material | None = None) -> list[Path]:
    """Draw every figure that has points, for each group of runs that may share one.

    `out` is an existing folder. Returns the paths written: `accuracy.png` (seconds and k side by side),
    `accuracy-seconds.png` and `accuracy-seconds-wide.png`, `accuracy-k.png`, `accuracy-tokens.png`,
    `accuracy-flops.png`, each in all formats of `material`; the task's and the protocol's names, or a number, follow
    where there are several groups.
    """
    material = material or Material()
    written = []
    with paper_style(material.style):
        for group in groups(summaries, material):
            for name, axes in FIGURES.items():
                written += save_figure(draw(group.summaries, axes), out, name + group.suffix, material.formats)
            if not is_faceted(group.summaries, ["seconds"]):
                wide = draw(group.summaries, ["seconds"], wide=True)
                written += save_figure(wide, out, f"accuracy-seconds-wide{group.suffix}", material.formats)
    return written
