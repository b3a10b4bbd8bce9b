"""Step labels by roll-outs: what the model is given, what the labels are, and that interruption changes nothing."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes import last_word, same

from harness.budgets import Deadline
from harness.errors import UserError
from harness.models import text
from harness.models.distillation.rollouts import finished_completions, label_steps
from harness.models.native import native
from harness.nouns import Completion, Message, Problem, Request, Sampling, Task
from harness.plugins import load_function
from harness.progress import Quiet
from harness.running.bench import Arm, Plan, spec_of
from harness.storage.runs import make_run

TASK = Task(
    "toy", [Problem(f"toy/{i}", (Message("user", f"Count to {i}"),), str(i)) for i in range(4)], last_word, same
)
GOOD = {"<user>Count to 1<bot>a\n": 3, "<user>Count to 1<bot>a\nb\n": 1, "<user>Count to 2<bot>x\n\n": 4}
ROWS = [
    {"problem_id": "toy/1", "sample_index": 0, "text": "a\nb\n1"},
    {"problem_id": "toy/1", "sample_index": 3, "text": "a\nc\n8"},
    {"problem_id": "toy/2", "sample_index": 0, "text": "x\n\n2"},
    {"problem_id": "toy/3", "sample_index": 1, "text": "3"},
]


@dataclass
class Continuer:
    """Continues a text rightly in its first so many samples, `GOOD` tells how many; else wrongly or without end."""

    name: str = "continuer"
    asked: list[Request] = field(default_factory=list)
    fail_at: int | None = None
    error: bool = False

    def render(self, prompt: Any) -> str:
        return prompt if isinstance(prompt, str) else f"<user>{prompt[0].content}<bot>"

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        for request in reversed(requests):
            self.asked.append(request)
            if len(self.asked) == self.fail_at:
                raise KeyboardInterrupt
            assert isinstance(request.prompt, str)
            good = request.sample_index < GOOD.get(request.prompt, 0)
            gold = request.prompt.split("Count to ")[1][0]
            cut = not good and request.sample_index % 2 == 1
            yield Completion(
                request.problem_id, request.sample_index, f"so {gold}" if good or cut else "so 99",
                "error" if self.error else "length" if cut else "stop", 1, 1, seed=request.seed, submitted_s=0.0,
                started_s=0.0, first_token_s=0.0, finished_s=0.0, batch_size=1.0,
                error="broken" if self.error else None,
            )  # fmt: skip


def quiet(title: str, total: int) -> Quiet:
    return Quiet()


def label(model: Any, out: Path, rows: Sequence[Any] = ROWS, **options: Any) -> list[dict[str, Any]]:
    settings: dict[str, Any] = {"continuations": 4, "show_progress": quiet} | options
    label_steps(model, TASK, rows, out, **settings)
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_labels_are_the_shares_of_right_continuations(tmp_path: Path) -> None:
    lines = label(Continuer(), tmp_path / "steps.jsonl")
    assert [(line["problem_id"], line["sample_index"], line["labels"]) for line in lines] == [
        ("toy/1", 0, [0.75, 0.25, 1.0]),
        ("toy/1", 3, [0.75, 0.0, 0.0]),
        ("toy/2", 0, [1.0, 1.0]),
        ("toy/3", 1, [1.0]),
    ]
    assert ["".join(line["steps"]) for line in lines] == [row["text"] for row in ROWS]
    assert lines[2]["steps"] == ["x\n\n", "2"]
    assert lines[0]["prompt"] == "<user>Count to 1<bot>"


def test_the_model_continues_the_rendered_text_and_a_shared_prefix_once(tmp_path: Path) -> None:
    model = Continuer()
    label(model, tmp_path / "steps.jsonl", sampling=Sampling(seed=7, max_tokens=33))
    prefixes = ["<user>Count to 1<bot>a\n", "<user>Count to 1<bot>a\nb\n", "<user>Count to 1<bot>a\nc\n",
                "<user>Count to 2<bot>x\n\n"]  # fmt: skip
    assert sorted(str(request.prompt) for request in model.asked) == sorted(4 * prefixes)
    assert len({request.seed for request in model.asked}) == 16
    assert {request.sampling for request in model.asked} == {Sampling(seed=7, max_tokens=33)}


def test_streams_depend_on_the_text_alone(tmp_path: Path) -> None:
    whole, alone = Continuer(), Continuer()
    label(whole, tmp_path / "a.jsonl")
    label(alone, tmp_path / "b.jsonl", ROWS[1:2], problems_at_once=1)
    seeds = {(request.prompt, request.sample_index): request.seed for request in whole.asked}
    assert all(seeds[request.prompt, request.sample_index] == request.seed for request in alone.asked)


@pytest.mark.parametrize("fail_at", [1, 6, 14])
def test_an_interrupted_file_is_gone_on_with(fail_at: int, tmp_path: Path) -> None:
    expected = label(Continuer(), tmp_path / "whole.jsonl")
    out = tmp_path / "steps.jsonl"
    with pytest.raises(KeyboardInterrupt):
        label(Continuer(fail_at=fail_at), out, problems_at_once=1)
    kept = out.read_text()
    assert all(f'"{name}"' not in kept for name in ("toy/2", "toy/3"))
    model = Continuer()
    assert label(model, out, problems_at_once=1) == expected
    assert len(model.asked) == (4 if kept else 16)


def test_a_problem_written_by_half_is_done_again(tmp_path: Path) -> None:
    out = tmp_path / "steps.jsonl"
    expected = label(Continuer(), out)
    first, second, third, _ = out.read_text().splitlines(keepends=True)
    out.write_text(third + first + second[:20])
    model = Continuer()
    again = label(model, out)
    assert sorted(again, key=lambda row: (row["problem_id"], row["sample_index"])) == expected
    assert {request.problem_id.partition("#")[0] for request in model.asked} == {"toy/1"}
    assert label(finished := Continuer(), out) == again
    assert finished.asked == []


STEPS = [f"{letter}\n" for letter in "abcdefg"]


@dataclass
class OnlyUpTo(Continuer):
    """Continues rightly, once in four samples, where the text has no more than so many lines."""

    good: int = 0

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        for request in requests:
            self.asked.append(request)
            right = str(request.prompt).count("\n") <= self.good and request.sample_index == 2
            yield Completion(
                request.problem_id, request.sample_index, "so 1" if right else "so 99", "stop", 1, 1, seed=0,
                submitted_s=0.0, started_s=0.0, first_token_s=0.0, finished_s=0.0, batch_size=1.0,
            )  # fmt: skip


@pytest.mark.parametrize("good", range(8))
def test_halving_finds_the_first_step_from_which_nothing_comes_right(good: int, tmp_path: Path) -> None:
    wrong = {"problem_id": "toy/1", "sample_index": 0, "text": "".join(STEPS) + "8"}
    model = OnlyUpTo(good=good)
    (line,) = label(model, tmp_path / "steps.jsonl", [wrong], halving=True)
    assert line["labels"] == [1.0] * good + [0.0] * (8 - good)
    assert line["halving"]
    assert len(model.asked) == 4 * 3  # log2 of 8 steps
    assert label(OnlyUpTo(), tmp_path / "steps.jsonl", [wrong], halving=True) == [line]
    with pytest.raises(UserError, match="has labels made by halving; choose another file"):
        label(OnlyUpTo(), tmp_path / "steps.jsonl", [wrong])


def test_halving_believes_what_ends_well(tmp_path: Path) -> None:
    model = OnlyUpTo()
    (line,) = label(model, tmp_path / "steps.jsonl", ROWS[:1], halving=True)
    assert line["labels"] == [1.0, 1.0, 1.0]
    assert model.asked == []


def test_what_cannot_be_labelled_is_a_sentence(tmp_path: Path) -> None:
    out = tmp_path / "steps.jsonl"
    label(Continuer(), out)
    with pytest.raises(UserError, match=r"has labels from 4 continuations, not 2; .* go on with 4"):
        label(Continuer(), out, continuations=2)
    (tmp_path / "other.jsonl").write_text('{"prompt": 1}\n')
    with pytest.raises(UserError, match="holds something else than step labels"):
        label(Continuer(), tmp_path / "other.jsonl")
    with pytest.raises(UserError, match=r"the task toy has no problem 'x/1' that a completion is of; it has toy/0"):
        label(Continuer(), tmp_path / "new.jsonl", [{"problem_id": "x/1", "sample_index": 0, "text": "1"}])
    with pytest.raises(UserError, match="sample 5 of 'toy/1' is blank"):
        label(Continuer(), tmp_path / "new.jsonl", [{"problem_id": "toy/1", "sample_index": 5, "text": " \n"}])
    with pytest.raises(UserError, match="a continuation of 'toy/1' by continuer failed: broken"):
        label(Continuer(error=True), tmp_path / "new.jsonl", ROWS[:1])
    with pytest.raises(UserError, match="must be at least 1, got 0"):
        label(Continuer(), tmp_path / "new.jsonl", continuations=0)


def test_only_completions_that_ended_by_themselves_are_taken(tmp_path: Path) -> None:
    asked = Plan("toy", (), None, None, "latency", None, 6, Sampling())
    spec = spec_of(Arm("m", "plug-in", (), tmp_path), asked, TASK)
    run = make_run(tmp_path / "run", spec, [{"problem_id": "p", "prompt": "p", "gold": "1", "meta": {}}])
    reasons: list[Any] = ["length", "stop", "deadline", "stop", "stop", "stop"]
    texts = ["a", "b", "c", " ", "d", "e"]
    run.add_completions(
        [
            Completion("p", 5 - i, text, why, 1, 1, seed=0, submitted_s=0.0, started_s=0.0, first_token_s=0.0,
                       finished_s=0.0, batch_size=1.0)
            for i, (text, why) in enumerate(zip(texts, reasons, strict=True))
        ]
    )  # fmt: skip
    assert [(row["sample_index"], row["text"]) for row in finished_completions(tmp_path / "run", 2)] == [
        (0, "e"),
        (1, "d"),
    ]


def test_the_teacher_reads_a_rendered_prompt_as_it_reads_the_chat_and_labels_a_slip(tmp_path: Path) -> None:
    teacher = native("zoo/teacher", device="cpu")
    task = load_function("tasks", "arithmetic")(split="train", difficulty=1, num_problems=20, seed=3)
    tokenizer: Any = teacher.tokenizer  # type: ignore[attr-defined]
    for problem in task.problems:
        rendered = text.render(tokenizer, problem.prompt)
        assert text.encode(tokenizer, rendered) == text.encode(tokenizer, problem.prompt)
    problem = task.problems[0]
    solution = str(problem.meta["solution"])
    lines = solution.split("\n")
    digit = lines[1][-2]
    lines[1] = lines[1][:-2] + ("1" if digit != "1" else "2") + "."
    rows = [
        {"problem_id": problem.id, "sample_index": 0, "text": solution},
        {"problem_id": problem.id, "sample_index": 1, "text": "\n".join(lines)},
    ]
    made = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}.jsonl"
        label_steps(
            teacher, task, rows, out, continuations=4, sampling=Sampling(max_tokens=80, seed=1), show_progress=quiet
        )
        made.append([json.loads(line) for line in out.read_text().splitlines()])
    assert made[0] == made[1]
    right, slip = made[0]
    assert right["labels"][0] == slip["labels"][0]
    assert right["labels"][-1] == 1.0
    assert slip["labels"][1] < right["labels"][1]
    task_of_it = dict.fromkeys([*right["labels"], *slip["labels"]])
    assert all(4 * one == int(4 * one) for one in task_of_it)


def test_a_tokenizer_that_reads_the_rendered_prompt_otherwise_is_refused(tmp_path: Path) -> None:
    from tiny import make_tokenizer

    model = Continuer()
    model.tokenizer = make_tokenizer("{% for m in messages %}{{ m['content'] }}{% endfor %}", adds_start=True)  # type: ignore[attr-defined]
    model.render = lambda prompt: text.render(model.tokenizer, prompt)  # type: ignore[attr-defined, method-assign]
    with pytest.raises(UserError, match=r"reads the rendered prompt of 'toy/1' as 11 tokens and its messages as 10"):
        label(model, tmp_path / "steps.jsonl")
