"""The folder of a training run: whose it is, its checkpoints, and its metrics.

    OUT/recipe.json   metrics.csv   checkpoints/STAGE-STEP/   stage-STAGE/   final/

A checkpoint holds all that a later sitting needs to go on as if nothing had happened; it is made whole under another
name and renamed into place. Stages are numbered from 1.
"""

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock

from harness.errors import UserError
from harness.storage.storing import sync_folder, sync_tree

from .recipes import Recipe

KEPT = 2
"""How many checkpoints are kept."""

UNFINISHED_RECIPE = ".recipe.json.unfinished"
CHECKPOINT = re.compile(r"(\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class Place:
    """How far a run is: `step` steps of `stage` are done.

    `tokens` counts places in batches, padding included, and `real_tokens` those that hold text, over all stages so far;
    `seconds` is the time spent in training, over all sittings.
    """

    stage: int = 1
    step: int = 0
    tokens: int = 0
    real_tokens: int = 0
    seconds: float = 0.0


@contextmanager
def claimed(out: Path, recipe: Recipe) -> Iterator[None]:
    """Make the folder this recipe's and hold it against other processes.

    Raises UserError when it holds another recipe's run or anything else, or another process trains there.
    """
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(out / ".lock", blocking=False):
            claim(out, recipe)
            clear_unfinished(out)
            yield
    except filelock.Timeout:
        raise UserError(f"another process trains in '{out}'; wait for it or choose another --out") from None


def check_folder(out: Path) -> None:
    """Raises UserError when the path is a file, or a folder that holds anything but a training run."""
    if out.is_file():
        raise UserError(f"'{out}' is a file; --out wants a folder")
    begun = {".lock", UNFINISHED_RECIPE}  # All that a sitting leaves which was killed before it had its recipe.
    if out.is_dir() and not (out / "recipe.json").is_file() and {path.name for path in out.iterdir()} - begun:
        raise UserError(f"'{out}' is in use and holds no training run; choose an empty or new --out")


def claim(out: Path, recipe: Recipe) -> None:
    """Write down whose the folder is. Raises UserError when it is another recipe's."""
    asked = json.loads(json.dumps(asdict(recipe), default=dict))
    path = out / "recipe.json"
    if path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        for name, there, here in differences(held, asked):
            raise UserError(
                f"'{out}' holds the checkpoints of a recipe with {name} = {there!r}, not {here!r}; choose another "
                "--out, or repeat the command with the recipe that made it to go on with it"
            )
    unfinished = out / UNFINISHED_RECIPE
    unfinished.write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def clear_unfinished(out: Path) -> None:
    """Take away what a killed sitting left half written: checkpoints of steps at which no other stops, for example."""
    for left in (*out.glob(".*.unfinished"), *(out / "checkpoints").glob(".*.unfinished")):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def differences(held: Any, asked: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every place at which two JSON values differ: its dotted path and both values."""
    if isinstance(held, dict) and isinstance(asked, dict):
        pairs = [(f".{key}", held.get(key), asked.get(key)) for key in {**held, **asked}]
    elif isinstance(held, list) and isinstance(asked, list) and len(held) == len(asked):
        pairs = [(f"[{number}]", *both) for number, both in enumerate(zip(held, asked, strict=True))]
    else:
        if held != asked:
            yield path.lstrip("."), held, asked
        return
    for name, one, other in pairs:
        yield from differences(one, other, path + name)


def checkpoints(out: Path) -> list[Path]:
    """The whole checkpoints, oldest first."""
    found = [path for path in (out / "checkpoints").glob("*") if CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=lambda path: tuple(map(int, path.name.split("-"))))


def newest_place(out: Path) -> Place:
    """How far the newest checkpoint is; the beginning when there is none."""
    there = checkpoints(out)
    return Place(**json.loads((there[-1] / "place.json").read_text(encoding="utf-8"))) if there else Place()


def checkpoint_path(out: Path, place: Place) -> Path:
    """The folder of the checkpoint at a place."""
    return out / "checkpoints" / f"{place.stage}-{place.step:07d}"


def save_state(accelerator: Any, out: Path, place: Place, position: int) -> None:
    """Write the checkpoint of a place, from every process, and drop the oldest ones.

    `position` is where this process's next batch begins. Nothing is done when the checkpoint is there.
    """
    path = checkpoint_path(out, place)
    if path.is_dir():
        return
    unfinished = path.with_name(f".{path.name}.unfinished")
    if accelerator.is_main_process:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(unfinished), safe_serialization=False)  # which keeps tied weights tied
    (unfinished / position_name(accelerator)).write_text(json.dumps(position))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (unfinished / "place.json").write_text(json.dumps(asdict(place)) + "\n", encoding="utf-8")
        sync_tree(unfinished)
        unfinished.rename(path)
        sync_folder(path.parent)
        for old in checkpoints(out)[:-KEPT]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def load_state(accelerator: Any, out: Path, place: Place) -> int:
    """Bring what the accelerator has prepared to where it was at a place. Returns where the next batch begins."""
    path = checkpoint_path(out, place)
    accelerator.load_state(str(path))
    position: int = json.loads((path / position_name(accelerator)).read_text())
    return position


def position_name(accelerator: Any) -> str:
    """The file that says where this process's next batch begins."""
    return f"batches-{accelerator.process_index}.json"


class Metrics:
    """metrics.csv: a row for every step, on disk when `append` returns.

    A column that only some stages have is empty in the others. What stands there from after `place` is dropped: those
    steps are taken again.
    """

    def __init__(self, path: Path, place: Place) -> None:
        self.path = path
        self.columns: list[str] = []
        # A line without its end was being written when the process died.
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0] if path.is_file() else ""
        rows = list(csv.DictReader(whole.splitlines()))
        kept = [row for row in rows if (int(row["stage"]), int(row["step"])) <= (place.stage, place.step)]
        if path.is_file():
            self.write(list(rows[0]) if rows else [], kept)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; new columns are added to the rows that are there."""
        if new := [name for name in row if name not in self.columns]:
            rows = list(csv.DictReader(self.path.read_text(encoding="utf-8").splitlines())) if self.columns else []
            self.write(self.columns + new, rows)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(dict(row))

    def write(self, columns: list[str], rows: list[dict[str, Any]]) -> None:
        """Replace the file."""
        self.columns = columns
        unfinished = self.path.with_name(f".{self.path.name}.unfinished")
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(unfinished, self.path)
