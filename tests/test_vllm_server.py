"""The engine `openai` on a real server: vLLM's own, with a shipped model. `make test-vllm`."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from vllm_server import Served, serving

from harness.budgets import Budget, Deadline, monotonic
from harness.models.native import native
from harness.models.openai_ import openai
from harness.nouns import Completion, Message, Request, Sampling

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM: make test-vllm"),
    pytest.mark.slow,
]

MODEL = Path(__file__).parents[1] / "models" / "zoo" / "teacher"
QUESTIONS = [
    f"Tom has {first} apples. Tom loses {second} apples. Then Tom finds {third} more apples. How many has Tom now?"
    for first, second, third in [(12, 5, 30), (40, 17, 8), (9, 2, 9), (77, 33, 21), (25, 24, 50), (61, 6, 16)]
]
GREEDY = Sampling(temperature=0.0, max_tokens=400)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(MODEL, tmp_path_factory.mktemp("server") / "log", max_model_len=512) as found:
        yield found


def requests_of(sampling: Sampling) -> list[Request]:
    return [Request(str(place), 0, (Message("user", text),), sampling) for place, text in enumerate(QUESTIONS)]


def by_problem(model: Any, sampling: Sampling, budget: Budget | None = None) -> dict[str, Completion]:
    try:
        return {row.problem_id: row for row in model.generate(requests_of(sampling), Deadline(budget, monotonic))}
    finally:
        model.close()


def connected(server: Served, **options: Any) -> Any:
    return openai("teacher", base_url=server.url, **options)


@pytest.fixture(scope="module")
def own() -> dict[str, Completion]:
    model: Any = native(str(MODEL))
    return {row.problem_id: row for row in model.generate(requests_of(GREEDY), Deadline(None))}


@pytest.mark.parametrize("options", [{"protocol": "chat"}, {"protocol": "completions", "tokenizer": str(MODEL)}])
def test_greedy_answers_are_the_native_engines(server: Served, own: dict[str, Completion], options: Any) -> None:
    rows = by_problem(connected(server, **options), GREEDY)
    assert {name: row.text for name, row in rows.items()} == {name: row.text for name, row in own.items()}
    for name, row in rows.items():
        assert (row.finish_reason, row.prompt_tokens, row.completion_tokens) == (
            "stop", own[name].prompt_tokens, own[name].completion_tokens,
        )  # fmt: skip
        assert row.first_token_s is not None
        assert row.started_s < row.first_token_s < row.finished_s


def test_a_budget_cuts_what_the_server_writes_and_keeps_the_beginning(
    server: Served, own: dict[str, Completion]
) -> None:
    whole = by_problem(connected(server), GREEDY)
    budget = Budget(0.5 * min(row.finished_s for row in whole.values()), "seconds")
    rows = by_problem(connected(server), GREEDY, budget)
    cut = {name: row for name, row in rows.items() if row.finish_reason == "deadline"}
    assert cut
    for name, row in cut.items():
        assert own[name].text.startswith(row.text)
        assert row.completion_tokens < own[name].completion_tokens


def test_sampling_is_asked_for_as_it_is_meant(server: Served) -> None:
    model = connected(server)
    asked = [
        Request("p", index, (Message("user", QUESTIONS[0]),), Sampling(1.0, seed=1, max_tokens=40))
        for index in range(8)
    ]
    rows = list(model.generate(asked, Deadline(None)))
    model.close()
    assert len({row.text for row in rows}) > 1
    assert all(row.logprob is not None and row.logprob < 0 for row in rows)
    assert model.facts["refused_fields"] == []
    assert model.facts["token_counts"] == {"usage": 8}


def test_a_bench_of_a_served_model(server: Served, tmp_path: Path) -> None:
    command = ["bench", "teacher", "--base-url", server.url, "--task", "arithmetic", "--limit", "3", "--samples", "4",
               "--max-tokens", "300", "--budget", "30s", "--out", str(tmp_path / "run")]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "harness", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "run" / "completions").to_pylist()
    assert len(rows) == 12
    assert {row["finish_reason"] for row in rows} <= {"stop", "length"}


def test_a_server_that_is_killed_leaves_rows_that_say_so(server: Served) -> None:
    model = connected(server, max_retries=0, extra_body='{"ignore_eos": true}')
    requests = [Request("p", index, (Message("user", QUESTIONS[0]),), GREEDY) for index in range(16)]
    killer = threading.Timer(0.2, os.killpg, (server.process.pid, signal.SIGKILL))
    killer.start()
    try:
        rows = list(model.generate(requests, Deadline(None)))
    finally:
        killer.join()
        model.close()
    lost = [row for row in rows if row.finish_reason == "error"]
    assert len(rows) == 16
    assert lost
    assert all("the connection failed" in (row.error or "") for row in lost)
    assert model.facts["failed_requests"] == len(lost)
