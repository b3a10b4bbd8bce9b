"""What a killed writer leaves behind: files that are not whole, which are set aside, and sittings that never closed.

Nothing is deleted. What is set aside lies in `RUN/set_aside/` and counts for nothing; a sentence on stderr says so.
"""

import sys
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.inert import inert_line
from harness.storage.records import KINDS, Damaged, opened_part, parts
from harness.storage.storing import UNFINISHED, move

if TYPE_CHECKING:
    import pyarrow as pa

SET_ASIDE = "set_aside"
"""The folder of a run in which that lies."""


def unfinished(path: Path) -> list[Path]:
    """The files of a run that were being written when their writer was killed."""
    folders = (path, *(path / kind for kind in (*KINDS, "timing")))
    return sorted(file for folder in folders for file in folder.glob(f".*{UNFINISHED}"))


def torn(path: Path) -> Iterator[tuple[Path, str]]:
    """The parts of a run that have no whole footer, as a disk that lies about syncing leaves them, and why."""
    for kind in (*KINDS, "timing"):
        for part in parts(path / kind):
            try:
                with opened_part(part):
                    pass
            except Damaged as error:
                yield part, str(error)


def set_aside_unfinished(path: Path) -> None:
    """Set aside what is not whole yet. Call it under `harness.storage.locking.writing`. Raises UserError.

    So is a run refused whose folders lead elsewhere, since what is written and moved there would not be its own.
    """
    for name in (*KINDS, "timing", SET_ASIDE):
        if (path / name).is_symlink():
            raise UserError(f"'{path / name}' is a link; put the folder it points to in its place to go on")
    for file in unfinished(path):
        set_aside(path, file, "was half written when its writer was killed")


def set_aside_torn(path: Path) -> None:
    """Set aside what has a part's name and is none. Call it under `storage.locking.writing`. Raises UserError."""
    for part, _ in list(torn(path)):
        set_aside(path, part, "is torn, as by a power cut,")


def set_aside(path: Path, file: Path, why: str) -> None:
    """Move a file of a run out of the way and say so on stderr."""
    name = "-".join(file.relative_to(path).parts).replace("-.", "-").lstrip(".")
    free = (path / SET_ASIDE / (f"{name}.{number}" if number else name) for number in count())
    target = next(place for place in free if not place.exists())
    move(file, target)
    print(inert_line(f"'{file}' {why} and counts for nothing; it was set aside as '{target}'"), file=sys.stderr)


def close_killed(manifest: dict[str, Any], timing: "pa.Table", completions: "pa.Table") -> None:
    """Note of sittings that never closed how long they sampled, as far as is known; one still `running` was killed.

    `completions` has the columns problem_id, segment and finished_s. Only the manifest in memory is changed.
    """
    for segment in manifest["segments"]:
        if is_open(segment):
            throughput = manifest["spec"].get("protocol") == "throughput"
            segment["generate_s"] = sampled_s(segment["segment"], timing, completions, throughput)
            if segment["status"] == "running":
                segment["status"] = "killed"


def is_open(segment: Mapping[str, Any]) -> bool:
    """Whether a sitting ended before it could say how long it sampled."""
    return "generate_s" not in segment


def sampled_s(segment: int, timing: "pa.Table", completions: "pa.Table", throughput: bool) -> float:
    """Seconds inside the budgets of one sitting: by timing, and of scopes without one until their last completion."""
    import pyarrow.compute as pc

    own = timing.filter(pc.equal(timing["segment"], segment))
    seconds = float(pc.sum(own["elapsed_s"]).as_py() or 0.0)
    told = set(own["problem_id"].to_pylist())
    ends = last_finished(completions.filter(pc.equal(completions["segment"], segment)), throughput)
    before = last_finished(completions.filter(pc.less(completions["segment"], segment)), throughput)
    return seconds + sum(max(0.0, end - before.get(scope, 0.0)) for scope, end in ends.items() if scope not in told)


def last_finished(completions: "pa.Table", throughput: bool) -> dict[str | None, float]:
    """When the last completion of each scope finished, by problem id or under None."""
    import pyarrow.compute as pc

    if throughput:
        return {None: float(pc.max(completions["finished_s"]).as_py())} if completions.num_rows else {}
    groups = completions.group_by("problem_id", use_threads=False).aggregate([("finished_s", "max")])
    return dict(zip(groups["problem_id"].to_pylist(), groups["finished_s_max"].to_pylist(), strict=True))
