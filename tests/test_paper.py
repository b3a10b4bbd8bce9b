"""The paper's experiment at its own size, rehearsed: every step on tiny random checkpoints in the published formats."""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas
import pytest
from published_checkpoints import MODELS, OUTCOME, PROCESS, write_all
from typer.testing import CliRunner, Result

from harness import plugins
from harness.cli import app
from harness.storage.runs import open_run
from harness.sweeping.sweep import paper_file, read_sweep

SMALL = (
    "engine=native", "limit=2", "samples=4", "max_tokens=16", "math500.data=math500.jsonl", "gsm8k.data=gsm8k.jsonl",
    "speed.batch=[1, 2]", "speed.prompt=16", "speed.generate=16", "speed.passes=2", "speed.repeats=1",
)  # fmt: skip
"""What makes a full-size experiment a rehearsal; everything else is as the file says."""
LABELS = {
    "1B": ["Llama-1B", "Llamba-1B", "MambaInLlama-1B-distilled", "MambaInLlama-1B-SFT"],
    "3B": ["Llama-3B", "Llamba-3B", "MambaInLlama-3B-distilled", "MambaInLlama-3B-SFT"],
}
RUNS = [f"{task}-{label}" for panel in LABELS.values() for label in panel for task in ("math500", "gsm8k")]
RESULTS = Path("results/thinking-slow-fast")


