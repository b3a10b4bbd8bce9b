"""Does a model behind vLLM's server score as it does in the engine `vllm`, and what do its seconds hold besides?

    VENV/bin/python tests/benchmarks/served.py --problems 30 --samples 16 --budget 8s --out FOLDER

VENV is an environment with vLLM and openai (docs/vllm.md). The same problems of `arithmetic` are benched twice with the
same seeds: by the engine `vllm` in this process's child, and by the engine `openai` from vLLM's server, float32, one
thread for the model. Printed are paired differences (server less engine) of coverage and majority at numbers of samples
and at seconds, with 95 % intervals over problems; when a problem's last sample was there; and the processor time per
token of the client and of each process of the server, which other work on the machine hardly disturbs. The last line of
stdout is one JSON document.

Run it on a machine that does nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from vllm_server import serving

from harness import plugins
from harness.analysis.bank import Item, load_bank
from harness.analysis.curves import value_of
from harness.models.checkpoints import find_checkpoint
from harness.nouns import Selector
from harness.stats.paired import paired_difference
from harness.storage.runs import open_run

ENGINE = ("--engine", "vllm", "-M", "dtype=float32", "-M", "max_model_len=1024", "-M", "enforce_eager=true",
          "-M", "memory_gb=2")  # fmt: skip


def bench(options: argparse.Namespace, out: Path, *words: str) -> float:
    """One run by `ttc bench`; returns its processor seconds."""
    command = [
        sys.executable, "-m", "harness", "bench", *words, "--task", "arithmetic", "--limit", str(options.problems),
        "--samples", str(options.samples), "--max-tokens", "400", "--budget", options.budget, "--out", str(out),
    ]  # fmt: skip
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    before = os.times()
    subprocess.run(command, env=os.environ | settings, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def processor_s(process: psutil.Process) -> dict[str, float]:
    """Processor seconds so far of a server's processes, by their names; those under 1 s are left out."""
    found: dict[str, float] = {}
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        found[one.name()] = found.get(one.name(), 0.0) + times.user + times.system
    return {name: seconds for name, seconds in found.items() if seconds >= 1}


def last_s(item: Item) -> float:
    """When the last sample that the budget did not cut was there."""
    seconds = item.positions["seconds"]
    return float(np.max(seconds, where=np.isfinite(seconds), initial=0.0))


def at(items: Sequence[Item], selector: Selector, seconds: float) -> np.ndarray:
    """(problems,) the selector's accuracy on what was there in time."""
    found = []
    for item in items:
        places = np.flatnonzero(item.positions["seconds"] <= seconds)
        found.append(value_of(selector, item.prompt, item.graded.take(places)))
    return np.array(found)


def row_of(name: str, where: str, engine: np.ndarray, server: np.ndarray) -> dict[str, Any]:
    """One difference with its interval."""
    gap = paired_difference(engine[None, :, None], server[None, :, None])
    difference, low, high = (float(np.ravel(one)[0]) for one in (gap.difference, gap.low, gap.high))
    print(
        f"{name:10} {where:10} engine {engine.mean():.3f}  server {server.mean():.3f}  "
        f"{100 * difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    )
    return {
        "selector": name, "at": where, "engine": float(engine.mean()), "server": float(server.mean()),
        "difference": difference, "low": low, "high": high,
    }  # fmt: skip


def compare(engine: Sequence[Item], server: Sequence[Item], samples: int) -> list[dict[str, Any]]:
    """Differences at numbers of samples and at shares of the engine's longest problem."""
    rows = []
    longest_s = max(map(last_s, engine))
    for selector in plugins.load_selectors(["coverage", "majority"]):
        for k in sorted({1, max(1, samples // 4), samples}):
            values = [np.array([selector.expected(one.graded, [k])[0] for one in items]) for items in (engine, server)]
            rows.append(row_of(selector.name, f"k = {k}", *values))
        for share in (0.5, 0.75, 1.0, 1.25):
            seconds = share * longest_s
            values = [at(items, selector, seconds) for items in (engine, server)]
            rows.append(row_of(selector.name, f"{seconds:.2f} s", *values))
    return rows


def main() -> None:
    """Make both runs and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="zoo/teacher")
    parser.add_argument("--problems", type=int, default=30)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--budget", default="8s")
    parser.add_argument("--server-option", action="append", default=[], help="for example --stream-interval=8")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = find_checkpoint(options.model).folder
    runs = {name: options.out / name for name in ("engine", "server")}
    options.out.mkdir(parents=True, exist_ok=True)
    bench(options, runs["engine"], str(model), *ENGINE)
    with serving(model, options.out / "server.log", 1024, options.server_option) as served:
        leader = psutil.Process(served.process.pid)
        before = processor_s(leader)
        client_s = bench(
            options, runs["server"], model.name, "--base-url", served.url, "-M", "protocol=completions",
            "-M", f"tokenizer={model}",
        )  # fmt: skip
        spent = {name: seconds - before.get(name, 0.0) for name, seconds in processor_s(leader).items()}
    banks = {name: load_bank(open_run(path)) for name, path in runs.items()}
    rows = compare(banks["engine"], banks["server"], options.samples)
    last = {name: [last_s(item) for item in bank] for name, bank in banks.items()}
    tokens = pc.sum(pq.read_table(runs["server"] / "completions")["completion_tokens"]).as_py()
    for name, seconds in last.items():
        print(f"{name}: a problem's last sample after {np.median(seconds):.2f} s in the median")
    for name, cpu_s in spent.items():
        print(f"server's {name}: {1e6 * cpu_s / tokens:.0f} µs of processor time a token")
    document = {
        "rows": rows, "last_s": {name: float(np.median(seconds)) for name, seconds in last.items()}, "tokens": tokens,
        "server_processor_s": spent, "client_processor_s": client_s,
    }  # fmt: skip
    print(json.dumps(document))


if __name__ == "__main__":
    main()
