"""From summaries to files and to what is printed: every report plug-in writes, then the table is told."""

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import plugins
from harness.analysis.comparable import Setting, reasons_apart, setting_of, together
from harness.analysis.summary import Curve, RunSummary, as_document
from harness.comparisons.comparison import TaskComparison
from harness.errors import UserError
from harness.inert import inert_line
from harness.nouns import Selector
from harness.storage.replacing import clear_parts
from harness.storage.runs import Run
from harness.storage.storing import plainly
from harness.timing.timing_tables import TimingTable, read_timings

FORMATS = ("png", "svg", "pdf")
"""The files that every figure is written as; `pgf` is known too and needs a LaTeX installation."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a report may use beyond the summaries. A report that wants it has a parameter `material`.

    `runs` and `settings` are aligned with the summaries, or empty; `selectors` are those of the curves; `style` is a
    matplotlib style file on top of ours; `timings` are those of `ttc speed`; `comparisons` holds that of the runs
    in these places, for each group of at least two that can be compared.
    """

    runs: Sequence[Run] = ()
    settings: Sequence[Setting] = ()
    selectors: Sequence[Selector] = ()
    style: Path | None = None
    formats: Sequence[str] = FORMATS
    timings: Sequence[TimingTable] = ()
    comparisons: Mapping[tuple[int, ...], TaskComparison] = field(default_factory=dict)


def material_of(
    summaries: Sequence[RunSummary], runs: Sequence[Run], selectors: Sequence[Selector], style: Path | None = None,
    formats: Sequence[str] = (), speed: Sequence[Path] = (),
) -> Material:  # fmt: skip
    """Gather what the reports need. Raises UserError on an unknown format, or a style or timing file that is not there.

    `formats` are the figures' files, `FORMATS` when there are none; `speed` are folders that `ttc speed --out` wrote.
    """
    unknown = [name for name in formats if name not in (*FORMATS, "pgf")]
    if unknown:
        raise UserError(f"no figure format named '{unknown[0]}'; there is {', '.join((*FORMATS, 'pgf'))}")
    if style is not None:
        check_style(style)
    timings = [read_timings(folder) for folder in speed]
    settings = [setting_of(run) for run in runs]
    compared = {
        tuple(places): found
        for places in together(summaries, settings)
        if (found := compared_in([runs[place] for place in places], selectors))
    }
    return Material(runs, settings, selectors, style, tuple(formats) or FORMATS, timings, compared)


def check_style(style: Path) -> None:
    """Raises UserError when a style file is not there or matplotlib cannot read it."""
    from matplotlib import rc_params_from_file

    if not style.is_file():
        raise UserError(f"no style file '{style}' (looked from {Path.cwd()}); write one in matplotlib's .mplstyle form")
    try:
        rc_params_from_file(style, use_default_template=False)
    except (OSError, ValueError) as error:
        raise UserError(f"matplotlib cannot read the style file '{style}' ({str(error).splitlines()[0]})") from None


def compared_in(runs: Sequence[Run], selectors: Sequence[Selector]) -> TaskComparison | None:
    """The comparison of runs that may share a figure; None where there are no two arms or their times are not known."""
    if len(runs) < 2:
        return None
    from harness.comparisons.comparing import compare_runs

    try:
        return compare_runs(runs, selectors).tasks[0]
    except UserError:
        return None


def report_folder(out: Path | None, runs: Sequence[Run]) -> Path:
    """Where a bench puts its report: inside the run when there is one, beside the runs when there are several."""
    if len(runs) == 1:
        return runs[0].path / "report"
    return (out or runs[0].path.parent) / "report"


def write_reports(summaries: Sequence[RunSummary], out: Path, material: Material | None = None) -> list[Path]:
    """Have every report plug-in write into `out`; returns the files. Raises UserError when it cannot be written.

    What an earlier report that was killed left unfinished there is cleared away. Runs that cannot share a figure are
    drawn apart, and stderr says why.
    """
    material = material or Material()
    try:
        out.mkdir(parents=True, exist_ok=True)
        clear_parts(out)
    except OSError as error:
        raise UserError(f"cannot write the report to '{out}' ({error.strerror}); choose another --out") from None
    for sentence in reasons_apart(summaries, material.settings):
        print(inert_line(sentence), file=sys.stderr)
    written: list[Path] = []
    for name in plugins.names("reports"):
        function = plugins.load_function("reports", name)
        more = {"material": material} if "material" in inspect.signature(function).parameters else {}
        with plainly(out):
            written += function(summaries, out, **more)
    return written


def tell(summaries: Sequence[RunSummary], written: Sequence[Path], runs: Sequence[Run], json_: bool) -> None:
    """Print the JSON document, or the table followed by where everything is; what selectors raised goes to stderr."""
    for summary in summaries:
        for fault in summary.faults.values():
            print(inert_line(f"ttc: {summary.run}: {fault}; it has no curves"), file=sys.stderr)
    if json_:
        print(json.dumps(as_document(summaries)))
        return
    print_table(summaries)
    for summary, run in zip(summaries, runs, strict=True):
        for reason, mend in zip(summary.reasons, mends(run, len(summary.reasons)), strict=True):
            print(inert_line(f"{summary.run} is INVALID: {reason}{mend}"))
    for label, kind in (("figure", ".png"), ("points", ".csv"), ("page", ".html")):
        for path in written:
            if path.suffix == kind:
                print(inert_line(f"{label:7} {path}"))
    for run in runs:
        print(inert_line(f"{'run':7} {run.path}"))


def mends(run: Run, count: int) -> list[str]:
    """What to do about each reason; reasons that come from comparing runs have no mend of their own."""
    known = [f" ({mend})" for mend in run.manifest["validity"]["mend"]]
    return [*known, *[""] * count][:count]


def print_table(summaries: Sequence[RunSummary]) -> None:
    """One row per run and selector: accuracy with its interval at the full budget, at one sample and at all."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    columns = ("model", "task", "selector", "k=1", "k=max", "at the budget", "problems", "samples", "budget", "verdict")
    for column in columns:
        table.add_column(column, justify="right" if column in columns[3:8] else "left", overflow="fold")
    for summary in summaries:
        for name in dict.fromkeys(curve.selector for curve in summary.curves):
            curves = {curve.axis: curve for curve in summary.curves if curve.selector == name}
            cells = (
                summary.model,
                summary.task,
                name,
                spell(curves.get("k"), 0),
                spell(curves.get("k"), -1),
                spell(curves.get("seconds"), -1),
                str(summary.problems),
                str(summary.samples),
                summary.budget or "none",
                summary.validity,
            )
            table.add_row(*(Text(inert_line(cell)) for cell in cells))
    width = None if sys.stdout.isatty() else 140
    Console(width=width, highlight=False, soft_wrap=False).print(table)


def spell(curve: Curve | None, index: int) -> str:
    """`54.2 [41.0, 66.9]` in percent, or a dash where there is no such point."""
    if curve is None or not curve.points:
        return "–"
    point = curve.points[index]
    return f"{100 * point.value:.1f} [{100 * point.low:.1f}, {100 * point.high:.1f}]"
