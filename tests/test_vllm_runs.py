"""vLLM with little memory, and whole runs with it: killed, gone on with, cleaned up after. `make test-vllm`."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import psutil
import pytest
import torch

from harness.budgets import Deadline
from harness.errors import UserError
from harness.models.vllm_ import vllm
from harness.nouns import Request, Sampling

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM: make test-vllm"),
    pytest.mark.filterwarnings("ignore"),  # of vLLM and what it imports
    pytest.mark.slow,
]


def texts(model: Any, asked: list[Request]) -> dict[int, str]:
    return {row.sample_index: row.text for row in model.generate(asked, Deadline(None))}


def test_little_memory_and_a_prefix_cache_change_no_token() -> None:
    torch.set_num_threads(1)
    asked = [Request("p", index, "Tom has 12 apples. " * 8, Sampling(max_tokens=100)) for index in range(8)]
    model: Any = vllm("zoo/teacher", memory_gb=0.2)
    whole = texts(model, asked)
    assert model.facts["preemptions"] == model.facts["cached_prompt_tokens"] == 0
    model.close()
    little = {"block_size": "32", "num_gpu_blocks_override": "20"}
    model = vllm("zoo/teacher", prefix_caching=True, memory_gb=0.2, max_model_len=512, **little)  # type: ignore[arg-type]
    try:
        deadline = Deadline(None)
        rows = list(model.generate(asked, deadline))
        assert {row.sample_index: row.text for row in rows} == whole
        assert model.facts["preemptions"] > 0
        assert model.facts["cached_prompt_tokens"] > 0
        assert model.facts["engine_args"] == little
        assert model.facts["block_size"] == 32
        # What was computed again is charged to the deadline and to no row.
        assert deadline.flops > sum(row.prefill_flops + row.decode_flops for row in rows)
        assert min(row.prefill_flops for row in rows) < max(row.prefill_flops for row in rows)
    finally:
        model.close()
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in os.environ


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "block_sise",
            "32",
            "takes no option 'block_sise', and neither does vLLM's EngineArgs; near it",
        ),
        ("max_num_seqs", "4", "sets max_num_seqs itself; write max_batch_size instead"),
        ("generation_config", "auto", "sets generation_config itself, because the sampling comes from the command"),
        ("block_size", "many", "vLLM does not take these engine arguments .*invalid"),
    ],
)
def test_an_engine_argument_that_vllm_does_not_take_is_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        vllm("zoo/teacher", **{name: text})  # type: ignore[arg-type]


def test_engine_arguments_are_read_as_vllms_command_line_reads_them() -> None:
    from harness.models.vllm_engine.settings import read_fields

    pairs = {"block_size": "32", "enable_lora": "no", "async_scheduling": "false", "override_generation_config": "{}"}
    expected = {"block_size": 32, "enable_lora": False, "async_scheduling": False, "override_generation_config": {}}
    assert read_fields(pairs) == expected


def bench(out: Path, *more: str) -> list[str]:
    asked = ["bench", "zoo/teacher", "--engine", "vllm", "--task", "arithmetic", "--limit", "8", "--samples", "6"]
    options = ["--max-tokens", "120", "-M", "memory_gb=0.2", "-M", "max_batch_size=4", "--json", "--quiet"]
    return [sys.executable, "-m", "harness", *asked, *options, "--out", str(out), *more]


def test_a_run_that_is_killed_goes_on_and_leaves_no_process(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(bench(tmp_path / "run"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process = psutil.Process(first.pid)
    completions = tmp_path / "run" / "completions"
    while first.poll() is None and not list(completions.glob("*.parquet")):
        try:
            process.wait(0.05)
        except psutil.TimeoutExpired:
            continue
    children = process.children(recursive=True)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    kept = len(pandas.concat(map(pandas.read_parquet, completions.glob("*.parquet"))))
    assert 0 < kept < 48
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert alive == [], f"{len(gone)} ended"
    done = subprocess.run(bench(tmp_path / "run"), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    json.loads(done.stdout)  # nothing of vLLM's is on stdout
    rows = pandas.concat(map(pandas.read_parquet, completions.glob("*.parquet")))
    assert len(rows) == len(rows[["problem_id", "sample_index"]].drop_duplicates()) == 48
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert [segment["status"] for segment in manifest["segments"]] == ["killed", "finished"]
    assert manifest["engine"]["engine"] == "vllm"
    whole = subprocess.run(bench(tmp_path / "whole"), env=environment, capture_output=True, text=True)
    assert whole.returncode == 0
    again = pandas.concat(map(pandas.read_parquet, (tmp_path / "whole" / "completions").glob("*.parquet")))
    keys = ["problem_id", "sample_index"]
    assert dict(zip(map(tuple, rows[keys].values), rows["text"], strict=True)) == dict(
        zip(map(tuple, again[keys].values), again["text"], strict=True)
    )


def test_a_wrong_option_ends_with_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(bench(tmp_path / "run", "--engine-arg", "block_sise=3"), capture_output=True, text=True)
    assert done.returncode == 2
    assert "takes no option 'block_sise'" in done.stderr
    assert "Traceback" not in done.stderr
