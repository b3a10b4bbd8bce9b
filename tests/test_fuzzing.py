"""Every reader of the core on hostile input: a result or one sentence, never another exception."""

import gzip
import io
import json
import shutil
import typing
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import LETTERS, TEXTS, changed, few, mangled, many, told, values
from hypothesis import given
from hypothesis import strategies as st
from recorded_runs import write_run

from harness import plugins
from harness.analysis.summarise import summarise
from harness.budgets import Budget, parse_budget
from harness.exporting.export import export_run
from harness.exporting.samples import each_problem
from harness.importing import grouped, import_file
from harness.interchange.forms import READERS
from harness.nouns import Selector
from harness.pairs import read_pairs
from harness.plugin_options import read_options
from harness.showing import show_problem, show_run
from harness.storage.manifest import read_manifest
from harness.storage.records import COMPLETIONS, PROBLEMS, SCORES, TIMING, VERDICTS, read_part
from harness.storage.runs import Run, open_run
from harness.timing.timing_tables import FACTS, read_timings

OWN = ("problem_id", "gold", "text", "answer", "prompt", "sample_index", "correct", "reward", "completion_tokens",
       "prompt_tokens", "finished_s", "finish_reason")  # fmt: skip
OWN_ROW = {"problem_id": "p", "gold": "4", "text": "so 4", "sample_index": 0, "reward": [0.5], "finished_s": 1.0}
LM_EVAL_ROW = {
    "doc_id": 0, "doc": {"id": "p"}, "target": "#### 4", "resps": [["so 4"]], "filter": "none", "metrics": ["acc"],
    "acc": 1.0, "arguments": {"gen_args_0": {"arg_0": "[{\"role\": \"user\", \"content\": \"?\"}]"}},
    "ttc_samples": [{"sample_index": 0, "correct": True}],
}  # fmt: skip
INSPECT_SAMPLE = {
    "id": "p", "epoch": 1, "target": ["4"], "input": [{"role": "user", "content": [{"text": "?"}]}],
    "output": {
        "choices": [
            {"message": {"content": [{"type": "reasoning", "reasoning": "r"}, {"text": "4"}]}, "stop_reason": "stop"}
        ],
        "usage": {"input_tokens": 1, "output_tokens": 2},
    },
    "scores": {"match": {"value": "C"}}, "metadata": {"ttc": {"correct": True}}, "attachments": {"a": "b"},
}  # fmt: skip
SEARCH_ROW = {
    "problem": "?", "answer": "4", "unique_id": "p", "completions": ["4", "5"], "scores": [[0.1], [0.2, 0.3]],
    "agg_scores": [0.1, 0.2], "completion_tokens": [1, 2],
}  # fmt: skip
ROWS: dict[str, dict[str, Any]] = {
    "ttc": OWN_ROW, "lm-eval": LM_EVAL_ROW, "search-and-learn": SEARCH_ROW,
    "inspect": {"version": 2, "status": "ok", "eval": {}, "samples": [INSPECT_SAMPLE]},
}  # fmt: skip
FORMS = sorted(READERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    times = np.array([[1.0, 2.0, 3.0]] * 2)
    return write_run(folder, "run", times > 1.5, times, rewards=times)


@pytest.mark.parametrize("form", FORMS)
@many
@given(data=st.data())
def test_lines_to_import(folder: Path, form: str, data: st.DataObject) -> None:
    row = ROWS[form]
    lines = data.draw(st.lists(changed(row, tuple(row)) | st.just(row), min_size=1, max_size=4))
    file = folder / f"lines-{form}.json{'' if form == 'inspect' else 'l'}"
    file.write_text(json.dumps(lines[0]) if form == "inspect" else "\n".join(map(json.dumps, lines)))
    told(grouped, file, form)
    told(grouped, file)


@pytest.mark.parametrize("form", FORMS)
@many
@given(data=st.data())
def test_bytes_to_import(folder: Path, form: str, data: st.DataObject) -> None:
    text = data.draw(mangled((json.dumps(ROWS[form]) + "\n").encode() * 2))
    file = folder / "bytes.jsonl"
    file.write_bytes(text)
    told(grouped, file, form)
    told(grouped, file)
    packed = folder / "bytes.jsonl.gz"
    packed.write_bytes(data.draw(mangled(gzip.compress(text))))
    told(grouped, packed, form)
    told(grouped, packed)
    told(lambda: list(read_pairs(text.decode("utf-8", "replace").splitlines(), "x")))


@few
@given(data=st.data(), sample=changed(INSPECT_SAMPLE))
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_zipped_logs(folder: Path, method: int, data: st.DataObject, sample: Any) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as log:
        log.writestr("samples/../../x_epoch_1.json", json.dumps(sample))
    file = folder / "log.eval"
    file.write_bytes(data.draw(st.just(packed.getvalue()) | mangled(packed.getvalue())))
    told(grouped, file)
    told(grouped, file, "inspect")
    file.write_bytes(data.draw(mangled(packed.getvalue().replace(bytes([method, 0]), bytes([93, 0])))))
    told(grouped, file, "inspect")
    assert sorted(path.name for path in folder.parent.glob("*x_epoch*")) == []


@many
@given(data=st.data())
def test_parquet_files(folder: Path, run: Run, data: st.DataObject) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([SEARCH_ROW] * 3), sink)
    file = folder / "x.parquet"
    file.write_bytes(data.draw(mangled(sink.getvalue())))
    told(grouped, file)
    told(plugins.load_task, "math500", [], str(file))
    source = data.draw(st.sampled_from(sorted(run.path.rglob("*.parquet"))))
    file.write_bytes(data.draw(mangled(source.read_bytes())))
    for columns in (COMPLETIONS, VERDICTS, SCORES, PROBLEMS, TIMING):
        told(read_part, file, columns)


