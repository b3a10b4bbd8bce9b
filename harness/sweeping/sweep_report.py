"""The end of a sweep: one report of all its runs, and one of each panel, where its first model is the baseline."""

from collections.abc import Sequence
from pathlib import Path

from harness import plugins
from harness.analysis.summarise import summarise_all
from harness.analysis.summary import RunSummary
from harness.nouns import Selector
from harness.reporting import material_of, tell, write_reports
from harness.running.bench import slug
from harness.storage.runs import Run, open_run
from harness.sweeping.sweep import Cell, Sweep
from harness.sweeping.sweep_speed import timings_of
from harness.workers.spread import summarise_on


def report(sweep: Sweep, cells: Sequence[Cell], names: Sequence[str], json_: bool) -> None:
    """Summarise these runs, on the cluster where there is one, write the reports and tell the whole."""
    if not cells:
        return
    runs = [open_run(cell.arm.path) for cell in cells]
    selectors = plugins.load_selectors(names, sweep.selector_options)
    paths = [run.path for run in runs]
    spread = summarise_on(sweep.crew, paths, names, sweep.selector_options) if sweep.crew else None
    summaries = spread or summarise_all(runs, selectors, skip_unscored=True)
    written = write(sweep, summaries, runs, selectors, None)
    for panel in sweep.panels if len(sweep.panels) > 1 else []:
        places = [place for place, cell in enumerate(cells) if cell.panel == panel]
        write(sweep, [summaries[place] for place in places], [runs[place] for place in places], selectors, panel)
    tell(summaries, written, runs, json_)


def write(
    sweep: Sweep, summaries: Sequence[RunSummary], runs: Sequence[Run], selectors: Sequence[Selector], panel: str | None
) -> list[Path]:
    """Write the report of some runs into its folder, that of a panel inside the whole one's. Returns the files."""
    if not runs:
        return []
    material = material_of(summaries, runs, selectors, speed=timings_of(sweep, panel))
    folder = sweep.folder / "report"
    return write_reports(summaries, folder if panel is None else folder / (slug(panel) if panel else "rest"), material)
