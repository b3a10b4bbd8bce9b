"""Exported runs: their structure by hand, and opened by the packages they are for where those are installed."""

import hashlib
import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeClock, StepEngine, toy_task
from recorded_runs import write_run
from typer import Typer
from typer.testing import CliRunner

from harness.cli import export as command
from harness.errors import UserError
from harness.exporting.export import export_run
from harness.importing import import_file
from harness.storage.runs import Run, open_run

CORRECT = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]], bool)
SECONDS = np.array([[1.0, 2.0, 3.0], [0.5, 1.5, 2.5], [4.0, 5.0, 6.0]])
REWARDS = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4], [0.7, 0.8, 0.6]])
NAMES = ["algebra/1", "two|pipes", "drei ü"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = write_run(
        tmp_path, "run", CORRECT, SECONDS, model="some/model", problems=NAMES, rewards=REWARDS, budget=None
    )
    made.manifest["machine"]["cpu"] = "a <fast> | one"
    made.save()
    return open_run(made.path)


def bench_run(folder: Path) -> Run:
    """A run with a budget: of three samples one is cut by the deadline."""
    from harness.budgets import Budget
    from harness.nouns import Sampling
    from harness.progress import chooser
    from harness.running.bench import Plan, problems_of, spec_of
    from harness.running.finishing import finish, grade_ungraded, left_to_do
    from harness.running.probe import Surroundings
    from harness.running.runner import run_scopes
    from harness.storage.runs import make_run

    clock, task = FakeClock(), toy_task()
    plan = Plan("toy", (), None, None, "latency", Budget(3.0), 3, Sampling(max_tokens=50))
    problems = problems_of(task, None)
    from harness.running.bench import Arm

    spec = spec_of(Arm("steps", "plug-in", (), folder), plan, task)
    rows = [{"problem_id": p.id, "prompt": str(p.prompt), "gold": p.gold, "meta": {"level": 2}} for p in problems]
    made = make_run(folder, spec, rows)
    scopes = left_to_do(None, problems, plan)
    run_scopes(
        StepEngine(clock), made, scopes, 0, plan.budget, clock, lambda *_: [], chooser(True), Surroundings(clock)
    )
    grade_ungraded(made, task, problems, clock)
    finish(made, problems, plan)
    return open_run(folder)


def imported_again(file: Path, out: Path, task: Path) -> Run:
    return import_file(file, f"{task}:plain", [], None, out, "again", False)[0]


def told(run: Run) -> dict[tuple[str, int], Any]:
    """Everything of a run that a form should keep."""
    verdicts = {(row["problem_id"], row["sample_index"]): row for row in run.verdicts()}
    scores = {(row["problem_id"], row["sample_index"]): row["scores"] for row in run.scores()}
    names = ("text", "finish_reason", "completion_tokens", "prompt_tokens", "finished_s")
    return {
        key: ([row[name] for name in names], verdicts[key]["answer"], verdicts[key]["verdict"], scores.get(key))
        for row in run.completions()
        if (key := (row["problem_id"], row["sample_index"]))
    }


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_lm_eval_files_have_the_harness_own_shape(run: Run, tmp_path: Path) -> None:
    results_file, samples_file = export_run(run, "lm-eval", tmp_path / "out")
    assert results_file.parent == samples_file.parent == tmp_path / "out" / "some__model"
    date = results_file.stem.removeprefix("results_")
    assert samples_file.name == f"samples_plain_{date}.jsonl"
    assert ":" not in date
    lines = [json.loads(line) for line in samples_file.read_text().splitlines()]
    assert [line["doc_id"] for line in lines] == [0, 1, 2]
    assert [line["doc"]["id"] for line in lines] == NAMES
    assert [line["exact_match"] for line in lines] == pytest.approx([2 / 3, 0, 1])
    assert [line["pass@3"] for line in lines] == [1.0, 0.0, 1.0]
    first = lines[0]
    assert first["metrics"] == ["exact_match", "pass@3"]
    assert first["resps"] == [["4", "6", "4"]]
    assert first["target"] == "4"
    assert first["arguments"]["gen_args_0"]["arg_0"] == "What is 2 + 2?"
    assert first["target_hash"] == sha("4")
    assert first["prompt_hash"] == sha("What is 2 + 2?")
    assert first["doc_hash"] == sha(json.dumps(first["doc"], indent=2, ensure_ascii=False))
    results = json.loads(results_file.read_text())
    hashes = "".join(line["doc_hash"] + line["prompt_hash"] + line["target_hash"] for line in lines)
    assert results["task_hashes"] == {"plain": sha(hashes)}
    scores = results["results"]["plain"]
    assert scores["exact_match,none"] == pytest.approx(5 / 9)
    assert scores["exact_match_stderr,none"] == pytest.approx(np.std([2 / 3, 0, 1], ddof=1) / 3**0.5)
    assert scores["pass@3,none"] == pytest.approx(2 / 3)
    assert results["n-samples"] == {"plain": {"original": 3, "effective": 3}}
    assert results["model_name"] == "some/model"


def test_the_inspect_log_is_a_zip_of_samples_summaries_and_header(run: Run, tmp_path: Path) -> None:
    (file,) = export_run(run, "inspect", tmp_path / "out")
    with zipfile.ZipFile(file) as log:
        names = log.namelist()
        header, summaries = json.loads(log.read("header.json")), json.loads(log.read("summaries.json"))
        sample = json.loads(log.read("samples/algebra/1_epoch_2.json"))
    assert file.suffix == ".eval"
    assert "_journal/start.json" in names
    assert sum(name.startswith("samples/") for name in names) == len(summaries) == 9
    assert (header["version"], header["status"], header["eval"]["model"]) == (2, "success", "some/model")
    metrics = {score["reducer"]: score["metrics"]["accuracy"]["value"] for score in header["results"]["scores"]}
    assert metrics == {"mean": pytest.approx(5 / 9), "pass_at_3": pytest.approx(2 / 3)}
    assert (sample["id"], sample["epoch"], sample["target"]) == ("algebra/1", 2, "4")
    assert sample["output"]["choices"][0]["message"]["content"] == "6"
    assert sample["scores"]["ttc"]["value"] == "I"
    assert "NaN" not in json.dumps(sample)
    assert header["stats"]["model_usage"]["some/model"]["output_tokens"] == 90


def test_the_dataset_has_a_card_and_joined_rows(run: Run, tmp_path: Path) -> None:
    import pandas

    yaml: Any = pytest.importorskip("yaml", reason="needs PyYAML, which datasets brings")
    files = export_run(run, "datasets", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    settings = yaml.safe_load(front)
    assert settings["pretty_name"] == "some/model on plain"
    assert [each["config_name"] for each in settings["configs"]] == ["completions", "problems"]
    assert settings["size_categories"] == ["n<1K"]
    assert "a \\<fast\\> \\| one" in text
    assert "The run is **VALID**." in text
    table = pandas.read_parquet(tmp_path / "out" / "completions")
    assert len(table) == 9
    assert (table["verdict"] == "correct").tolist() == CORRECT.ravel().tolist()
    assert table["finished_s"].tolist() == SECONDS.ravel().tolist()
    assert [scores[0]["scores"][0] for scores in table["scores"]] == REWARDS.ravel().tolist()
    assert table["problem_id"].tolist() == [name for name in NAMES for _ in range(3)]
    assert all(file.is_file() for file in files)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == run.manifest


@pytest.mark.parametrize("form", ["lm-eval", "inspect"])
def test_what_was_exported_is_imported_again(run: Run, tmp_path: Path, form: str) -> None:
    file = next(file for file in export_run(run, form, tmp_path / "out") if "results" not in file.name)
    again = imported_again(file, tmp_path / "again", tmp_path / "plain.py")
    assert told(again) == told(run)
    assert [row["gold"] for row in again.problems()] == ["4"] * 3


@pytest.mark.parametrize("form", ["lm-eval", "inspect"])
def test_a_cut_completion_stays_cut(tmp_path: Path, form: str) -> None:
    run = bench_run(tmp_path / "run")
    write_run(tmp_path, "other", CORRECT)  # for its task's file
    file = next(file for file in export_run(run, form, tmp_path / "out") if "results" not in file.name)
    again = imported_again(file, tmp_path / "again", tmp_path / "plain.py")
    assert told(again) == told(run)
    assert sorted({row["finish_reason"] for row in again.completions()}) == ["deadline", "stop"]


def test_the_inspect_log_tells_the_limit(tmp_path: Path) -> None:
    (file,) = export_run(bench_run(tmp_path / "run"), "inspect", tmp_path / "out")
    with zipfile.ZipFile(file) as log:
        cut = json.loads(log.read("samples/toy/0_epoch_3.json"))
        whole = json.loads(log.read("samples/toy/0_epoch_1.json"))
    assert cut["limit"] == {"type": "time", "limit": 3.0}
    assert cut["metadata"]["level"] == 2
    assert "limit" not in whole
    assert (whole["total_time"], whole["output"]["choices"][0]["stop_reason"]) == (1.5, "stop")


def test_the_command_prints_the_files_and_refuses_a_full_folder(run: Run, tmp_path: Path) -> None:
    app = Typer()
    command.add_to(app)
    app.command()(lambda: None)
    asked = ["export", str(run.path), "--to", "datasets", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "out" / "README.md") in done.output.replace("\n", "") or "README.md" in done.output
    with pytest.raises(UserError, match="is there already; choose a new or an empty --out"):
        export_run(run, "datasets", tmp_path / "out")
    with pytest.raises(UserError, match="there is no form 'yaml' to export to; write --to with one of datasets, inspe"):
        export_run(run, "yaml", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_left_of_an_export_that_fails(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.exporting import export as exporting

    def half(run: Run, folder: Path) -> list[Path]:
        (folder / "half").write_text("")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(exporting.WRITERS, "inspect", half)
    with pytest.raises(UserError, match="No space left on device"):
        export_run(run, "inspect", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))
    assert not list(tmp_path.glob(".*"))


def test_a_run_without_completions_is_refused(tmp_path: Path) -> None:
    from harness.storage.runs import make_run

    (tmp_path / "empty").mkdir()
    rows = [{"problem_id": "p", "prompt": "?", "gold": "4", "meta": {}}]
    empty = make_run(tmp_path / "empty", {"samples": 1}, rows)
    with pytest.raises(UserError, match="has no completions yet"):
        export_run(empty, "lm-eval", tmp_path / "out")


needs_inspect = pytest.mark.skipif(importlib.util.find_spec("inspect_ai") is None, reason="needs inspect_ai")
needs_lm_eval = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs lm-eval")


@pytest.mark.filterwarnings("ignore")  # of the packages and what they import
@pytest.mark.parametrize("kind", ["recorded", "bench"])
@needs_inspect
def test_inspect_reads_the_log(run: Run, tmp_path: Path, kind: str) -> None:
    from inspect_ai.log import read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries, write_eval_log

    chosen = run if kind == "recorded" else bench_run(tmp_path / "bench")
    (file,) = export_run(chosen, "inspect", tmp_path / "out")
    log = read_eval_log(str(file))
    assert log.status == "success"
    assert log.samples is not None
    stored = {(row["problem_id"], row["sample_index"] + 1): row["text"] for row in chosen.completions()}
    assert {(sample.id, sample.epoch): sample.output.completion for sample in log.samples} == stored
    one = read_eval_log_sample(str(file), chosen.problems()[0]["problem_id"], 1)
    assert one.scores is not None
    assert one.scores["ttc"].as_str() == "C"
    assert len(read_eval_log_sample_summaries(str(file))) == len(stored)
    # Inspect's own writing of the log, compressed in its own way, is imported alike.
    write_run(tmp_path, "other", CORRECT)
    for name in ("again.eval", "again.json"):
        write_eval_log(log, str(tmp_path / name))
        again = imported_again(tmp_path / name, tmp_path / f"run-{name}", tmp_path / "plain.py")
        assert told(again) == told(chosen)


@pytest.mark.filterwarnings("ignore")
@needs_lm_eval
def test_lm_eval_reads_the_files(run: Run, tmp_path: Path) -> None:
    from lm_eval.utils import get_file_task_name, get_results_filenames, get_sample_results_filenames, make_table

    results_file, samples_file = export_run(run, "lm-eval", tmp_path / "out")
    names = [str(results_file), str(samples_file)]
    assert get_results_filenames(names) == [names[0]]
    assert get_sample_results_filenames(names) == [names[1]]
    assert get_file_task_name(samples_file.name) == "plain"
    table = make_table(json.loads(results_file.read_text()))
    assert "|0.5556|±  |0.2940|" in table.replace("± ", "±  ").replace("±   ", "±  ")
    assert "pass@3" in table


@pytest.mark.filterwarnings("ignore")
def test_datasets_opens_the_folder_and_the_sample_log(run: Run, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    export_run(run, "datasets", tmp_path / "out")
    cache = str(tmp_path / "cache")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=cache)
    assert list(found) == ["test"]
    assert found["test"].num_rows == 9
    assert found["test"][1]["answer"] == "6"
    problems = datasets.load_dataset(str(tmp_path / "out"), "problems", cache_dir=cache)
    assert problems["test"]["problem_id"][:] == NAMES
    _, samples_file = export_run(run, "lm-eval", tmp_path / "lm")
    lines = datasets.load_dataset("json", data_files=str(samples_file), cache_dir=cache)
    assert lines["train"].num_rows == 3


def points_by_hand(run: Run) -> dict[int, float]:
    """Coverage at k = 1 and 3 of `CORRECT`: the mean share of right samples, and the share of problems with one."""
    return {1: CORRECT.mean(), 3: CORRECT.any(axis=1).mean()}


def test_curves_are_metrics_of_tensorboard(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = export_run(run, "tensorboard", tmp_path / "out")
    events = EventAccumulator(str(file)).Reload()
    read = {event.step: event.value for event in events.Scalars("coverage by samples/accuracy")}
    expected = points_by_hand(run)
    assert {step: read[step] for step in expected} == pytest.approx(expected)
    assert {event.wall_time for event in events.Scalars("majority by milliseconds/low")} == {
        run.manifest["created_unix_s"]
    }
    assert any("best_of_n" in tag for tag in events.Tags()["scalars"])


def test_curves_are_a_table_of_weights_and_biases(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    files = export_run(run, "wandb", tmp_path / "out")
    assert any(file.suffix == ".wandb" for file in files)
    table = json.loads(next(file for file in files if file.name.startswith("points_")).read_text())
    read = {row[2]: row[3] for row in table["data"] if row[:2] == ["coverage", "k"]}
    expected = points_by_hand(run)
    assert {k: read[k] for k in expected} == pytest.approx(expected)
