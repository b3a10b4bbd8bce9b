"""Runs that are killed, disks that fail or forget, records that are damaged: nothing is lost, doubled or made up.

With TTC_KILLS=200 in the environment there are so many kills, with TTC_EVERY_FAULT=1 every fault at every place.
"""

import contextlib
import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from broken_disks import CODES, FAILING, Faulty, PowerCutError, Volatile
from crash_runs import Script, again, bench, failed, hasten, problems_with, quiet, stored
from fakes import FakeClock

from harness.errors import UserError
from harness.storage.runs import Run, open_run

KILLS = Path(__file__).parent / "benchmarks" / "kills.py"
EVERY = "TTC_EVERY_FAULT" in os.environ
JUDGE = ("judge",)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script(FakeClock())
    hasten(monkeypatch.setattr, quiet, script)
    return script


def test_killed_anywhere_a_run_goes_on_as_if_nothing_had_been() -> None:
    kills = os.environ.get("TTC_KILLS", "50")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(KILLS), "--kills", kills], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["failures"] == {}
    assert sum(told["stages"].values()) == int(kills)
    assert len(told["stages"]) >= 5


@pytest.mark.parametrize(("protocol", "judges"), [("latency", JUDGE), ("throughput", JUDGE), ("latency", ())])
def test_what_was_stored_outlives_a_power_cut(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch, protocol: str, judges: tuple[str, ...]
) -> None:
    """The power is cut before each call that stores; what was not synced by then is there or not, as it happens."""
    add, kept = Run.add_completions, set[tuple[str, int]]()

    def noted(run: Run, completions: Any, segment: int = 0) -> None:
        add(run, completions, segment)
        kept.update((row.problem_id, row.sample_index) for row in completions)

    monkeypatch.setattr(Run, "add_completions", noted)
    step = 1 if EVERY else 11
    for number in itertools.count(1, step):
        kept.clear()
        disk = tmp_path / f"disk-{number}"
        disk.mkdir()
        volatile = Volatile(disk, number)
        with monkeypatch.context() as patch:
            patch.setattr("harness.storage.storing.os", volatile)
            with contextlib.suppress(PowerCutError):
                bench(disk / "run", script, protocol, judges)
        acknowledged = set(kept)
        after = tmp_path / f"after-{number}"
        volatile.after_the_cut(after, random.Random(number))
        there = stored(after / "run")
        assert acknowledged <= {row[:2] for row in there}, number
        run = again(after / "run", script, protocol, judges)
        assert problems_with(run, bool(judges)) == [], number
        assert there <= stored(after / "run"), number
        assert failed(after / "run") == [], number
        if volatile.count < number:
            break
    assert number > 60, "too few calls were cut"


def sentence_of(path: Path, script: Script) -> str | None:
    """What a bench says when it ends in a sentence."""
    try:
        bench(path, script, "latency", JUDGE)
    except UserError as error:
        return str(error)
    return None


def faults() -> list[tuple[str, int, bool]]:
    """Which functions fail, with which error, once or for good."""
    every = list(itertools.product(FAILING, CODES, (False, True)))
    return every if EVERY else [every[place] for place in (0, 3, 5, 8, 10, 13, 14, 17, 18, 25)]


@pytest.mark.parametrize(("function", "code", "for_good"), faults())
def test_a_disk_that_fails_ends_the_run_in_one_sentence_and_spoils_nothing(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch, function: str, code: int, for_good: bool
) -> None:
    """The n-th call fails, for every n until the run succeeds."""
    step = 1 if EVERY else 4
    for number in itertools.count(1, step):
        path = tmp_path / f"run-{number}"
        disk = Faulty(function, number, code, for_good)
        with monkeypatch.context() as patch:
            patch.setattr("harness.storage.storing.os", disk)
            sentence = sentence_of(path, script)
        assert (sentence is not None) == disk.struck, number
        if sentence is not None:
            assert os.strerror(code) in sentence
            assert "type the same command" in sentence
            assert "\n" not in sentence
        before = stored(path)
        run = again(path, script, "latency", JUDGE)
        assert problems_with(run, True) == [], number
        assert before <= stored(path), number
        assert failed(path) == [], number
        if not disk.struck:
            break
    assert number > (4 if function == "mkdir" else 8)


@pytest.mark.parametrize("protocol", ["latency", "throughput"])
@pytest.mark.parametrize("stop_at", [1, 2, 3, 4])
def test_a_bench_that_ended_in_its_last_scoring_scores_the_rest(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch, protocol: str, stop_at: int
) -> None:
    """Every completion is stored; what the reward model has not seen is not lost."""
    count = itertools.count(1)

    class Stubborn:
        name, max_batch_size = "stubborn", 5

        def score(self, prompt: object, completions: list[str]) -> list[float]:
            if completions[0].startswith("step") and next(count) == stop_at:
                raise KeyboardInterrupt
            return [0.5] * len(completions)

    monkeypatch.setattr("harness.plugins.load_reward_model", lambda *_: Stubborn())
    with pytest.raises(KeyboardInterrupt):
        bench(tmp_path / "run", script, protocol, JUDGE)
    run = again(tmp_path / "run", script, protocol, JUDGE)
    assert problems_with(run, judges=True) == []
    assert [segment["status"] for segment in run.manifest["segments"]] == ["interrupted", "finished"]
    assert again(tmp_path / "run", script, protocol, JUDGE).manifest["segments"] == run.manifest["segments"]