@few
@given(rows=st.lists(changed(OWN_ROW, OWN), min_size=1, max_size=3), number=st.integers(0, 2**60))
def test_what_can_be_imported_can_be_shown_selected_and_exported(folder: Path, rows: Any, number: int) -> None:
    file, out = folder / "whole.jsonl", folder / f"whole-{number}"
    file.write_text("\n".join(map(json.dumps, [*rows, OWN_ROW | {"sample_index": 7}])))
    made = told(import_file, file, f"{folder}/plain.py:plain", [], None, out, "m", False)
    if made is not None:
        look_at(open_run(out))


def look_at(run: Run) -> None:
    """Everything that reads a run."""
    selectors = [
        Selector("one", select=lambda prompt, some: some[0]),
        *plugins.load_selectors(["coverage", "majority"]),
    ]
    told(show_run, run, False)
    told(show_run, run, True)
    told(lambda: [show_problem(run, row["problem_id"], False) for row in run.problems()])
    told(summarise, run, selectors, [Budget(2.0)], True)
    told(lambda: list(each_problem(run)))


# Run folders that others made


@many
@given(data=st.data())
def test_manifests(folder: Path, run: Run, data: st.DataObject) -> None:
    (folder / "man").mkdir(exist_ok=True)
    whole = {name: value for name, value in run.manifest.items() if name != "sha256"}
    text = json.dumps(data.draw(changed(whole)))
    (folder / "man" / "manifest.json").write_bytes(data.draw(st.just(text.encode()) | mangled(text.encode())))
    told(read_manifest, folder / "man")


@few
@given(data=st.data())
def test_runs_of_hostile_manifests(folder: Path, run: Run, data: st.DataObject) -> None:
    whole = {name: value for name, value in run.manifest.items() if name not in ("sha256", "parts")}
    hostile = data.draw(changed(whole))
    (run.path / "manifest.json").write_text(json.dumps(hostile))
    try:
        opened = told(open_run, run.path)
        if opened is not None:
            look_at(opened)
            for form in ("lm-eval", "inspect"):
                shutil.rmtree(folder / "export", ignore_errors=True)
                told(export_run, opened, form, folder / "export")
    finally:
        (run.path / "manifest.json").write_text(json.dumps(whole))


def column_values(field: pa.Field) -> st.SearchStrategy[Any]:
    """Values that a column of this type can hold, whether they mean anything or not."""
    texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
        ["p000", "p001", "stop", "error", "deadline", "correct"]
    )
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "string": texts, "large_string": texts, "int32": st.integers(-(2**31), 2**31 - 1) | st.integers(-1, 4),
        "int64": st.integers(-(2**63), 2**63 - 1), "double": st.floats() | st.floats(0, 9), "bool": st.booleans(),
    }  # fmt: skip
    kind = str(field.type)
    found = st.lists(st.floats() | st.floats(0, 1), max_size=3) if kind.startswith("list") else kinds[kind]
    return st.none() | found if field.nullable else found


