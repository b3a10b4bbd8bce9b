import gzip
import json
from pathlib import Path

import pandas
import pytest

from harness import plugins
from harness.analysis.summarise import summarise
from harness.errors import UserError
from harness.importing import import_file
from harness.storage.integrity import examine_run
from harness.storage.runs import Run, open_run

SELECTORS = [plugins.load_selector(name) for name in ("coverage", "majority", "first")]

A = {"problem_id": "a", "gold": "4"}
Z = {"problem_id": "z", "gold": "4", "text": ""}
LINES: list[object] = [
    A | {"text": "It is \\boxed{4}.", "reward": 0.9, "finished_s": 1.0, "completion_tokens": 10},
    A | {"text": "It is \\boxed{5}.", "reward": [0.1, 0.2], "finished_s": 2.0, "completion_tokens": 20},
    {"problem_id": "b", "gold": "1/2", "answer": "0.5", "finished_s": 1.5, "completion_tokens": 5},
    {"problem_id": "b", "gold": "1/2", "answer": None, "finished_s": 2.5, "completion_tokens": 9},
]  # fmt: skip


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def load(file: Path, out: Path, regrade: bool = False) -> tuple[Run, dict[str, int]]:
    return import_file(file, "math", [], None, out, "someone", regrade)


def test_a_file_becomes_a_run_that_opens_with_pandas(tmp_path: Path) -> None:
    run, counts = load(write(tmp_path / "x.jsonl", LINES), tmp_path / "run")
    assert counts == {"correct": 2, "wrong": 1, "no_answer": 1}
    table = pandas.read_parquet(tmp_path / "run" / "completions")
    assert table["finished_s"].tolist() == [1.0, 2.0, 1.5, 2.5]
    assert table["sample_index"].tolist() == [0, 1, 0, 1]
    scores = {(row["problem_id"], row["sample_index"]): row["scores"] for row in run.scores()}
    assert scores == {("a", 0): [0.9], ("a", 1): [0.1, 0.2]}
    summary = summarise(run, SELECTORS)
    at_k = {c.selector: [p.value for p in c.points] for c in summary.curves if c.axis == "k"}
    assert at_k == {"coverage": [0.5, 1.0], "majority": [0.5, 0.75], "first": [0.5, 0.5]}
    in_time = next(c for c in summary.curves if (c.selector, c.axis) == ("first", "seconds"))
    assert (in_time.points[0].x, in_time.points[0].value, in_time.points[-1].value) == (1.0, 0.5, 1.0)
    assert all(finding.ok for finding in examine_run(tmp_path / "run"))


def test_a_recorded_verdict_stands_unless_regrade(tmp_path: Path) -> None:
    rows = [{"problem_id": "a", "gold": "4", "text": "\\boxed{4}", "correct": False}]
    _, counts = load(write(tmp_path / "x.jsonl", rows), tmp_path / "stands")
    assert counts == {"wrong": 1}
    _, counts = load(write(tmp_path / "x.jsonl", rows), tmp_path / "again", regrade=True)
    assert counts == {"correct": 1}


def test_without_times_there_is_no_time_axis(tmp_path: Path) -> None:
    run, _ = load(
        write(tmp_path / "x.jsonl", [{"problem_id": "a", "gold": "4", "text": "\\boxed{4}"}]), tmp_path / "run"
    )
    assert {curve.axis for curve in summarise(run, SELECTORS).curves} == {"k"}


def test_gzip_and_blank_lines(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as file:
        file.write("\n\n" + json.dumps(LINES[0]) + "\n\n")
    run, _ = load(tmp_path / "x.jsonl.gz", tmp_path / "run")
    assert len(run.completions()) == 1


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: wants a JSON object with problem_id, gold, and text or answer, got list"),
        ({"gold": "4", "text": ""}, "line 2: problem_id is missing or empty; the line has gold, text"),
        ({"problem_id": "z", "gold": "4"}, "line 2: has neither text nor answer"),
        ({"problem_id": "z", "gold": 4, "text": ""}, "line 2: gold wants str, got 4"),
        (Z | {"sample_index": -1}, "line 2: sample_index wants a number from 0, got -1"),
        (Z | {"sample_index": True}, "line 2: sample_index wants int, got True"),
        (Z | {"gold": ""}, "line 2: gold is missing or empty"),
        (Z | {"correct": 1}, "line 2: correct wants bool, got 1"),
        (Z | {"reward": [1, float("nan")]}, "line 2: reward wants a finite number"),
        (Z | {"finished_s": float("inf")}, "line 2: finished_s wants a number from 0"),
        ({"problem_id": "a", "gold": "5", "text": ""}, "line 2: gold of problem 'a' differs from its earlier lines"),
        (A | {"text": "", "sample_index": 0}, "line 2: problem 'a' has sample_index 0 twice"),
        ("[" * 100_000, "line 2: not JSON"),
    ],
)  # fmt: skip
def test_a_bad_line_is_refused_by_number_and_nothing_is_imported(tmp_path: Path, row: object, says: str) -> None:
    file = write(tmp_path / "x.jsonl", [LINES[0], row])
    with pytest.raises(UserError) as caught:
        load(file, tmp_path / "run")
    assert says in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_missing_empty_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file 'nowhere\.jsonl'"):
        load(Path("nowhere.jsonl"), tmp_path / "run")
    with pytest.raises(UserError, match="holds no completions"):
        load(write(tmp_path / "x.jsonl", [""]), tmp_path / "run")
    (tmp_path / "y.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as UTF-8"):
        load(tmp_path / "y.jsonl", tmp_path / "run")
    (tmp_path / "z.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "z.jsonl.gz", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_importing_twice_into_one_folder_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", LINES)
    load(file, tmp_path / "run")
    with pytest.raises(UserError, match="already holds this import"):
        load(file, tmp_path / "run")


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    load(write(tmp_path / "x.jsonl", LINES), tmp_path / "run")
    (part,) = (tmp_path / "run" / "completions").iterdir()
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(UserError, match=r"000000-[0-9a-f]{16}.parquet' cannot be read"):
        open_run(tmp_path / "run").completions()
    assert not all(finding.ok for finding in examine_run(tmp_path / "run"))
