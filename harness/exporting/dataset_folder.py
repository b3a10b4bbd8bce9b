"""A run as a repository of the `datasets` library: Parquet, a card, and the manifest beside them.

The default configuration, `completions`, has one row per completion with its problem, verdict and scores; `problems`
has one row per problem. `datasets.load_dataset(FOLDER)` opens it here and from the hub.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.exporting.card import write_card
from harness.exporting.samples import Sample, each_problem
from harness.storage.records import COMPLETIONS, PROBLEMS, VERDICTS, column
from harness.storage.runs import Run

PART_ROWS = 65536
"""Completions of one Parquet file."""
SPLIT = "test"

SCORED = pa.list_(pa.struct([("reward_model", pa.string()), ("scores", pa.list_(pa.float64()))]))
ROWS = pa.schema(
    [
        PROBLEMS.field("problem_id"),
        PROBLEMS.field("prompt"),
        PROBLEMS.field("gold"),
        *(field for field in COMPLETIONS if field.name != "problem_id"),
        *(field.with_nullable(True) for field in VERDICTS if field.name not in ("problem_id", "sample_index")),
        column("scores", SCORED, "step scores of each reward model"),
    ]
)


def write_dataset(run: Run, folder: Path) -> list[Path]:
    """Write the repository; returns its files."""
    places = folder / "completions"
    places.mkdir()
    for number, table in enumerate(tables(run)):
        pq.write_table(table, places / f"{SPLIT}-{number:05d}.parquet", compression="zstd")
    problems = folder / "problems" / f"{SPLIT}-00000.parquet"
    problems.parent.mkdir()
    shutil.copyfile(run.path / "problems.parquet", problems)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(run.manifest, indent=2, default=str) + "\n", encoding="utf-8")
    card = write_card(run, folder, ROWS, PROBLEMS, SPLIT)
    return [card, manifest, problems, *sorted(places.iterdir())]


def tables(run: Run) -> Iterator[pa.Table]:
    """The completions with what is known of them, so many at a time."""
    rows: list[dict[str, Any]] = []
    for problem, samples in each_problem(run):
        rows += [row_of(problem, sample) for sample in samples]
        if len(rows) >= PART_ROWS:
            yield pa.Table.from_pylist(rows, schema=ROWS)
            rows = []
    if rows:
        yield pa.Table.from_pylist(rows, schema=ROWS)


def row_of(problem: Mapping[str, Any], sample: Sample) -> dict[str, Any]:
    """One completion with its problem, verdict and scores."""
    scores = [{"reward_model": name, "scores": list(values)} for name, values in sample.scores.items()]
    shared = {name: problem[name] for name in ("prompt", "gold")}
    return {**(sample.verdict or {}), **sample.row, **shared, "scores": scores}