def paper(*more: str) -> Result:
    changes = [part for change in SMALL for part in ("--set", change)]
    return CliRunner().invoke(app, ["paper", "--scale", "full", "--quiet", "--json", *changes, *more])


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The plan, and what the command prints; the folder that stands for the hub is the current one."""
    folder = tmp_path_factory.mktemp("hub")
    write_all(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("harness.reporting.FORMATS", ("png",))
        planned = paper("--dry-run")
        assert planned.exit_code == 0, planned.output
        assert not RESULTS.exists()
        done = paper()
        assert done.exit_code == 0, done.output
        yield {"plan": json.loads(planned.stdout), "done": json.loads(done.stdout)}


def test_the_file_is_read_as_it_ships() -> None:
    read = read_sweep(paper_file("full"))
    assert [cell.name for cell in read.cells] == RUNS
    assert list(dict.fromkeys(cell.arm.model for cell in read.cells)) == list(MODELS)
    assert {cell.asked.reward_models for cell in read.cells} == {(PROCESS, OUTCOME)}
    assert {cell.arm.engine for cell in read.cells} == {"vllm"}
    assert read.panels == ["1B", "3B"]
    assert read.grid is not None
    assert max(read.grid.batches) == 512


def test_every_command_of_the_page_means_something() -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "paper.md"
    lines = re.findall(r"^    (ttc paper .*)$", page.read_text().replace("\\\n", " "), re.MULTILINE)
    commands = [shlex.split(line, comments=True) for line in lines]
    assert sum("--set" in command for command in commands) >= 4
    for command in commands:
        changes = [value for option, value in pairwise(command) if option == "--set"]
        if changes:
            read = read_sweep(paper_file("full"), changes=changes)
            plugins.load_selectors(read.selectors, read.selector_options)


@pytest.mark.slow
def test_the_dry_run_counts_every_prompt_and_shape(rehearsal: dict[str, Any]) -> None:
    rows = rehearsal["plan"]["runs"]
    assert [Path(row["run"]).name for row in rows] == RUNS
    for row in rows:
        assert (row["problems"], row["prompts"], row["prompt_tokens_counted"]) == (2, "built", True)
        assert (row["shape"], row["state"], row["engine"]) == ("config", "new", "native")
        assert row["hours_at_most"] >= row["hours"] > 0
        assert row["scoring_hours"] > 0
    files = [file for name in (*MODELS, PROCESS, OUTCOME) for file in Path(name).glob("*.safetensors")]
    assert rehearsal["plan"]["total"]["weight_bytes"] == sum(file.stat().st_size for file in files)
    assert rehearsal["plan"]["total"]["speed_hours"] > 0


@pytest.mark.slow
def test_every_run_is_whole_valid_and_scored_by_both_reward_models(rehearsal: dict[str, Any]) -> None:
    assert [run["run"] for run in rehearsal["done"]["runs"]] == RUNS
    for name in RUNS:
        run = open_run(RESULTS / name)
        rows = run.completions()
        asked = {(row["problem_id"], row["sample_index"]) for row in rows}
        assert (len(rows), len(asked), run.manifest["missing"]) == (8, 8, 0)
        assert {row["finish_reason"] for row in rows} <= {"stop", "length"}
        assert (run.manifest["engine"]["dtype"], run.manifest["engine"]["state_dtype"]) == ("bfloat16", "float32")
        for judge, low, high in ((PROCESS, 0.0, 1.0), (OUTCOME, -1e3, 1e3)):
            scored = [row for row in run.scores() if row["reward_model"] == judge]
            assert {(row["problem_id"], row["sample_index"]) for row in scored} == run.scored(judge)
            blank = run.manifest["reward_models"][judge == OUTCOME]["model"]["blank"]
            assert len(scored) == 8
            assert sum(not row["scores"] for row in scored) == blank
            assert all(low <= score <= high for row in scored for score in row["scores"])
            assert all(row["scored_s"] is not None for row in scored), "scored inside the clock"


@pytest.mark.slow
def test_every_model_has_a_speed_table(rehearsal: dict[str, Any]) -> None:
    for label in (*LABELS["1B"], *LABELS["3B"]):
        cells = pandas.read_parquet(RESULTS / "speed" / label / "timings.parquet")
        decode = cells[cells["phase"] == "decode"]
        assert set(zip(decode["batch"], decode["context"], strict=True)) == {
            (b, c) for b in (1, 2) for c in (16, 24, 32)
        }
        assert (cells["seconds"] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("panel", ["", "1B", "3B"])
def test_the_report_and_its_panels_have_every_figure(rehearsal: dict[str, Any], panel: str) -> None:
    folder = RESULTS / "report" / panel
    there = {path.name for path in folder.iterdir()}
    tasks = ("math500", "gsm8k")
    for task in tasks:
        assert {f"accuracy-{axis}-{task}.png" for axis in ("seconds", "flops", "tokens", "k")} <= there
        assert {f"comparison-{task}.png", f"pareto-seconds-{task}.png", f"scoring-time-{task}.png"} <= there
    assert {"speed.png", "multiples-coverage.png", "multiples-majority.png"} <= there
    assert {"table.tex", "table.md", "points.csv", "caption.txt", "index.html"} <= there
    points = pandas.read_csv(folder / "points.csv")
    expected = LABELS[panel] if panel else [*LABELS["1B"], *LABELS["3B"]]
    assert list(dict.fromkeys(points["run"])) == [f"{task}-{label}" for label in expected for task in tasks]
    kinds = {(kind, judge) for kind in ("best_of_n", "weighted_majority") for judge in (PROCESS, OUTCOME)}
    wanted = {"coverage", "majority", *(f"{kind} by {judge}" for kind, judge in kinds)}
    assert wanted <= set(points["selector"])


@pytest.mark.slow
def test_the_same_command_makes_nothing_again(rehearsal: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("harness.plugins.load_model", again)
    monkeypatch.setattr("harness.sweeping.sweep_speed.measure_arm", again)
    monkeypatch.setattr("harness.sweeping.sweep_report.write_reports", lambda *_: [])
    before = {path: path.stat().st_mtime_ns for path in RESULTS.rglob("*") if path.is_file()}
    done = paper()
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == rehearsal["done"]
    kept = {path: stamp for path, stamp in before.items() if path.name != ".lock"}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    states = {row["state"] for row in json.loads(paper("--dry-run").stdout)["runs"]}
    assert states == {"finished"}