def test_a_killed_sitting_is_charged_what_it_is_known_to_have_sampled() -> None:
    import pyarrow as pa

    from harness.storage.records import TIMING, table_of
    from harness.storage.resuming import close_killed

    manifest = {"spec": {"protocol": "latency"}, "segments": [{"segment": 0, "status": "running"}]}
    timing = table_of([{"segment": 0, "phase": "generate", "problem_id": "a", "elapsed_s": 4.0}], TIMING)
    rows = {"problem_id": ["a", "b", "b"], "segment": [0, 0, 1], "finished_s": [3.5, 2.0, 5.0]}
    close_killed(manifest, timing, pa.table(rows))
    # Problem a by its timing; of b nothing is known after 2 s, and the second sitting is not the first's.
    assert manifest["segments"] == [{"segment": 0, "status": "killed", "generate_s": 6.0}]
    manifest["segments"] = [{"segment": 1, "status": "running"}]
    close_killed(manifest, timing, pa.table(rows))
    assert manifest["segments"] == [{"segment": 1, "status": "killed", "generate_s": 3.0}]


LOCKED = """
import os, sys, time
from pathlib import Path
from harness.storage.locking import writing
with writing(Path(sys.argv[1])):
    if os.fork() == 0:
        print("held", flush=True)
        sys.stdin.read()
        os._exit(0)
    time.sleep(600)
"""


def test_the_lock_dies_with_its_process_even_when_a_child_lives_on(tmp_path: Path) -> None:
    from harness.storage.locking import is_being_written, writing

    command = [sys.executable, "-c", LOCKED, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        assert is_being_written(tmp_path / "run")
        with pytest.raises(UserError, match=rf"process {other.pid}\) is writing"), writing(tmp_path / "run"):
            pass
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        with writing(tmp_path / "run"):
            pass
        other.stdin.close()


STOPPED = """
import sys, time
from harness.running.interrupts import stoppable
sys.argv = ["ttc", "bench", "a model", "--out", "x"]
with stoppable():
    try:
        print("working", flush=True)
        time.sleep(600)
    finally:
        print("storing", flush=True)
        if {slow}:
            time.sleep(600)
print("never")
"""


@pytest.mark.parametrize("slow", [False, True])
def test_ctrl_c_once_stops_cleanly_and_twice_at_once(slow: bool) -> None:
    command = [sys.executable, "-c", STOPPED.format(slow=slow)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A test run in the background is told to ignore Ctrl-C, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "storing\n"
        if slow:
            process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert rest == ""
    assert "Ctrl-C again stops at once" in errors
    assert ("stopped at once" in errors) == slow
    assert ("type the same command to go on:\n  ttc bench 'a model' --out x\n" in errors) == (not slow)
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.EROFS, r"cannot write in '.*run' \(Read-only file system\); make it writable"),
        (errno.EACCES, r"cannot write in '.*run' \(Permission denied\); make it writable"),
        (errno.ENOLCK, "has no locks; mount it with them"),
        (errno.ESTALE, r"\(Stale file handle\); see to the disk or the network"),
    ],
)
def test_a_folder_that_cannot_be_locked_is_told(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    def refuse(path: Path) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("harness.storage.locking.lock", refuse)
    with pytest.raises(UserError, match=told):
        bench(tmp_path / "run", script, "latency")
    assert not (tmp_path / "run").exists()


def test_a_file_system_that_vanishes_ends_a_command_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness import cli

    def vanish(path: Path) -> Run:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr("harness.storage.runs.open_run", vanish)
    monkeypatch.setattr("sys.argv", ["ttc", "show", "far/away"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ttc: the file system failed at 'far/away' (Stale file handle); what was stored before is")


@pytest.mark.parametrize("kind", ["completions", "verdicts", "scores"])
def test_an_import_that_was_killed_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    from harness.importing import import_file

    file = tmp_path / "recorded.jsonl"
    line = {"problem_id": "a", "gold": "4", "text": "#### 4", "reward": 0.5}
    file.write_text("".join(json.dumps(line | {"sample_index": index}) + "\n" for index in range(3)))

    def killed(run: Run, rows: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(Run, f"add_{kind}", killed)
        with pytest.raises(PowerCutError):
            import_file(file, "gsm8k", [], None, tmp_path / "run", "x", False)
    assert open_run(tmp_path / "run").manifest["validity"]["verdict"] == "INVALID"
    run, counts = import_file(file, "gsm8k", [], None, tmp_path / "run", "x", False)
    assert counts == {"correct": 3}
    assert (len(run.completions()), len(run.verdicts()), len(run.scores())) == (3, 3, 3)
    assert failed(tmp_path / "run") == []
    with pytest.raises(UserError, match="already holds this import"):
        import_file(file, "gsm8k", [], None, tmp_path / "run", "x", False)
