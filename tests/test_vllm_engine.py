"""The engine `vllm`: its options, its loop, its end. Most of it needs vLLM 0.32 (docs/vllm.md): `make test-vllm`."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from harness.budgets import Budget, Deadline
from harness.checks.check import check_model
from harness.errors import UserError
from harness.models.native import native
from harness.models.vllm_ import vllm
from harness.models.vllm_engine import installation
from harness.nouns import Completion, Message, Model, Request, Sampling

needs_vllm = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM: make test-vllm"),
    pytest.mark.filterwarnings("ignore"),  # of vLLM and what it imports
    pytest.mark.slow,
]
QUESTIONS = (
    "What is 2 + 3?",
    "Tom has 12 apples and gives away 5. How many are left?",
    "Ann buys 7 pens a day. How many has she after 6 days?",
)


def with_vllm(test: Any) -> Any:
    for mark in needs_vllm:
        test = mark(test)
    return test


# What holds without vLLM


def test_the_engine_is_listed_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from harness import plugins; assert 'vllm' in plugins.names('models');"
        "plugins.load_function('models', 'vllm'); print([name for name in ('vllm', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_vllm_is_answered_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs vLLM 0\.32, which is not installed; install it with `pip install"):
        vllm("zoo/teacher")


@pytest.mark.parametrize(("found", "said"), [("0.31.2", "0.31.2 is here"), ("0.320.0", "0.320.0 is here")])
def test_a_wrong_version_is_answered_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, found: str, said: str
) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda _: object())
    monkeypatch.setattr(installation, "version", lambda _: found)
    with pytest.raises(UserError, match=rf"needs vLLM 0\.32, and {said}; install it with"):
        vllm("zoo/teacher")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"dtype": "int8"}, "no dtype 'int8'; write one of auto, bfloat16, float16, float32"),
        ({"state_dtype": "half"}, "no state_dtype 'half'"),
        ({"max_batch_size": 0}, "max_batch_size must be at least 1, got 0"),
        ({"memory_gb": -1.0}, "memory_gb must be at least 0, got -1.0"),
        ({"rope_scaling": "maybe"}, "no rope_scaling 'maybe'"),
    ],
)
def test_a_setting_without_such_a_value_is_refused(
    monkeypatch: pytest.MonkeyPatch, option: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(installation, "check_installed", lambda: None)
    with pytest.raises(UserError, match=said):
        vllm("zoo/teacher", **option)


# What needs vLLM


def requests(samples: int, sampling: Sampling) -> list[Request]:
    return [
        Request(f"p{number}", index, (Message("user", text),), sampling)
        for index in range(samples)
        for number, text in enumerate(QUESTIONS)
    ]


def run(model: Model, asked: list[Request], deadline: Deadline | None = None) -> dict[tuple[str, int], Completion]:
    rows = list(model.generate(asked, deadline or Deadline(None)))
    return {(row.problem_id, row.sample_index): row for row in rows}


def texts(rows: dict[tuple[str, int], Completion]) -> dict[tuple[str, int], str]:
    return {key: row.text for key, row in rows.items()}


@pytest.fixture(scope="module")
def teacher() -> Iterator[Any]:
    torch.set_num_threads(1)
    model = vllm("zoo/teacher", memory_gb=0.2, max_batch_size=8)
    yield model
    model.close()  # type: ignore[attr-defined]


@with_vllm
def test_it_keeps_the_contract_of_models(teacher: Any) -> None:
    assert [finding for finding in check_model(teacher) if not finding.ok] == []


@with_vllm
def test_stop_strings_and_ends_are_the_native_engines(teacher: Any) -> None:
    asked = requests(1, Sampling(temperature=0.0, max_tokens=120, stop=("The answer", " = 1")))
    asked += [Request("free", 0, "Tom has 12 apples.", Sampling(temperature=0.0, max_tokens=300))]
    own = run(native("zoo/teacher", dtype="float32"), asked)
    theirs = run(teacher, asked)
    for key, row in theirs.items():
        fields = ("text", "finish_reason", "completion_tokens", "prompt_tokens", "decode_flops", "prefill_flops")
        assert [getattr(row, name) for name in fields] == [getattr(own[key], name) for name in fields]
    assert {row.finish_reason for row in theirs.values()} == {"stop"}


@with_vllm
def test_flops_and_tokens_are_charged_as_they_are_spent(teacher: Any) -> None:
    deadline = Deadline(None)
    rows = run(teacher, requests(4, Sampling(max_tokens=40)), deadline).values()
    assert deadline.tokens == sum(row.completion_tokens for row in rows)
    assert deadline.flops == pytest.approx(sum(row.prefill_flops + row.decode_flops for row in rows))
    brief = Deadline(Budget(deadline.flops / 2, "flops"))
    cut = run(teacher, requests(4, Sampling(max_tokens=40)), brief).values()
    assert deadline.flops / 2 <= brief.flops < deadline.flops
    assert any(row.finish_reason == "deadline" for row in cut)


@with_vllm
def test_rows_are_begun_in_the_order_of_the_requests_and_their_times_are_true(teacher: Any) -> None:
    asked = requests(8, Sampling(max_tokens=30))
    deadline = Deadline(None)
    rows = run(teacher, asked, deadline)
    begun = [rows[one.problem_id, one.sample_index] for one in asked]
    assert [row.started_s for row in begun] == sorted(row.started_s for row in begun)
    assert begun[0].first_token_s is not None
    assert begun[0].first_token_s < begun[-1].started_s  # the ninth waits for a place
    for row in begun:
        assert row.first_token_s is not None
        assert 0 <= row.submitted_s <= row.started_s <= row.first_token_s <= row.finished_s <= deadline.elapsed_s
        assert 1 <= row.batch_size <= 8


@with_vllm
def test_a_call_that_is_given_up_leaves_nothing_behind(teacher: Any) -> None:
    asked = requests(6, Sampling(max_tokens=60))
    whole = texts(run(teacher, asked))
    given_up = teacher.generate(asked, Deadline(None))
    next(given_up)
    given_up.close()
    assert not teacher.engine.engine_core.engine_core.scheduler.has_unfinished_requests()
    assert texts(run(teacher, asked)) == whole


@with_vllm
def test_an_error_in_a_step_leaves_the_engine_usable(teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(2, Sampling(max_tokens=20))
    whole = texts(run(teacher, asked))
    with monkeypatch.context() as patched:
        patched.setattr(teacher.engine.engine_core, "get_output", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(teacher, asked)
    assert texts(run(teacher, asked)) == whole


def interrupt() -> None:
    raise KeyboardInterrupt


@with_vllm
def test_a_prompt_without_room_is_a_row_with_the_reason(teacher: Any) -> None:
    asked = [Request("long", 0, "word " * 2000, Sampling(max_tokens=5)), *requests(1, Sampling(max_tokens=5))]
    rows = run(teacher, asked)
    assert rows["long", 0].finish_reason == "error"
    assert "context 1024 has no room for it" in (rows["long", 0].error or "")
    assert len(rows) == 4


@with_vllm
def test_too_high_a_temperature_is_refused(teacher: Any) -> None:
    with pytest.raises(UserError, match="vLLM takes temperatures from 0 to 2, got 3"):
        teacher.generate(requests(1, Sampling(temperature=3.0)), Deadline(None))


@with_vllm
def test_facts_say_what_was_settled(teacher: Any) -> None:
    teacher.prepare([requests(1, Sampling(max_tokens=5))])
    run(teacher, requests(8, Sampling(max_tokens=20)))
    facts = teacher.facts
    json.dumps(facts)
    expected = {
        "engine": "vllm",
        "dtype": "float32",
        "state_dtype": "float32",
        "max_batch_size": 8,
        "prefix_caching": False,
        "cuda_graphs": "NONE",
        "tensor_parallel_size": 1,
        "preemptions": 0,
        "largest_batch_size": 8,
        "cached_prompt_tokens": 0,
    }
    assert {name: facts[name] for name in expected} == expected
    assert 1 < facts["mean_batch_size"] <= 8
