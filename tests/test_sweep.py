"""Sweeps: the file is checked whole, every pair is a run of its own, and the same command goes on where it stopped."""

import io
import json
from pathlib import Path

import pytest
from fakes import write_plugins
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.errors import UserError
from harness.storage.runs import open_run
from harness.sweeping.sweep import read_sweep

FILE = """
name = "little"
selector = ["coverage", "majority"]

[defaults]
samples = 4
max-tokens = 50

[[model]]
model = "mine.py:adder"

[[model]]
model = "mine.py:adder"
label = "sure"
engine_arg = { wrong_every = 4 }
seed = 7

[[task]]
task = "mine.py:sums"
task_arg = ["num_problems=3"]

[[task]]
task = "mine.py:sums"
label = "more"
task_arg = { num_problems = 5 }
samples = 2
"""
RUNS = ["sums-adder", "more-adder", "sums-sure", "more-sure"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_plugins(tmp_path)
    (tmp_path / "sweep.toml").write_text(FILE)
    return tmp_path


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take long, and are looked at in one test."""
    monkeypatch.setattr("harness.sweeping.sweep_report.write_reports", lambda *_: [])


def sweep(*more: str) -> Result:
    return CliRunner().invoke(app, ["sweep", "sweep.toml", "--quiet", *more])


def states() -> dict[str, str]:
    plan = json.loads(sweep("--dry-run", "--json").stdout)
    return {Path(run["run"]).name: run["state"] for run in plan["runs"]}


def test_models_override_tasks_and_tasks_the_defaults(folder: Path) -> None:
    read = read_sweep(Path("sweep.toml"))
    assert [cell.name for cell in read.cells] == RUNS
    by_name = {cell.name: cell for cell in read.cells}
    assert by_name["sums-adder"].asked.samples == 4
    assert by_name["more-sure"].asked.samples == 2
    assert by_name["more-sure"].asked.sampling.seed == 7
    assert by_name["more-sure"].asked.task_options == ("num_problems=5",)
    assert by_name["sums-sure"].arm.options == ("wrong_every=4",)
    assert by_name["sums-adder"].asked.sampling.max_tokens == 50
    assert str(by_name["sums-adder"].arm.path) == "results/little/sums-adder"


def test_every_pair_is_a_run_and_all_are_reported_together(folder: Path) -> None:
    (folder / "sweep.toml").write_text(FILE[: FILE.rindex("[[task]]")])
    done = sweep("--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [run["run"] for run in document["runs"]] == ["sums-adder", "sums-sure"]
    assert {run["problems"] for run in document["runs"]} == {3}
    assert {curve["selector"] for run in document["runs"] for curve in run["curves"]} == {"coverage", "majority"}
    assert (folder / "results/little/report/index.html").is_file()
    assert len(open_run(folder / "results/little/sums-sure").completions()) == 12


@pytest.mark.usefixtures("no_report")
def test_finished_runs_are_skipped_and_an_unfinished_one_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness import plugins
    from harness.running import bench

    loaded: list[str] = []
    load, bench_arm = plugins.load_model, bench.bench_arm

    def counted(model: str, engine: str, options: tuple[str, ...]) -> object:
        loaded.append(model)
        if len(loaded) == 3:
            raise KeyboardInterrupt
        return load(model, engine, options)

    assert states() == dict.fromkeys(RUNS, "new")
    monkeypatch.setattr("harness.plugins.load_model", counted)
    assert sweep().exit_code == 130
    assert list(states().values()) == ["finished", "finished", "new", "new"]
    before = (folder / "results/little/sums-adder/manifest.json").read_bytes()
    assert sweep().exit_code == 0
    assert len(loaded) == 5
    assert (folder / "results/little/sums-adder/manifest.json").read_bytes() == before
    assert states() == dict.fromkeys(RUNS, "finished")
    assert bench.bench_arm is bench_arm


@pytest.mark.usefixtures("no_report")
def test_a_run_that_fails_is_told_and_the_others_are_made(folder: Path) -> None:
    (folder / "sweep.toml").write_text(FILE + '\n[[task]]\ntask = "broken.py:broken"\n')
    (folder / "broken.py").write_text("def broken() -> object:\n    raise OSError('no such data')\n")
    done = sweep()
    assert done.exit_code == 1
    assert "broken-adder: task broken.py:broken raised OSError: no such data" in done.output
    assert (folder / "results/little/more-sure/manifest.json").is_file()


@pytest.mark.usefixtures("no_report")
def test_a_file_that_was_changed_does_not_mix_with_its_runs(folder: Path) -> None:
    assert sweep().exit_code == 0
    (folder / "sweep.toml").write_text(FILE.replace("samples = 4", "samples = 8"))
    done = CliRunner().invoke(app, ["sweep", "sweep.toml", "--dry-run"])
    assert isinstance(done.exception, UserError)
    assert "holds a run with samples = 4, not 8" in str(done.exception)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("samples = 4", "samplez = 4", r"\[defaults\] has no field 'samplez'; it has base_url, budget, data, "),
        ("samples = 4", "samples = 0", r"\[defaults\]: samples must be at least 1, got 0"),
        ("samples = 4", 'samples = "4"', r"samples wants a whole number, got '4'"),
        ("samples = 4", "top_p = 1.5", "top_p must lie above 0 and at most 1, got 1.5"),
        ("samples = 4", 'protocol = "fast"', "protocol wants latency or throughput, got 'fast'"),
        ("samples = 4", 'budget = "60"', "model 'mine.py:adder' on task 'mine.py:sums': the budget '60' has no unit"),
        (
            "samples = 4",
            'reward_model = "zoo/orm"\nreward_arg = ["x=1"]',
            "no reward model among zoo/orm takes .*'x=1'",
        ),
        ("seed = 7", "workers = 0", r"model\[1\]: workers must be at least 1"),
        ("wrong_every = 4", "wrong = 4", "model mine.py:adder takes no option 'wrong'; it takes wrong_every"),
        ("num_problems = 5", "problems = 5", "task mine.py:sums takes no option 'problems'"),
        ('label = "more"', "", "two runs would share the folder 'sums-adder'; give a "),
        ('label = "more"', 'data = "x.jsonl"', "task mine.py:sums reads no data file; leave out data = 'x.jsonl'"),
        ('task = "mine.py:sums"', "", r"task\[0\] names no task"),
        ("[[model]]", "[[modle]]", "has no field 'modle'; it has defaults, model, name, "),
        ("[[model]]", "[model]", "'sweep.toml' is no TOML"),
        ('name = "little"', "nam = 3", "has no field 'nam'; it has defaults, model, name, "),
        ('name = "little"', 'ray_address = "auto"', "add workers = N"),
        ("[defaults]", "defaults = 5", "defaults wants a table"),
        ("[defaults]", "[defaults", "'sweep.toml' is no TOML"),
    ],
)
def test_every_field_is_checked_before_anything_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, says: str
) -> None:
    def loading(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("harness.plugins.load_model", loading)
    monkeypatch.setattr("harness.plugins.load_task", loading)
    (folder / "sweep.toml").write_text(FILE.replace(old, new, 1))
    with pytest.raises(UserError, match=says):
        read_sweep(Path("sweep.toml"))


def test_a_sweep_of_no_file_or_no_model(folder: Path) -> None:
    (folder / "sweep.toml").write_text('[[task]]\ntask = "mine.py:sums"\n')
    with pytest.raises(UserError, match=r"sweep.toml has no \[\[model\]\]; write at least one"):
        read_sweep(Path("sweep.toml"))
    with pytest.raises(UserError, match=r"cannot read the sweep 'no.toml' \(No such file"):
        read_sweep(Path("no.toml"))


def test_the_table_shows_what_matters_of_a_long_sweep(folder: Path) -> None:
    from rich.console import Console

    from harness.sweeping.sweep_board import Board

    many = "".join(f'\n[[task]]\ntask = "mine.py:sums"\nlabel = "t{n}"\n' for n in range(30))
    (folder / "sweep.toml").write_text(FILE + many)
    cells = read_sweep(Path("sweep.toml")).cells
    board = Board(cells, ["finished"] * 20 + ["new"] * 44, quiet=True)
    with board.show(cells[20])("sampling adder", 12) as row:
        row.update(3, "50% correct")
    board.is_live = True
    with board.show(cells[20])("sampling adder", 12) as row:
        row.update(3, "50% correct")
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(board.table())
        shown = console.export_text()
    assert "20 of 64 runs finished" in shown
    assert "sampling 3/12" in shown
    assert "50% correct" in shown
    assert len(shown.splitlines()) <= 2 + 24
