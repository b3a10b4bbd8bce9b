"""The published GSM8K example solutions: four systems with labels, imported, chosen among and graded again."""

import gzip
import json
from pathlib import Path

import pytest

from harness import plugins
from harness.analysis.summarise import summarise
from harness.importing import import_file

FILE = (
    Path(__file__).resolve().parents[2]
    / "shared"
    / "data"
    / "gsm8k_example_model_solutions"
    / "example_model_solutions.jsonl.gz"
)
SYSTEMS = {"6b_finetuning": 286, "6b_verification": 515, "175b_finetuning": 458, "175b_verification": 742}
"""Correct of 1,319, as published with the file."""

pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="the published example solutions are not here")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def convert(rows: list[dict[str, object]], system: str, path: Path) -> Path:
    with path.open("w", encoding="utf-8") as out:
        for index, row in enumerate(rows):
            given = row[system]
            assert isinstance(given, dict)
            gold = str(row["ground_truth"]).rpartition("A:")[2].strip()
            line = {
                "problem_id": f"gsm8k/test/{index}",
                "gold": gold,
                "text": given["solution"],
                "correct": given["is_correct"],
            }
            out.write(json.dumps(line) + "\n")
    return path


@pytest.mark.parametrize("system", SYSTEMS)
def test_accuracies_equal_the_files_own_labels(rows: list[dict[str, object]], system: str, tmp_path: Path) -> None:
    run, counts = import_file(
        convert(rows, system, tmp_path / "x.jsonl"), "gsm8k", [], None, tmp_path / "run", system, False
    )
    assert counts["correct"] == SYSTEMS[system]
    summary = summarise(run, [plugins.load_selector(name) for name in ("coverage", "majority", "first")])
    for curve in summary.curves:
        assert [(point.x, point.n) for point in curve.points] == [(1.0, 1319)]
        assert curve.points[0].value == pytest.approx(SYSTEMS[system] / 1319, abs=1e-12)


DISAGREEMENTS: dict[str, set[int]] = {name: set() for name in SYSTEMS}


@pytest.mark.parametrize("system", SYSTEMS)
def test_our_grader_agrees_with_the_labels(rows: list[dict[str, object]], system: str, tmp_path: Path) -> None:
    run, _ = import_file(convert(rows, system, tmp_path / "x.jsonl"), "gsm8k", [], None, tmp_path / "run", system, True)
    ours = {row["problem_id"]: row["verdict"] == "correct" for row in run.verdicts()}
    theirs = {f"gsm8k/test/{index}": row[system]["is_correct"] for index, row in enumerate(rows)}  # type: ignore[index]
    differ = {int(name.rpartition("/")[2]) for name in ours if ours[name] != theirs[name]}
    assert differ == DISAGREEMENTS[system]
