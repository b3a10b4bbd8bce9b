"""What a sweep does beside its runs: speeds measured, a report for each panel, and fields changed where it is typed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import write_plugins
from typer.testing import CliRunner, Result

from harness.analysis.summary import RunSummary
from harness.cli import app
from harness.errors import UserError
from harness.sweeping.sweep import Cell, read_sweep

FILE = """
name = "little"
selector = ["coverage"]

[defaults]
samples = 2

[[model]]
model = "mine.py:adder"
label = "big.one"
panel = "big"

[[model]]
model = "mine.py:adder"
label = "big.two"
panel = "big"
engine_arg = ["wrong_every=3"]

[[model]]
model = "mine.py:adder"
label = "small"
panel = "small"

[[task]]
task = "mine.py:sums"
task_arg = ["num_problems=2"]
"""

SPEED = """
name = "speeds"
selector = ["coverage"]

[defaults]
samples = 2
limit = 2
max_tokens = 6
engine = "native"

[[model]]
model = "zoo/teacher"

[[model]]
model = "zoo/llamba"

[[model]]
model = "zoo/teacher"
label = "again"

[[task]]
task = "arithmetic"

[speed]
batch = [2, 1, 2]
prompt = 8
generate = 8
passes = 1
repeats = 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_plugins(tmp_path)
    (tmp_path / "sweep.toml").write_text(FILE)
    return tmp_path


def sweep(*more: str) -> Result:
    return CliRunner().invoke(app, ["sweep", "sweep.toml", "--quiet", *more])


def cells(*changes: str) -> dict[str, Cell]:
    return {cell.label: cell for cell in read_sweep(Path("sweep.toml"), changes=changes).cells}


def refused(done: Result) -> str:
    assert isinstance(done.exception, UserError), done.output
    return str(done.exception)