@few
@given(data=st.data())
@pytest.mark.parametrize("kind", ["completions", "verdicts", "scores", "problems"])
def test_parts_whose_values_mean_nothing(folder: Path, run: Run, kind: str, data: st.DataObject) -> None:
    schema = {"completions": COMPLETIONS, "verdicts": VERDICTS, "scores": SCORES, "problems": PROBLEMS}[kind]
    file = run.path / "problems.parquet" if kind == "problems" else next((run.path / kind).glob("*.parquet"))
    before = file.read_bytes()
    rows = [{field.name: data.draw(column_values(field)) for field in schema} for _ in range(3)]
    stored = pq.read_table(io.BytesIO(before)).to_pylist()
    mixed = [
        {name: data.draw(st.sampled_from([row[name], old[name]])) for name in row}
        for row, old in zip(rows, stored, strict=False)
    ]
    pq.write_table(pa.Table.from_pylist(mixed, schema=schema), file, write_page_checksum=True)
    try:
        look_at(open_run(run.path))
    finally:
        file.write_bytes(before)


@many
@given(text=st.text(LETTERS) | st.from_regex(r"[0-9.eE+-]{1,8}[a-zA-Z]{0,6}"))
def test_budgets(text: str) -> None:
    budget = told(parse_budget, text)
    assert budget is None or parse_budget(str(budget)).amount == budget.amount


def takes(
    *, a: int = 1, b: float = 1.0, c: bool = False, d: Literal["x", "y"] = "x", e: int | None = None,
    f: tuple[int, ...] = (), g: Path = Path(), h: str = "", i: tuple[float, ...] | None = None, **rest: str,
) -> None:  # fmt: skip
    """Takes everything."""


@many
@given(pairs=st.lists(st.tuples(st.sampled_from("abcdefghi=") | TEXTS, TEXTS).map("=".join) | TEXTS, max_size=3))
def test_options(pairs: list[str]) -> None:
    found = told(read_options, takes, "task takes", pairs)
    hints = typing.get_type_hints(takes)
    for name, value in (found or {}).items():
        assert name not in "abch" or isinstance(value, hints.get(name, str))


@few
@given(reference=TEXTS | st.tuples(TEXTS, TEXTS).map(":".join) | st.tuples(TEXTS, TEXTS).map(".py:".join))
def test_references(reference: str) -> None:
    for group in ("tasks", "models", "selectors", "reward_models"):
        told(plugins.load_function, group, reference)


@few
@given(data=st.data())
@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("gsm8k", {"question": "?", "answer": "so\n#### 4"}),
        ("math500", {"problem": "?", "answer": "4", "subject": "Algebra", "level": 1, "unique_id": "p"}),
        ("math", {"problem": "?", "solution": "\\boxed{4}", "type": "Algebra", "level": "Level 1"}),
        ("aime24", {"id": 1, "problem": "?", "answer": "025"}),
        ("svamp", {"ID": "1", "Body": "b", "Question": "?", "Answer": 4.0}),
        ("olympiadbench", {"id": 1, "question": "?", "final_answer": ["4"], "unit": None, "answer_type": "Numerical"}),
    ],
)
def test_task_data(folder: Path, task: str, row: dict[str, Any], data: st.DataObject) -> None:
    rows = data.draw(st.lists(changed(row, tuple(row)) | st.just(row), min_size=1, max_size=3))
    for name, text in {
        "x.jsonl": "\n".join(map(json.dumps, rows)),
        "x.json": json.dumps(rows),
        "x.csv": ",".join(row) + "\n" + data.draw(st.text(max_size=40)),
    }.items():
        file = folder / name
        file.write_bytes(data.draw(st.just(text.encode("utf-8", "replace")) | mangled(text.encode("utf-8", "replace"))))
        told(lambda file=file: list(plugins.load_task(task, [], str(file)).problems))


@many
@given(facts=values(("model", "engine", "grid", "machine", "ceilings")))
def test_timing_tables(folder: Path, facts: Any) -> None:
    from harness.timing.timing_tables import TABLE, columns

    pq.write_table(columns().empty_table(), folder / TABLE)
    (folder / FACTS).write_text(json.dumps(facts))
    told(read_timings, folder)
