"""Recorded completions in other tools' forms: small files by hand, and logs that the tools themselves write."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.importing import import_file
from harness.interchange.forms import recognise
from harness.storage.runs import Run

REPEATED: dict[str, Any] = {
    "doc_id": 7,
    "doc": {"question": "2 + 2?", "answer": "It is 4.\n#### 4"},
    "target": "It is 4.\n#### 4",
    "arguments": {"gen_args_0": {"arg_0": "Question: 2 + 2?\nAnswer:", "arg_1": {"until": ["\n\n"]}}},
    "resps": [["So \\boxed{4}.", "So \\boxed{5}."]],
    "filtered_resps": ["4"],
    "filter": "strict-match",
    "metrics": ["exact_match"],
    "exact_match": 1.0,
}
ONCE = REPEATED | {"doc_id": 8, "resps": [["So \\boxed{5}."]], "metrics": ["acc", "exact_match"], "acc": 0.0}
SAMPLE: dict[str, Any] = {
    "id": 3,
    "epoch": 2,
    "input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "?"}]}],
    "target": ["4"],
    "output": {
        "model": "m",
        "choices": [{
            "message": {"role": "assistant", "content": [
                {"type": "reasoning", "reasoning": "two and two"}, {"type": "text", "text": "attachment://abc"},
            ]},
            "stop_reason": "max_tokens",
        }],
        "usage": {"input_tokens": 11, "output_tokens": 22},
    },
    "attachments": {"abc": "\\boxed{4} and"},
    "scores": {"quality": {"value": 0.7}, "match": {"value": "C", "answer": "4"}},
}  # fmt: skip
SEARCHED: dict[str, Any] = {
    "problem": "2 + 2?",
    "answer": "4",
    "unique_id": "test/1.json",
    "completions": ["\\boxed{4}", "\\boxed{5}"],
    "scores": [[0.5, 0.9], [0.1]],
    "agg_scores": [0.9, 0.1],
    "completion_tokens": [12, 9],
    "pred": "\\boxed{4}",
}


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def load(file: Path, form: str | None = None) -> tuple[Run, dict[str, int]]:
    return import_file(file, "math", [], None, file.parent / "run", "someone", False, form)


def test_lm_eval_samples(tmp_path: Path) -> None:
    other_filter = REPEATED | {"filter": "flexible-extract", "exact_match": 0.0}
    file = lines(tmp_path / "x.jsonl", REPEATED, ONCE, other_filter)
    assert recognise(file) == "lm-eval"
    run, counts = load(file)
    assert counts == {"correct": 2, "wrong": 1}
    assert [(row["problem_id"], row["gold"]) for row in run.problems()] == [("7", "4"), ("8", "4")]
    assert run.problems()[0]["prompt"] == "Question: 2 + 2?\nAnswer:"
    reasons = {(row["problem_id"], row["sample_index"]): row["reason"] for row in run.verdicts()}
    assert reasons[("8", 0)] == "as recorded"  # one response: its metric is its verdict
    assert reasons[("7", 0)] != "as recorded"


def test_lm_eval_messages_as_json(tmp_path: Path) -> None:
    prompt = json.dumps([{"role": "user", "content": "2 + 2?"}])
    run, _ = load(lines(tmp_path / "x.jsonl", ONCE | {"arguments": {"gen_args_0": {"arg_0": prompt}}}))
    assert run.problems()[0]["prompt"] == "2 + 2?"


def test_likelihoods_and_results_of_lm_eval_are_refused(tmp_path: Path) -> None:
    choices = ONCE | {"resps": [[["-1.5", "True"]], [["-2.5", "False"]]]}
    with pytest.raises(UserError, match=r"line 1: resps holds no generated text; only generation tasks"):
        load(lines(tmp_path / "x.jsonl", choices))
    results = tmp_path / "results_2024.json"
    results.write_text(json.dumps({"results": {}, "configs": {}}, indent=2))
    with pytest.raises(UserError, match=r"results without samples; import the samples_\*\.jsonl beside it"):
        load(results)


def log_of(*samples: Any) -> str:
    return json.dumps({"version": 2, "status": "success", "eval": {"task": "t"}, "samples": list(samples)}, indent=1)


def test_an_inspect_log(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(log_of(SAMPLE))
    run, counts = load(tmp_path / "x.json")
    (row,) = run.completions()
    assert (row["problem_id"], row["sample_index"]) == ("3", 1)
    assert row["text"] == "<think>two and two</think>\\boxed{4} and"
    assert (row["finish_reason"], row["prompt_tokens"], row["completion_tokens"]) == ("length", 11, 22)
    assert run.problems()[0]["prompt"] == "Be brief.\n\n?"
    assert counts == {"correct": 1}


def test_an_inspect_log_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(log_of())
    with pytest.raises(UserError, match="is a log without samples"):
        load(tmp_path / "x.json")
    (tmp_path / "x.eval").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError):
        load(tmp_path / "x.eval")
    (tmp_path / "y.json").write_text(log_of(SAMPLE | {"target": ["4", "four"], "scores": {}}))
    with pytest.raises(UserError, match="sample 1: has 2 targets and no score"):
        load(tmp_path / "y.json")
    (tmp_path / "z.json").write_text(log_of({"id": 1}))
    with pytest.raises(UserError, match="sample 1: wants a sample with id, epoch, target and output"):
        load(tmp_path / "z.json")
    assert not (tmp_path / "run").exists()


def test_search_and_learn_lines(tmp_path: Path) -> None:
    second = {name: SEARCHED[name] for name in ("problem", "answer", "completions", "agg_scores")}
    file = lines(tmp_path / "best_of_n_completions.jsonl", SEARCHED, second)
    assert recognise(file) == "search-and-learn"
    run, counts = load(file)
    assert counts == {"correct": 2, "wrong": 2}
    assert [row["problem_id"] for row in run.problems()] == ["test/1.json", "1"]
    assert [row["completion_tokens"] for row in run.completions()] == [12, 9, 0, 0]
    assert [row["scores"] for row in run.scores()] == [[0.5, 0.9], [0.1], [0.9], [0.1]]


def test_search_and_learn_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([SEARCHED] * 1), tmp_path / "train-00000-of-00001.parquet")
    run, counts = load(tmp_path / "train-00000-of-00001.parquet")
    assert counts == {"correct": 1, "wrong": 1}
    assert [row["scores"] for row in run.scores()] == [[0.5, 0.9], [0.1]]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing PAR1")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        load(tmp_path / "broken.parquet")


def test_search_and_learn_lists_of_other_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 1: scores has 1 entries for 2 completions"):
        load(lines(tmp_path / "x.jsonl", SEARCHED | {"scores": [[1.0]]}))


def test_a_form_can_be_named(tmp_path: Path) -> None:
    own = {"problem_id": "a", "gold": "4", "text": "\\boxed{4}", "completions": []}
    file = lines(tmp_path / "x.jsonl", own)
    assert recognise(file) == "search-and-learn"
    assert load(file, "ttc")[1] == {"correct": 1}
    with pytest.raises(UserError, match="no form 'csv' to import from; write --from with one of inspect, lm-eval"):
        load(file, "csv")


def test_finish_reasons_are_kept_and_checked(tmp_path: Path) -> None:
    row = {"problem_id": "a", "gold": "4", "text": "\\boxed{4}", "finish_reason": "deadline"}
    run, counts = load(lines(tmp_path / "x.jsonl", row))
    assert counts == {"no_answer": 1}
    assert run.completions()[0]["finish_reason"] == "deadline"
    known = "deadline, dropped, error, length, stop"
    with pytest.raises(UserError, match=f"line 1: finish_reason wants one of {known}, got 'eos'"):
        load(lines(tmp_path / "y.jsonl", row | {"finish_reason": "eos"}))


@pytest.mark.filterwarnings("ignore")  # of the package and what it imports
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs lm-eval")
def test_a_log_that_lm_eval_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import lm_eval
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.dummy import DummyLM
    from lm_eval.tasks import TaskManager

    lines(tmp_path / "d.jsonl", *({"question": f"{n} + {n}?", "answer": str(2 * n)} for n in (1, 2)))
    (tmp_path / "sums.yaml").write_text(
        "task: sums\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'd.jsonl'}}}}}\n"
        "test_split: test\noutput_type: generate_until\nrepeats: 2\n"
        "doc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\n"
        "generation_kwargs: {until: ['x']}\nmetric_list: [{metric: exact_match}]\n"
        "filter_list: [{name: all, filter: [{function: take_first_k, k: 2}]},"
        " {name: one, filter: [{function: take_first}]}]\n"
    )
    monkeypatch.setattr(
        DummyLM, "generate_until", lambda self, asked, **_: [f"\\boxed{{{4 - n % 2}}}" for n, _ in enumerate(asked)]
    )
    found: Any = lm_eval.simple_evaluate(
        model="dummy",
        tasks=["sums"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    tracker = EvaluationTracker(output_path=str(tmp_path / "out"))
    tracker.general_config_tracker.model_name_sanitized = "dummy"
    samples = found.pop("samples")
    tracker.save_results_aggregated(results=found, samples=samples)
    tracker.save_results_samples(task_name="sums", samples=samples["sums"])
    (file,) = (tmp_path / "out").rglob("samples_sums_*.jsonl")
    run, counts = load(file)
    assert [row["gold"] for row in run.problems()] == ["2", "4"]
    assert len(run.completions()) == 4
    assert counts == {"wrong": 3, "correct": 1} or counts == {"wrong": 2, "correct": 2}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(importlib.util.find_spec("inspect_ai") is None, reason="needs inspect_ai")
@pytest.mark.parametrize("kind", ["eval", "json"])
def test_a_log_that_inspect_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    from inspect_ai import Task
    from inspect_ai import eval as evaluate
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import match
    from inspect_ai.solver import generate

    said = ["It is 2", "It is 3", "It is 4", "It is 4"]
    outputs = [ModelOutput.from_content("mockllm/model", text) for text in said]
    for output in outputs:  # without usage the model counts tokens with a vocabulary from the network
        output.usage = ModelUsage(input_tokens=5, output_tokens=3, total_tokens=8)
    model = get_model("mockllm/model", custom_outputs=outputs, memoize=False)
    task = Task(
        dataset=[Sample(id="a", input="1 + 1?", target="2"), Sample(id="b", input="2 + 2?", target="4")],
        solver=[generate()],
        scorer=match(),
        epochs=2,
    )
    (log,) = evaluate(task, model=model, log_dir=str(tmp_path), log_format=kind, display="none", max_samples=1)
    run, counts = load(Path(log.location.removeprefix("file://")))
    assert {row["problem_id"]: row["gold"] for row in run.problems()} == {"a": "2", "b": "4"}
    assert sorted(row["text"] for row in run.completions()) == sorted(said)
    assert sorted(row["sample_index"] for row in run.completions()) == [0, 0, 1, 1]
    assert log.results is not None
    assert counts["correct"] == round(4 * log.results.scores[0].metrics["accuracy"].value)
