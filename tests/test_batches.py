"""Which tokens stand in which rows of a training batch."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from report_runs import spec_of

from harness import plugins
from harness.errors import UserError
from harness.models.distillation.batches import WINDOW, Batches, open_batches, read_ahead
from harness.models.distillation.documents import BLOCK, Document, in_turn, open_examples, tokenise
from harness.models.distillation.documents import Example as Text
from harness.models.distillation.recipes import Data, Stage
from harness.nouns import Completion, Message
from harness.storage.runs import make_run

SPECIAL = len(tiny.SPECIALS)


def spell(ids: Any) -> str:
    """Token ids of the byte tokenizer as text, its end token as a bar and anything unlabelled as a dot."""
    tokenizer = tiny.make_tokenizer()
    spelled = {tiny.END: "|", -100: "."}
    return "".join(spelled.get(one) or tokenizer.decode([one]) for one in map(int, ids))


def numbered(number: int) -> Document:
    """A document whose tokens say which it is; lengths from 1 to 7 in no order."""
    ids = [1000 * number + place for place in range(1 + 5 * number % 7)]
    return Document(ids, [-100, *ids[1:]])


def write_lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file:{path}"


def stage(source: str, rows: int = 2, context: int = 64, packed: bool = False, loss_on: Any = "all") -> Stage:
    data = Data(source=source, packed=packed, loss_on=loss_on)
    return Stage(kind="sft", tokens=rows * context, rows=rows, context=context, learning_rate=1.0, data=data)


def test_a_text_is_prompt_completion_and_end_token() -> None:
    tokenizer = tiny.make_tokenizer(tiny.TEMPLATE)
    example = Text((Message("user", "ab"),), "cd")
    whole = "<start>[user]ab[assistant]cd|"
    assert spell(tokenise(example, tokenizer, 99, learns_prompt=True).token_ids) == whole
    assert spell(tokenise(example, tokenizer, 99, learns_prompt=True).labels) == whole
    masked = "." * len(["<start>", *"[user]ab[assistant]"])
    assert spell(tokenise(example, tokenizer, 99, learns_prompt=False).labels) == masked + "cd|"
    assert spell(tokenise(example, tokenizer, 21, learns_prompt=False).token_ids) == "<start>[user]ab[assistant]c"
    assert spell(tokenise(example, tokenizer, 21, learns_prompt=False).labels) == masked + "c"


def test_a_plain_text_begins_as_the_tokenizer_begins_texts() -> None:
    assert spell(tokenise(Text("", "ab"), tiny.make_tokenizer(), 9, True).token_ids) == "ab|"
    assert spell(tokenise(Text("", "ab"), tiny.make_tokenizer(adds_start=True), 9, True).token_ids) == "<start>ab|"


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    tokenizer = tiny.make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no eos_token to end a text"):
        tokenise(Text("", "ab"), tokenizer, 9, True)


def test_rows_are_padded_on_the_right_and_padding_is_not_learnt(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "bcd"}])
    batch = open_batches(stage(source), tiny.make_tokenizer(), seed=0).batch(0)
    for row, labels, length in zip(batch.token_ids, batch.labels, batch.lengths, strict=True):
        text = spell(row[:length])
        assert text in ("a|", "bcd|")
        assert spell(labels) == text + "." * (len(row) - len(text))
        assert row[length:].eq(0).all()
    assert batch.token_ids.shape[1] == int(batch.lengths.max())


def test_every_form_of_line_is_read(tmp_path: Path) -> None:
    turns = [("system", "s"), ("user", "p"), ("assistant", "q"), ("user", "r"), ("assistant", "t"), ("user", "u")]
    messages = [{"role": role, "content": content} for role, content in turns]
    for row, expected in [
        ({"prompt": "p", "completion": "c"}, Text((Message("user", "p"),), "c")),
        ({"text": "t", "more": 1}, Text("", "t")),
        ({"messages": messages}, Text(tuple(Message(*turn) for turn in turns[:4]), "t")),  # type: ignore[arg-type]
    ]:
        assert open_examples(write_lines(tmp_path / "a.jsonl", [row]), "train", 0)(0) == expected


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": "p"}, r"a.jsonl:2 has neither .*it has prompt"),
        ({"messages": [{"role": "user", "content": "p"}]}, r"a.jsonl:2 has neither .*it has messages"),
        ([1], r"a.jsonl:2 has neither .*it has none"),
    ],
)
def test_a_line_of_another_form_is_named(tmp_path: Path, row: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_examples(write_lines(tmp_path / "a.jsonl", [{"text": "x"}, row]), "train", 0)


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "bad.jsonl").write_text("{\n")
    for source, sentence in [
        ("web:x", "no data source 'web:x'; write task:NAME"),
        (f"file:{tmp_path}/none.jsonl", "no file"),
        (f"file:{tmp_path}/empty.jsonl", "holds no text to learn from"),
        (f"file:{tmp_path}/bad.jsonl", "bad.jsonl:1 is not valid JSON"),
        (f"file:{tmp_path}/bad.jsonl?a=b", r"takes no option 'a'; leave out '\?a=b'"),
        ("task:arithmetics", "no task named 'arithmetics'"),
        ("task:arithmetic?level=3", "takes no option 'level'"),
        ("task:arithmetic?difficulty=3,x", "difficulty wants int, got 'x'"),
        ("task:arithmetic?seed=3", "the recipe's seed decides"),
        ("task:aime24?split=test", "takes no option 'split'"),
        (f"hub:{tmp_path}?column=a", "takes no option 'column'; it takes completion"),
    ]:
        with pytest.raises(UserError, match=sentence):
            open_examples(source, "train", 0)


def test_a_finite_source_is_gone_through_in_a_new_order_each_time(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl", [{"text": str(number)} for number in range(20)])
    examples = open_examples(source, "train", seed=5)
    rounds = [[examples(20 * lap + place).completion for place in range(20)] for lap in range(3)]
    assert all(sorted(each, key=int) == [str(number) for number in range(20)] for each in rounds)
    assert len({tuple(each) for each in rounds}) == 3
    assert [examples(number).completion for number in (3, 45, 3)] == [rounds[0][3], rounds[2][5], rounds[0][3]]
    assert rounds[0] != [open_examples(source, "train", seed=6)(place).completion for place in range(20)]


def test_sources_are_mixed_one_text_of_each_in_turn(tmp_path: Path) -> None:
    sources = [write_lines(tmp_path / f"{name}.jsonl", [{"text": f"{name}{n}"} for n in range(3)]) for name in "ab"]
    alone = [open_examples(source, "train", seed=5) for source in sources]
    mixed = in_turn(alone)
    read = [mixed(number).completion for number in range(12)]
    assert [text[0] for text in read] == list("ab" * 6)
    assert read[::2] == [alone[0](number).completion for number in range(6)]
    assert read[1::2] == [alone[1](number).completion for number in range(6)]


def test_a_task_gives_solved_problems_of_its_train_split() -> None:
    examples = open_examples("task:arithmetic?difficulty=2,6", "train", seed=1)
    several = [examples(number) for number in range(8 * BLOCK)]
    steps = {example.completion.count("\n") for example in several}
    assert steps == {4, 8}, "difficulty and one more events, the start and the answer"
    assert len({example.prompt for example in several}) == len(several)
    assert all(example.completion.endswith("}.") and "Step 1:" in example.completion for example in several)
    prompts = [str(problem.prompt) for problem in plugins.load_task("arithmetic", ["num_problems=200"]).problems]
    assert not {str(example.prompt) for example in several} & set(prompts)
    again = open_examples("task:arithmetic?difficulty=2,6", "train", seed=1)
    assert [again(number) for number in (40, 3)] == [several[40], several[3]]
    assert open_examples("task:arithmetic?difficulty=2,6", "train", seed=2)(0) not in several


def test_a_task_without_a_seed_is_a_finite_list(tmp_path: Path) -> None:
    data = tmp_path / "gsm8k.jsonl"
    data.write_text(json.dumps({"question": "2 + 2?", "answer": "2 + 2 = 4\n#### 4"}) + "\n")
    examples = open_examples(f"task:gsm8k?data={data}", "train", 0)
    assert examples(0).completion == examples(7).completion == "2 + 2 = 4\n#### 4"


def test_a_run_gives_its_correct_completions_after_their_exact_prompts(tmp_path: Path) -> None:
    problems = [{"problem_id": name, "prompt": f"<start>{name}:", "gold": "1", "meta": {}} for name in "ab"]
    run = make_run_in(tmp_path / "run", spec_of("m", 2, 2), problems)
    verdicts = {("a", 0): "correct", ("a", 1): "wrong", ("b", 0): "correct", ("b", 1): "correct"}
    run.add_completions(
        [completion(name, index, "length" if (name, index) == ("b", 1) else "stop") for name, index in verdicts]
    )
    run.add_verdicts(
        [
            {"problem_id": name, "sample_index": index, "answer": "1", "answer_class": 0, "verdict": verdict}
            | {"reason": "", "ms": 0.0}
            for (name, index), verdict in verdicts.items()
        ]
    )
    examples = open_examples(f"run:{tmp_path}/run", "train", 0)
    assert {examples(0), examples(1)} == {Text("<start>a:", "a0"), Text("<start>b:", "b0")}
    batch = open_batches(stage(f"run:{tmp_path}/run", loss_on="completion"), tiny.make_tokenizer(), 0).batch(0)
    assert {spell(row) for row in batch.token_ids} <= {"<start>a:a0|", "<start>b:b0|"}
    assert {spell(row) for row in batch.labels} <= {"...a0|", "...b0|"}


def make_run_in(path: Path, spec: Any, problems: Any) -> Any:
    path.mkdir()
    return make_run(path, spec, problems)


def completion(name: str, index: int, reason: Any) -> Completion:
    return Completion(name, index, f"{name}{index}", reason, 1, 2, 0, 0.0, 0.0, 0.1, 0.2, 1.0)


def test_a_streamed_data_set_can_be_entered_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    write_lines(tmp_path / "train.jsonl", [{"question": f"q{number}", "answer": str(number)} for number in range(7)])
    source = f"hub:{tmp_path}?prompt=question&completion=answer"
    examples = open_examples(source, "train", seed=3)
    read = [examples(number) for number in range(20)]
    assert {int(example.completion) for example in read[:7]} == set(range(7))
    assert all(example.prompt == (Message("user", f"q{example.completion}"),) for example in read)
    again = open_examples(source, "train", seed=3)
    assert [again(number) for number in (12, 15, 4)] == [read[12], read[15], read[4]]
    with pytest.raises(UserError, match="cannot be opened"):
        open_examples(f"hub:{tmp_path}/none", "train", 0)


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_depends_on_its_number_and_the_seed_alone(packed: bool) -> None:
    def make(seed: int = 1) -> Batches:
        return Batches(numbered, rows=3, context=10, packed=packed, seed=seed)

    there = [make().batch(number).token_ids.tolist() for number in range(20)]
    batches = make()
    for number in (17, 3, 4, 0, 19, 17):
        assert batches.batch(number).token_ids.tolist() == there[number]
    late = make()
    late.go_to(17, batches.position(17))
    assert [late.batch(number).token_ids.tolist() for number in (17, 18, 2)] == [there[17], there[18], there[2]]


def test_packed_rows_are_texts_one_after_another_cut_at_the_end_of_the_row() -> None:
    batches = Batches(numbered, rows=2, context=10, packed=True, seed=0)
    number = 0
    for index in range(5):
        batch = batches.batch(index)
        assert batch.token_ids.shape == batch.labels.shape == (2, 10)
        assert batch.lengths.tolist() == [10, 10]
        for row, labels in zip(batch.token_ids, batch.labels, strict=True):
            expected: list[Document] = []
            while sum(len(document.token_ids) for document in expected) < 10:
                expected.append(numbered(number))
                number += 1
            assert row.tolist() == list(itertools.chain(*(document.token_ids for document in expected)))[:10]
            assert labels.tolist() == list(itertools.chain(*(document.labels for document in expected)))[:10]


def whole_documents(batches: Batches, numbers: range) -> list[int]:
    """Which documents stand in the rows of unpacked batches."""
    found = []
    for number in numbers:
        batch = batches.batch(number)
        for row, length in zip(batch.token_ids, batch.lengths, strict=True):
            which = int(row[0]) // 1000
            assert row[:length].tolist() == numbered(which).token_ids
            found.append(which)
    return found


def test_unpacked_batches_hold_every_text_once_and_rows_of_like_length() -> None:
    rows = 4
    batches = Batches(numbered, rows, context=10, packed=False, seed=0)
    assert sorted(whole_documents(batches, range(2 * WINDOW))) == list(range(2 * WINDOW * rows))
    padded = sum(batches.batch(number).token_ids.numel() for number in range(WINDOW))
    real = sum(int(batches.batch(number).lengths.sum()) for number in range(WINDOW))
    assert padded <= 1.25 * real


@pytest.mark.parametrize("packed", [False, True])
def test_processes_share_no_text(packed: bool) -> None:
    batches = Batches(numbered, 2, context=10, packed=packed, seed=0, processes=3)
    seen: list[set[int]] = [set(), set(), set()]
    for number in range(3 * WINDOW):
        seen[number % 3] |= {int(token) // 1000 for token in batches.batch(number).token_ids.flatten() if token > 0}
    assert all(each % 3 == process for process in range(3) for each in seen[process])


@pytest.mark.parametrize("packed", [False, True])
def test_prompts_that_leave_no_room_for_a_completion_are_told_of(tmp_path: Path, packed: bool) -> None:
    source = write_lines(tmp_path / "a.jsonl", [{"prompt": "abcdefgh", "completion": "c"}])
    asked = stage(source, context=8, loss_on="completion", packed=packed)
    batches = open_batches(asked, tiny.make_tokenizer(), 0)
    for number in range(WINDOW - 1):
        assert batches.batch(number).labels.eq(-100).all(), "which may happen now and then"
    with pytest.raises(UserError, match=r"none of 16 texts has anything to learn within 8 tokens.*raise"):
        batches.batch(WINDOW - 1)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_reading_ahead_gives_the_same_batches(count: int) -> None:
    batches = Batches(numbered, 2, 10, packed=True, seed=0)
    with read_ahead(batches, range(0, 2 * count, 2)) as feed:
        read = [(number, batch.token_ids.tolist()) for number, batch in feed]
    same: Callable[[int], Any] = Batches(numbered, 2, 10, packed=True, seed=0).batch
    assert read == [(number, same(number).token_ids.tolist()) for number in range(0, 2 * count, 2)]
