"""`ttc show`: what a terminal is given of a run, with nothing in it that a terminal obeys."""

import json
from pathlib import Path

import pytest
import report_runs

from harness.errors import UserError
from harness.inert import inert
from harness.showing import gist, judged_completions, show_problem, show_run
from harness.storage.runs import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = report_runs.write_run(tmp_path / "a", problems=3, samples=4, hostile=True, scored=True)
    made.manifest["segments"] = [{"generate_s": 2.5, "load_s": 1.0, "warmup_s": 0.25, "grade_s": 0.125}] * 2
    made.manifest["validity"] = {
        "verdict": "INVALID", "reasons": ["it was late"], "mend": ["run again"], "warnings": ["texts were cut"],
    }  # fmt: skip
    made.manifest["compliance"] = {
        "scopes": 4, "within_budget": 0.75, "within_one_step": 1.0, "late_share": 0.0, "overshoot_median_s": 0.0,
        "overshoot_p99_s": 0.5, "overshoot_worst_s": 0.5, "overshoot_median_steps": 0.0, "overshoot_p99_steps": 1.0,
        "overshoot_worst_steps": 1.0,
    }  # fmt: skip
    made.manifest["overhead"] = {"outside_s": 0.01, "share": 0.002}
    return made


def test_the_gist_tells_verdict_compliance_overhead_and_time_outside(run: Run) -> None:
    told = "\n".join(gist(run))
    for words in (
        "zoo/teacher on sums, 3 problems", "4 samples, budget 8s", "temperature 0.8", "stop none", "verdict   INVALID",
        "it was late: run again", "warning   texts were cut", "kept in 3 of 4 scopes", "worst 0.5", "0.2 % of the time",
        "5 s inside budgets, 2 s loading, 0.5 s warm-up, 0.25 s grading",
    ):  # fmt: skip
        assert words in told, words


def test_nothing_that_a_terminal_obeys_comes_through(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    show_run(run, json_=False)
    show_problem(run, "sums/1", json_=False)
    printed = capsys.readouterr().out
    assert "\\x1b[31mred \\u202eevil" in printed.replace("\n", "")
    assert not [char for char in printed if char not in "\n" and not char.isprintable()]


def test_signs_that_are_spelled_out() -> None:
    assert inert("a\tb\nc é 模 😀") == "a\tb\nc é 模 😀"
    assert inert("\x00\x1b\x7f\x9b") == "\\x00\\x1b\\x7f\\x9b"
    assert inert("\u202e\u2066\u200f\u2028\ufeff") == "\\u202e\\u2066\\u200f\\u2028\\ufeff"
    assert inert("\U000e0041\ud800") == "\\U000e0041\\ud800"
    assert inert("[red]x[/red]") == "[red]x[/red]"


def test_a_problem_shows_every_completion_judged(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    rows = judged_completions(run, "sums/1")
    verdicts = {row["sample_index"]: row for row in run.verdicts() if row["problem_id"] == "sums/1"}
    assert [row["sample_index"] for row in rows] == [0, 1, 2, 3]
    assert [row["verdict"] for row in rows] == [verdicts[i]["verdict"] for i in range(4)]
    assert all(len(row["scores"]["zoo/orm"]) == 2 for row in rows)
    show_problem(run, "1", json_=True)
    document = json.loads(capsys.readouterr().out)
    assert document["problem_id"] == "sums/1"
    assert len(document["completions"]) == 4
    show_problem(run, "sums/1", json_=False)
    printed = capsys.readouterr().out
    assert "gold: 3" in printed
    assert "zoo/orm 0.5 " in printed


def test_a_wrong_id_names_some_that_exist(run: Run) -> None:
    with pytest.raises(UserError, match=r"has no problem 'sums/9'; it has 3, such as sums/0, sums/1, sums/2"):
        show_problem(run, "sums/9", json_=False)
