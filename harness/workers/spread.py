"""The end of a sweep on the workers' cluster: each run is summarised, bootstrap and all, by a process of its own."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from harness import plugins
from harness.analysis.summarise import marked, summarise
from harness.analysis.summary import RunSummary
from harness.storage.runs import open_run
from harness.workers.team import Crew, connected


def summarise_here(path: Path, selectors: Sequence[str], options: Sequence[str], folder: str) -> RunSummary:
    """The summary of one run; selectors that want a reward model's scores are left out where there are none.

    Raises UserError.
    """
    with contextlib.suppress(OSError):
        os.chdir(folder)
    return summarise(open_run(path), plugins.load_selectors(selectors, options), skip_unscored=True)


def summarise_on(
    crew: Crew, paths: Sequence[Path], selectors: Sequence[str], options: Sequence[str]
) -> list[RunSummary] | None:
    """The summaries of runs, each made on a processor core of the cluster.

    None where that cannot be, for example because its nodes do not see the folders of the runs.
    """
    with connected(crew):
        import ray
        from ray.exceptions import RayError

        work = ray.remote(num_cpus=1)(summarise_here)
        folder = str(Path.cwd())
        try:
            return marked(ray.get([work.remote(path.resolve(), selectors, options, folder) for path in paths]))
        except RayError:
            return None
