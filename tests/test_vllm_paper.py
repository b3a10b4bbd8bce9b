"""The paper's experiment through the engine that its file names, on tiny random checkpoints. `make test-vllm`."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from published_checkpoints import OUTCOME, PROCESS, write_all

from harness.storage.runs import open_run
from harness.sweeping.sweep import paper_file

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM: make test-vllm"),
    pytest.mark.slow,
]

MODELS = {
    "Llama-1B": "meta-llama/Llama-3.2-1B-Instruct",
    "Llamba-1B": "cartesia-ai/Llamba-1B",
    "MambaInLlama-1B-SFT": "JunxiongWang/MambaInLlama1B_SFT_MATH",
}
"""One of each architecture."""
CHANGES = (
    "limit=2", "samples=4", "max_tokens=16", "math500.data=math500.jsonl", "speed.batch=[1, 2]", "speed.prompt=16",
    "speed.generate=16", "speed.context=24", "speed.passes=2", "speed.repeats=1",
    "engine_arg={ dtype = 'bfloat16', memory_gb = '0.2', max_model_len = '512' }",
)  # fmt: skip


def shortened(text: str) -> str:
    """The shipped file with three of its models and one of its tasks, each table as it stands there."""
    head, *tables = text.split("\n[[model]]\n")
    models = [table.split("\n# ")[0].split("\n[[task]]\n")[0] for table in tables]
    tasks = text.split("\n[[task]]\n")[1:]
    rest = "\n[speed]\n" + text.split("\n[speed]\n")[1]
    kept = [table for table in models if any(f'"{name}"' in table for name in MODELS.values())]
    return "\n[[model]]\n".join([head.split("\n# 1B")[0], *kept]) + "\n[[task]]\n" + tasks[0] + rest


def test_every_step_runs_through_the_files_own_engine(tmp_path: Path) -> None:
    write_all(tmp_path, list(MODELS.values()))
    (tmp_path / "short.toml").write_text(shortened(paper_file("full").read_text()))
    changes = [part for change in CHANGES for part in ("--set", change)]
    command = [sys.executable, "-m", "harness", "sweep", "short.toml", "--json", "--quiet", *changes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert [run["run"] for run in json.loads(done.stdout)["runs"]] == [f"math500-{label}" for label in MODELS]
    results = tmp_path / "results/thinking-slow-fast"
    for label, model in MODELS.items():
        run = open_run(results / f"math500-{label}")
        assert (run.spec["model"], run.manifest["missing"], len(run.completions())) == (model, 0, 8)
        assert (run.manifest["engine"]["engine"], run.manifest["engine"]["dtype"]) == ("vllm", "bfloat16")
        assert [len(run.scored(judge)) for judge in (PROCESS, OUTCOME)] == [8, 8]
        cells = pandas.read_parquet(results / "speed" / label / "timings.parquet")
        assert set(cells["phase"]) >= {"prefill", "decode"}
    assert (results / "report/speed.png").is_file()
    assert (results / "report/accuracy-seconds.png").is_file()