def test_every_speed_is_measured_once_kept_and_drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sweep.toml").write_text(SPEED)
    drawn: list[list[str]] = []

    def write(summaries: Sequence[RunSummary], out: Path, material: Any) -> list[Path]:
        drawn.append([table.facts["model"] for table in material.timings])
        return []

    monkeypatch.setattr("harness.sweeping.sweep_report.write_reports", write)
    assert sweep().exit_code == 0
    # "again" is the first model once more, under another name.
    tables = sorted(path.parent.name for path in folder.glob("results/speeds/speed/*/timings.parquet"))
    assert tables == ["zoo-llamba", "zoo-teacher"]
    facts = json.loads((folder / "results/speeds/speed/zoo-llamba/timings.json").read_text())
    assert (facts["model"], facts["engine"]["engine"]) == ("zoo/llamba", "native")
    assert facts["grid"]["batches"] == [1, 2]
    assert facts["grid"]["contexts"] == [8, 12, 16]
    assert drawn == [["zoo/teacher", "zoo/llamba"]]

    def measuring(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("harness.sweeping.sweep_speed.measure_arm", measuring)
    assert sweep().exit_code == 0
    said = refused(sweep("--set", "speed.generate=16"))
    assert "was measured with contexts [8, 12, 16], and [speed] asks for [8, 16, 24]" in said
    (folder / "results/speeds/speed/zoo-llamba/timings.json").unlink()

    def failing(*_: object) -> None:
        raise UserError("the device is gone")

    monkeypatch.setattr("harness.sweeping.sweep_speed.measure_arm", failing)
    done = sweep()
    assert done.exit_code == 1
    assert "ttc: speed of zoo-llamba: the device is gone" in done.output


def test_the_report_shows_the_speeds(folder: Path) -> None:
    (folder / "sweep.toml").write_text(SPEED[: SPEED.index("[[model]]")] + SPEED[SPEED.rindex("[[model]]") :])
    assert sweep("--set", "again.panel=only").exit_code == 0
    assert (folder / "results/speeds/report/speed.png").is_file()
    assert not (folder / "results/speeds/report/only").exists()


def test_a_grid_may_come_from_the_command_line_alone(folder: Path) -> None:
    assert read_sweep(Path("sweep.toml")).grid is None
    grid = read_sweep(Path("sweep.toml"), changes=["speed.batch=[4, 1]", "speed.generate=32"]).grid
    assert grid is not None
    assert (grid.batches, grid.prompts, grid.generated) == ((1, 4), (512,), 32)


def test_each_panel_has_a_report_that_begins_with_its_own_first_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: dict[str, list[str]] = {}

    def write(summaries: Sequence[RunSummary], out: Path, _: object) -> list[Path]:
        reports[str(out.relative_to("results/little"))] = [summary.run for summary in summaries]
        return []

    monkeypatch.setattr("harness.sweeping.sweep_report.write_reports", write)
    assert sweep().exit_code == 0
    assert reports == {
        "report": ["sums-big.one", "sums-big.two", "sums-small"],
        "report/big": ["sums-big.one", "sums-big.two"],
        "report/small": ["sums-small"],
    }
    reports.clear()
    assert sweep("--set", "small.panel=big", "--set", "small.seed=0").exit_code == 0
    assert list(reports) == ["report"]
    without = FILE.replace('panel = "small"\n', "")
    (folder / "sweep.toml").write_text(without)
    assert sweep().exit_code == 0
    assert reports["report/rest"] == ["sums-small"]


@pytest.mark.parametrize(
    ("changes", "samples", "seeds"),
    [
        (["samples=8"], [8, 8, 8], [0, 0, 0]),
        (["samples=8", "big.one.samples=4"], [4, 8, 8], [0, 0, 0]),
        (["sums.seed=3", "big.two.seed=5", "seed=2"], [2, 2, 2], [3, 5, 3]),
        (["big.two.max-tokens=9", "max_tokens=7"], [2, 2, 2], [0, 0, 0]),
    ],
)
def test_the_narrower_change_stands(folder: Path, changes: list[str], samples: list[int], seeds: list[int]) -> None:
    found = cells(*changes)
    assert list(found) == ["big.one", "big.two", "small"]
    assert [cell.asked.samples for cell in found.values()] == samples
    assert [cell.asked.sampling.seed for cell in found.values()] == seeds
    if "max_tokens=7" in changes:
        assert [cell.asked.sampling.max_tokens for cell in found.values()] == [7, 9, 7]


def test_values_are_written_as_in_the_file(folder: Path) -> None:
    found = cells("big.one.engine_arg={ wrong_every = 5 }", "small.engine_arg=wrong_every=4", 'sums.stop=["a", "b"]')
    assert found["big.one"].arm.options == ("wrong_every=5",)
    assert found["small"].arm.options == ("wrong_every=4",)
    assert found["small"].asked.sampling.stop == ("a", "b")
    assert str(cells("budget=60s")["small"].asked.budget) == "60s"


def test_another_checkpoint_or_data_set_may_stand_under_a_label(folder: Path) -> None:
    found = cells("small.model=./mine.py:adder", "small.shape=preset/llamba-1b", "sums.problems=7")
    assert (found["small"].arm.model, found["small"].shape) == ("./mine.py:adder", "preset/llamba-1b")
    assert found["small"].name == "sums-small"
    assert found["big.one"].problems == 7


def test_what_is_the_same_for_all_may_be_changed(folder: Path) -> None:
    read = read_sweep(
        Path("sweep.toml"),
        changes=["name=other", 'selector=["majority", "coverage"]', "selector_arg=[]", "plan.prompt_tokens=5"],
    )
    assert (read.folder, read.selectors) == (Path("results/other"), ("majority", "coverage"))
    assert read.assumed == {"prompt_tokens": 5}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("samples", "--set wants FIELD=VALUE or LABEL.FIELD=VALUE, got 'samples'; write for example limit=2"),
        ("samplez=3", "--set samplez has no field 'samplez'; it has base_url, budget, data, "),
        ("samples=0", "--set samples: samples must be at least 1, got 0"),
        ("samples=many", "--set samples: samples wants a whole number, got 'many'"),
        (
            "tiny.samples=3",
            "--set tiny.samples: nothing is labelled 'tiny'; there is big.one, big.two, plan, small, speed",
        ),
        ("small.selector=first", "--set small.selector has no field 'selector'; it has base_url, "),
        ("small.problems=3", "--set small.problems has no field 'problems'"),
        ("sums.shape=preset/llamba-1b", "--set sums.shape has no field 'shape'"),
        ("speed.batches=3", "--set speed.batches has no field 'batches'; it has batch, context, generate, "),
        ("speed.batch=[1, 0]", "--set speed.batch: batch must be at least 1, got 0"),
        ("plan.device=H100", "--set plan.device has no field 'device'; it has completion_tokens, hardware, "),
        ("budget=60", "--set budget: budget wants a text, got 60"),
        ("small.engine_arg=wrong=2", "model mine.py:adder takes no option 'wrong'; it takes wrong_every"),
    ],
)
def test_a_change_that_means_nothing_is_refused_in_a_sentence(folder: Path, change: str, says: str) -> None:
    said = refused(sweep("--dry-run", "--set", change))
    assert says in said
    assert "\n" not in said
