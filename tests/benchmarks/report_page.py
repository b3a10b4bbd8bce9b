"""How large the page of a large run is and how long it takes to write: 500 problems, 256 samples, scored.

    python tests/benchmarks/report_page.py [FOLDER]

The run is made up in FOLDER, or in a folder that is taken away again.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from report_runs import write_run

from harness.analysis.summarise import summarise_all
from harness.budgets import monotonic
from harness.plugins import load_selectors
from harness.reporting import material_of
from harness.reports.page import page
from harness.storage.runs import open_run

PROBLEMS, SAMPLES, CHARACTERS = 500, 256, 1500


def measure(folder: Path) -> dict[str, float]:
    """Seconds of summing up and of writing the page, and megabytes of the page and of all files."""
    if not (folder / "run").exists():
        write_run(folder / "run", problems=PROBLEMS, samples=SAMPLES, length=CHARACTERS, scored=True)
    runs, selectors = [open_run(folder / "run")], load_selectors(["coverage", "majority", "first"])
    began = monotonic()
    summaries = summarise_all(runs, selectors)
    summed = monotonic()
    (folder / "out").mkdir(exist_ok=True)
    written = page(summaries, folder / "out", material_of(summaries, runs, selectors))
    sizes = [path.stat().st_size / 1e6 for path in written]
    return {
        "summarise_s": summed - began, "page_s": monotonic() - summed, "index_mb": sizes[0], "all_mb": sum(sizes),
        "files": len(sizes),
    }  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(Path(sys.argv[1]))))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            print(json.dumps(measure(Path(temporary))))
