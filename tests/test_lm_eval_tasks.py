"""Tasks of lm-evaluation-harness as tasks: their prompts, stops and filters, on a task file made here."""

import json
from pathlib import Path

import pytest

from harness import plugins
from harness.errors import UserError
from harness.nouns import Message, Task

YAML = r"""
task: toy_sums
dataset_path: json
dataset_kwargs:
  data_files: {test: FOLDER/test.jsonl, train: FOLDER/train.jsonl}
test_split: test
training_split: train
fewshot_split: train
output_type: generate_until
doc_to_text: "Q: {{question}}\nA:"
doc_to_target: "{{solution}}"
generation_kwargs: {until: ["\nQ:"], do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - name: strict
    filter:
      - {function: regex, regex_pattern: "#### (-?[0-9]+)"}
      - {function: take_first}
  - name: whole
    filter:
      - {function: take_first}
num_fewshot: 1
"""


def test_a_collection_is_named_with_what_is_in_it() -> None:
    with pytest.raises(UserError, match="lm_eval holds many tasks; write which, for example --task lm_eval:gsm8k"):
        plugins.load_task("lm_eval")
    assert not plugins.is_reference("lm_eval:gsm8k")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("lm_eval", reason="needs lm-eval")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for split, first in (("train", 10), ("test", 0)):
        sums = [(f"{first + n} + {n}?", first + 2 * n) for n in range(3)]
        rows = [{"question": asked, "solution": f"It is {total}\n#### {total}"} for asked, total in sums]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "toy.yaml").write_text(YAML.replace("FOLDER", str(tmp_path)))
    return tmp_path


def load(folder: Path, *options: str) -> Task:
    return plugins.load_task("lm_eval:toy_sums", [f"include_path={folder}", *options])


def test_prompts_and_few_shot_form_are_theirs(folder: Path) -> None:
    task = load(folder)
    first = task.problems[0]
    assert (first.id, first.gold) == ("lm_eval/toy_sums/0", "0")
    assert isinstance(first.prompt, str)
    shot, asked = first.prompt.split("\n\n")
    assert shot in {f"Q: {10 + n} + {n}?\nA: It is {10 + 2 * n}\n#### {10 + 2 * n}" for n in range(3)}
    assert asked == "Q: 0 + 0?\nA:"
    bare = load(folder, "num_fewshot=0", "chat=true").problems[2]
    assert bare.prompt == (Message("user", "Q: 2 + 2?\nA:"),)
    assert bare.gold == "4"


def test_our_grading_reads_up_to_where_a_reply_ends(folder: Path) -> None:
    task = load(folder)
    answer = task.extract("2 + 2 is 4.\n#### 4\nQ: 9 + 9?\nA: #### 18")
    assert answer == "4"
    assert task.grade("4", "4.0").outcome == "correct"


def test_their_grading_is_the_filter_and_the_metric(folder: Path) -> None:
    task = load(folder, "grading=theirs")
    gold = task.problems[2].gold
    assert gold == "It is 4\n#### 4"
    assert task.extract("so #### 4\nQ: #### 5") == "4"
    assert task.extract("so it is 4") is None
    # exact_match compares with the whole target, which this task never shortens.
    assert task.grade(gold, "4").outcome == "wrong"
    whole = load(folder, "grading=theirs", "filter_name=whole")
    assert whole.extract("It is 4\n#### 4\nQ:") == "It is 4\n#### 4"
    assert whole.grade(gold, "It is 4\n#### 4").outcome == "correct"
    with pytest.raises(UserError, match="has no filter 'loose'; it has strict, whole"):
        load(folder, "grading=theirs", "filter_name=loose")


def test_an_unknown_task_is_a_sentence(folder: Path) -> None:
    with pytest.raises(UserError, match="lm-eval has no task 'toy_sum'; it has toy_sums"):
        plugins.load_task("lm_eval:toy_sum", [f"include_path={folder}"])
