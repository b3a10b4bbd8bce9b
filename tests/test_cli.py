"""The command line as a user meets it: in a process of its own, from a folder of their own."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import write_plugins

TTC = [str(Path(sys.executable).with_name("ttc"))]
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with rooms of their own beside the plug-in file."""
    for room in ("models", "tasks", "selectors", "reports"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("raise ImportError('this is the user’s own')")
    write_plugins(tmp_path)
    return tmp_path


def ttc(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*TTC, *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


BENCH = ["bench", "./mine.py:adder", "--task", "./mine.py:sums", "--samples", "4", "--budget", "5s", "--out", "run"]


def test_bench_with_the_users_own_task_selector_and_model(folder: Path) -> None:
    done = ttc(folder, *BENCH, "--selector", "coverage", "--selector", "./mine.py:longest", "-T", "num_problems=3")
    assert "run     run" in done.stdout
    for name in (
        "manifest.json",
        "problems.parquet",
        "timing.parquet",
        "report/accuracy-seconds.png",
        "report/points.csv",
    ):
        assert (folder / "run" / name).stat().st_size > 0, name
    # Half of the samples err, so coverage of four is 1; the texts are equally long, so the first decides, and it errs.
    rows = [line for line in done.stdout.splitlines() if line.startswith("./mine.py:adder")]
    assert "coverage" in rows[0]
    assert "100.0" in rows[0]
    assert "longest" in rows[1]
    assert "VALID" in rows[1]


def document(folder: Path, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ttc(folder, *arguments, "--json").stdout)
    return found


def test_json_is_one_document_of_the_agreed_shape(folder: Path) -> None:
    benched = document(folder, *BENCH, "-q")
    selected = document(folder, "select", "run")
    reported = document(folder, "report", "run", "--out", "figures")
    assert benched == selected == reported
    (run,) = selected["runs"]
    assert {key: run[key] for key in ("run", "model", "task", "problems", "samples")} == {
        "run": "run", "model": "./mine.py:adder", "task": "sums", "problems": 4, "samples": 4,
    }  # fmt: skip
    curve = next(c for c in run["curves"] if (c["selector"], c["axis"]) == ("coverage", "k"))
    # Two of four are right: pass@1 = 1/2, pass@2 = 1 - C(2,2)/C(4,2) = 5/6, pass@4 = 1.
    assert [(p["x"], round(p["value"], 6), p["n"]) for p in curve["points"]] == [
        (1, 0.5, 4),
        (2, 0.833333, 4),
        (4, 1.0, 4),
    ]
    assert {c["axis"] for c in run["curves"]} == {"k", "seconds", "flops", "tokens"}
    assert all(0 <= p["low"] <= p["value"] <= p["high"] <= 1 for c in run["curves"] for p in c["points"])
    assert (folder / "figures" / "accuracy.pdf").is_file()


def test_a_smaller_budget_cuts_the_axis_and_a_larger_one_is_refused(folder: Path) -> None:
    ttc(folder, *BENCH, "-q")
    chosen = ("--budget", "2s", "--budget", "1500ms", "--selector", "first")
    (run,) = document(folder, "select", "run", *chosen)["runs"]
    shown = [point["x"] for point in next(c for c in run["curves"] if c["axis"] == "seconds")["points"]]
    assert shown[-1] == 2.0
    assert 1.5 in shown
    assert "goes past the 5s that 'run' was given" in ttc(folder, "select", "run", "--budget", "9s", code=2).stderr


def test_show_list_check_and_doctor(folder: Path) -> None:
    ttc(folder, *BENCH, "-q")
    assert "sums/3" in ttc(folder, "show", "run").stdout
    assert "gold: 6" in ttc(folder, "show", "run", "sums/3").stdout
    assert json.loads(ttc(folder, "show", "run", "3", "--json").stdout)["completions"][1]["verdict"] == "correct"
    assert "has no problem 'x'; it has 4, such as sums/0" in ttc(folder, "show", "run", "x", code=2).stderr
    listed = json.loads(ttc(folder, "list", "--json").stdout)
    assert {"gsm8k", "arithmetic"} <= {entry["name"] for entry in listed["tasks"]}
    assert {"transformers", "replay", "zoo/teacher"} <= {entry["name"] for entry in listed["models"]}
    assert "ok   ids are unique" in ttc(folder, "check", "./mine.py:sums").stdout
    assert "FAIL" not in ttc(folder, "check", "./mine.py:longest").stdout
    assert "FAIL" not in ttc(folder, "check", "majority").stdout
    assert "FAIL" not in ttc(folder, "doctor", "run").stdout
    assert "versions" in ttc(folder, "doctor").stdout


def test_grade_a_pair_and_a_file(folder: Path) -> None:
    pair = json.loads(ttc(folder, "grade", "1/2", "0.5").stdout)
    assert (pair["gold"], pair["pred"], pair["answer"], pair["verdict"]) == ("1/2", "0.5", "0.5", "correct")
    assert pair["ms"] >= 0
    assert pair["reason"]
    assert json.loads(ttc(folder, "grade", "-2", "-4/2").stdout)["verdict"] == "correct"
    lines = [
        {"gold": "7", "pred": "8"},
        {"gold": "7", "text": "So it is \\boxed{7}."},
        {"gold": "7", "text": "hm", "id": 3},
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = [json.loads(line) for line in ttc(folder, "grade", "pairs.jsonl", "-q").stdout.splitlines()]
    assert [row["verdict"] for row in rows] == ["wrong", "correct", "no_answer"]
    assert rows[2]["id"] == 3
    (folder / "bad.jsonl").write_text('{"gold": "7"}\n')
    assert "bad.jsonl, line 1: wants pred (an answer) or text" in ttc(folder, "grade", "bad.jsonl", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bench", "./mine.py:adder", "--task", "sum"], "no task named 'sum'; there is aime24"),
        (
            ["bench", "./mine.py:adder", "--task", "arithmetic", "--budget", "60"],
            "the budget '60' has no unit; write 60s",
        ),
        (
            ["bench", "./mine.py:adder", "--task", "arithmetic", "--budget", "-3s"],
            "a budget must be positive and finite",
        ),
        (
            ["bench", "./mine.py:adder", "--task", "./mine.py:sums", "-T", "hrd=1"],
            "takes no option 'hrd'; it takes hard",
        ),
        (
            ["bench", "./mine.py:adder", "--task", "./mine.py:sums", "-M", "x=1"],
            "takes no option 'x'; it takes wrong_every",
        ),
        (["bench", "./mine.py:adder", "--task", "./mine.py:sums", "--out", "mine.py"], "'mine.py' is a file"),
        (["bench", "./mine.py:adder", "--task", "./mine.py:sums", "--out", "."], "is in use: it holds"),
        (["bench", "nowhere", "--task", "./mine.py:sums"], "nowhere"),
        (
            ["bench", "zoo/nothing", "--task", "./mine.py:sums"],
            "the zoo has no checkpoint 'nothing'; it has zoo/llamba, zoo/llamba-fewshot, zoo/mamba-in-llama, "
            "zoo/mamba-in-llama-distilled, zoo/mamba-in-llama-fewshot, zoo/orm, zoo/prm, zoo/teacher, "
            "zoo/teacher-fewshot",
        ),
        (["bench", "models", "--task", "./mine.py:sums"], "models"),
        (["bench", "./mine.py:adder", "--task", "gsm8k", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["bench", "./mine.py:adder", "--task", "./mine.py:sums", "--top-p", "0"], "--top-p must lie above 0"),
        (["select", "nowhere"], "no run at 'nowhere'"),
        (["select", "models"], "'models' is not a run: it has no manifest.json"),
        (["report", "nowhere", "--out", "x"], "no run at 'nowhere'"),
        (["check", "nothing"], "no plug-in named 'nothing'; `ttc list` says what there is"),
        (["import", "nowhere.jsonl", "--task", "gsm8k", "--out", "x"], "no file 'nowhere.jsonl'"),
    ],
)
def test_mistakes_get_one_sentence_and_leave_nothing(folder: Path, arguments: list[str], says: str) -> None:
    before = sorted(folder.rglob("*"))
    done = ttc(folder, *arguments, code=2)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ttc: ")]
    assert len(errors) == 1
    assert says in errors[0]
    after = [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts]
    assert [path for path in after if path not in before] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["bench", "m", "--task", "t", "--samples", "-1"],
        ["bench", "m", "--task", "t", "--temperature", "-1"],
        ["bench", "m"],
        ["bnch"],
    ],
)
def test_a_wrong_option_ends_with_code_2(folder: Path, arguments: list[str]) -> None:
    assert ttc(folder, *arguments, code=2).stderr.strip()


def test_a_ctrl_c_stops_cleanly_and_the_same_command_goes_on(folder: Path) -> None:
    slow = (
        (folder / "mine.py")
        .read_text()
        .replace("now = deadline.elapsed_s", "import time; time.sleep(0.05); now = deadline.elapsed_s")
    )
    (folder / "mine.py").write_text(slow)
    bench = [*BENCH, "-T", "num_problems=30"]
    process = subprocess.Popen(
        [*TTC, *bench],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background is told to ignore Ctrl-C, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    manifest = folder / "run" / "manifest.json"
    while process.poll() is None and not list(folder.glob("run/completions/*.parquet")):
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"type the same command to go on:\n  {shlex.join(['ttc', *bench])}\n" in errors
    assert "Traceback" not in errors
    assert json.loads(manifest.read_text())["segments"][0]["status"] == "interrupted"
    done = ttc(folder, *bench)
    assert "VALID" in done.stdout
    import pandas

    keys = pandas.read_parquet(folder / "run" / "completions")[["problem_id", "sample_index"]]
    assert len(keys) == len(keys.drop_duplicates()) == 120
    assert [s["status"] for s in json.loads(manifest.read_text())["segments"]] == ["interrupted", "finished"]
