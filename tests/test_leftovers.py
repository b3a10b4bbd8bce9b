"""What a killed process leaves in folders of reports, exports, imports and timing tables: the next one clears it."""

import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recorded_runs import write_run

from harness.errors import UserError
from harness.exporting.export import export_run
from harness.importing import import_file
from harness.storage.integrity import examine_run
from harness.storage.replacing import PART, clear_parts, replace_file
from harness.storage.runs import Run, open_run
from harness.timing.timing_tables import Cell, TimingTable, read_timings, write_timings

ROOT = Path(__file__).resolve().parents[1]
KILLED = """
import itertools, os, signal, sys
from pathlib import Path
whole, count = os.replace, itertools.count(1)
def replace(*given):
    if next(count) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    whole(*given)
os.replace = replace
{work}
"""
COMMAND = "from harness.cli import main; sys.argv = {argv!r}; main()"
REPLACED = "from harness.storage.replacing import replace_file; replace_file(Path({path!r}), 'half of it')"
MEASURED = """
from harness.timing.timing_tables import Cell, TimingTable, write_timings
cell = Cell("decode", 1, 16, 2.0, 2.0, 2.0, 4, 3)
write_timings(Path({folder!r}), TimingTable((cell,), {{"model": "new", "engine": {{}}}}))
"""


def killed_at(number: int, work: str) -> bool:
    """Have a process do the work that is killed at its n-th rename, counted from 1; whether it came so far."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED.format(number=number, work=work)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


@pytest.fixture
def run(tmp_path: Path) -> Run:
    times = np.array([[1.0, 2.0], [2.0, 1.0]])
    return write_run(tmp_path, "run", times > 1.5, times)


def test_the_next_report_takes_away_what_a_killed_one_left(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness import plugins
    from harness.analysis.summarise import summarise_all
    from harness.reporting import write_reports

    out = tmp_path / "report"
    (out / "problems").mkdir(parents=True)
    (out / "table.md").write_text("of before")
    for path in (out / "table.md", out / "problems" / "00001.html"):
        assert killed_at(1, REPLACED.format(path=str(path)))
    left = sorted(out.rglob(f".*{PART}"))
    assert [file.parent for file in left] == [out, out / "problems"]
    assert (out / "table.md").read_text() == "of before"
    names = plugins.names
    monkeypatch.setattr(plugins, "names", lambda group: ["tables"] if group == "reports" else names(group))
    written = write_reports(summarise_all([run], plugins.load_selectors(["majority"], [])), out)
    assert {file.name for file in out.iterdir()} == {"problems", *(path.name for path in written)}
    assert list((out / "problems").iterdir()) == []


def test_what_another_process_is_writing_stays_and_so_does_what_is_not_ours(tmp_path: Path) -> None:
    ours, other = tmp_path / f".a.0123{PART}", tmp_path / ".film.mp4.part"
    ours.write_text("half")
    other.write_text("half")
    (tmp_path / f".link{PART}").symlink_to(other)
    with ours.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        clear_parts(tmp_path)
        assert ours.exists()
    clear_parts(tmp_path)
    assert not ours.exists()
    assert other.read_text() == "half"


def test_a_part_that_is_cleared_away_before_it_is_locked_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.storage import replacing

    lock, times = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        times.append(how)
        if len(times) == 1:
            for part in tmp_path.glob(f".*{PART}"):
                part.unlink()
        lock(descriptor, how)

    monkeypatch.setattr(replacing.fcntl, "flock", late)
    assert replace_file(tmp_path / "a", "whole").read_text() == "whole"
    assert len(times) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("form", ["lm-eval", "inspect", "datasets"])
def test_an_export_that_was_killed_is_made_whole_by_the_same_command(tmp_path: Path, run: Run, form: str) -> None:
    """Killed before the folder has its name."""
    argv = ["ttc", "export", str(run.path), "--to", form, "--out", str(tmp_path / "out")]
    assert killed_at(1, COMMAND.format(argv=argv))
    assert (tmp_path / ".out.unfinished").is_dir()
    assert not (tmp_path / "out").exists()
    files = export_run(run, form, tmp_path / "out")
    assert all(file.is_file() for file in files)
    assert not (tmp_path / ".out.unfinished").exists()


def table_of(model: str, seconds: float) -> TimingTable:
    cell = Cell("decode", 1, 16, seconds, seconds, seconds, 4, 3)
    return TimingTable((cell,), {"model": model, "engine": {"engine": "native"}})


@pytest.mark.parametrize("at", [1, 2])
def test_a_timing_table_is_never_taken_for_another_models(tmp_path: Path, at: int) -> None:
    """Measured again with another model and killed at each file: no table, or one with its own facts."""
    write_timings(tmp_path, table_of("old", 1.0))
    assert killed_at(at, MEASURED.format(folder=str(tmp_path)))
    with pytest.raises(UserError, match="there is no timing table"):
        read_timings(tmp_path)
    write_timings(tmp_path, table_of("new", 2.0))
    again = read_timings(tmp_path)
    assert (again.facts["model"], again.cells[0].seconds) == ("new", 2.0)
    assert sorted(os.listdir(tmp_path)) == ["timings.json", "timings.parquet"]


@pytest.mark.parametrize(
    ("facts", "changes"),
    [
        ([], {}),
        ({"model": 7, "engine": {}}, {}),
        ({"model": "m"}, {}),
        ({}, {"context": 2**31 - 1}),  # Two such cells would ask for an array of so many numbers.
        ({}, {"seconds": float("nan")}),
        ({}, {"seconds": 0.0}),
        ({}, {"batch": 0}),
        ({}, {"phase": "\x1b[31m"}),
    ],
)
def test_a_forged_timing_table_is_refused(tmp_path: Path, facts: object, changes: dict[str, object]) -> None:
    made = table_of("m", 1.0)
    write_timings(tmp_path, TimingTable((replace(made.cells[0], **changes),), made.facts))
    if facts != {}:
        (tmp_path / "timings.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"measure again with `ttc speed`"):
        read_timings(tmp_path)


def test_a_killed_import_leaves_a_run_that_the_same_command_completes(tmp_path: Path) -> None:
    """Killed at every rename of its files in turn."""
    file = tmp_path / "recorded.jsonl"
    file.write_text('{"problem_id": "a", "gold": "4", "text": "#### 4", "reward": 0.5}\n')
    for number in itertools.count(1):
        out = tmp_path / f"run-{number}"
        argv = ["ttc", "import", str(file), "--task", "gsm8k", "--out", str(out), "--model", "x"]
        if not killed_at(number, COMMAND.format(argv=argv)):
            break
        import_file(file, "gsm8k", [], None, out, "x", False)
        assert [finding.what for finding in examine_run(out) if not finding.ok] == []
        assert not list(out.rglob(".*.unfinished"))
        assert len(open_run(out).completions()) == 1
    assert number > 4
