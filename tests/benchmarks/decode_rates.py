"""One engine, one checkpoint, one dtype: seconds per call at several batch sizes. `native_engine.py` starts it.

    python tests/benchmarks/decode_rates.py SPEC.json

SPEC holds `engine`, `checkpoint`, `dtype`, `batches`, `prompts` (each `text` and `ids`), `new_tokens`, `repeats`,
`extra` (calls that may be made again because others disturbed one), `threads` and `out`, the file that receives the
result. It runs under the Python of the engine it measures, so it imports an engine's libraries only when it is asked
for that engine.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

Spec = dict[str, Any]
FUSED = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
"""Projections of one input that an engine can multiply at once, by the one they are joined to."""


class Sampled(NamedTuple):
    """The token count of every row, and a way to read the first row's text."""

    counts: list[int]
    first_text: Callable[[], str]


class Call(NamedTuple):
    """Seconds to the first token and of a whole call, and the cores that other processes used meanwhile."""

    first_token: float
    whole: float
    cores_of_others: float

    @property
    def disturbed(self) -> bool:
        return self.cores_of_others > 0.1


class Engine(NamedTuple):
    """`sample(prompt, batch, new_tokens, temperature)` decodes `batch` rows of one prompt; `facts` go to the report."""

    sample: Callable[[dict[str, Any], int, int, float], Sampled]
    facts: dict[str, Any]


def ours(spec: Spec) -> Engine:
    """An engine of this project, by the name of its function."""
    import torch

    from harness.budgets import Deadline
    from harness.models.native import native
    from harness.models.transformers_ import transformers
    from harness.nouns import Request, Sampling

    torch.set_num_threads(spec["threads"])
    load: Any = {"native": native, "transformers": transformers}[spec["engine"]]
    model = load(spec["checkpoint"], dtype=spec["dtype"], device="cpu", max_batch_size=max(spec["batches"]))

    def sample(prompt: dict[str, Any], batch: int, new_tokens: int, temperature: float) -> Sampled:
        sampling = Sampling(temperature=temperature, max_tokens=new_tokens)
        requests = [Request("problem", index, prompt["text"], sampling) for index in range(batch)]
        done = list(model.generate(requests, Deadline(None)))
        strange = [row for row in done if row.error or row.prompt_tokens != len(prompt["ids"])]
        if strange:
            raise SystemExit(f"{spec['engine']} did other work than was asked: {strange[0]}")
        return Sampled([row.completion_tokens for row in done], lambda: done[0].text)

    return Engine(sample, dict(model.facts))


def generate(spec: Spec) -> Engine:
    """The library call `model.generate` with its default cache, or compiled with a static one (`generate-static`)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, CompileConfig, __version__
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    torch.set_num_threads(spec["threads"])
    model = AutoModelForCausalLM.from_pretrained(spec["checkpoint"], dtype=spec["dtype"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(spec["checkpoint"])
    settings: dict[str, Any] = {"pad_token_id": 0, "top_k": 0}
    if spec["engine"] == "generate-static":
        # Compiled by default on a GPU only.
        compiling = CompileConfig(fullgraph=False, mode="default")
        compiling._compile_all_devices = True
        settings |= {"cache_implementation": "static", "compile_config": compiling}

    def sample(prompt: dict[str, Any], batch: int, new_tokens: int, temperature: float) -> Sampled:
        ids = torch.tensor([prompt["ids"]])
        drawing = {"do_sample": True, "temperature": temperature, "num_return_sequences": batch} if temperature else {}
        with torch.inference_mode():
            rows = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                min_new_tokens=None,
                **drawing,
                **settings,
            )[:, ids.shape[1] :]
        return Sampled([rows.shape[1]] * len(rows), lambda: decode(tokenizer, rows[0].tolist()))

    return Engine(sample, {"engine_version": __version__, "attention": model.config._attn_implementation})


def vllm(spec: Spec) -> Engine:
    """vLLM's offline class with the settings that were found fastest on a CPU."""
    from importlib import import_module

    # Installed elsewhere: type checkers of this project cannot see it.
    library: Any = import_module("vllm")
    recurrent = "mamba" in json.loads((Path(spec["checkpoint"]) / "config.json").read_text())["model_type"]
    # A shared prompt is found block by block, so blocks must be shorter than it; for a recurrent model on a CPU
    # release 0.32.0 fails with an IndexError when prefixes are cached.
    settings: dict[str, Any] = {"enable_prefix_caching": not recurrent}
    if not recurrent:
        settings["block_size"] = 32
    llm = library.LLM(
        spec["checkpoint"],
        dtype=spec["dtype"],
        max_model_len=512,
        max_num_seqs=max(spec["batches"]),
        seed=0,
        **settings,
    )
    tokenizer = llm.get_tokenizer()

    def sample(prompt: dict[str, Any], batch: int, new_tokens: int, temperature: float) -> Sampled:
        params = library.SamplingParams(
            temperature=temperature, max_tokens=new_tokens, ignore_eos=True, detokenize=False
        )
        answers = llm.generate([{"prompt_token_ids": prompt["ids"]} for _ in range(batch)], params, use_tqdm=False)
        rows = [list(answer.outputs[0].token_ids) for answer in answers]
        return Sampled([len(row) for row in rows], lambda: decode(tokenizer, rows[0]))

    return Engine(sample, {"engine_version": library.__version__, **settings})


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def measure(engine: Engine, spec: Spec) -> dict[str, Any]:
    """Per batch size the seconds of calls for one token and for all of them, each call with a prompt of its own."""
    prompts = iter(spec["prompts"])
    greedy = engine.sample(next(prompts), 1, 64, 0.0).first_text()
    result: dict[str, Any] = {"facts": engine.facts, "greedy": greedy.rstrip("\ufffd"), "calls": {}}
    for batch in spec["batches"]:
        timed(engine, next(prompts), batch, spec["new_tokens"])
        calls: list[Call] = []
        while (
            len(calls) < spec["repeats"] + spec["extra"] and sum(not call.disturbed for call in calls) < spec["repeats"]
        ):
            first_token = timed(engine, next(prompts), batch, 1)
            others = other_cpu_seconds()
            whole = timed(engine, next(prompts), batch, spec["new_tokens"])
            calls.append(Call(first_token, whole, (other_cpu_seconds() - others) / whole))
        calls.sort(key=lambda call: (call.disturbed, call.cores_of_others))
        result["calls"][batch] = [call._asdict() for call in calls[: spec["repeats"]]]
    return result


def timed(engine: Engine, prompt: dict[str, Any], batch: int, new_tokens: int) -> float:
    """Seconds of one call. Raises SystemExit when a row is missing or has not exactly `new_tokens` tokens."""
    began = perf_counter()
    counts = engine.sample(prompt, batch, new_tokens, 0.8).counts
    seconds = perf_counter() - began
    if counts != [new_tokens] * batch:
        raise SystemExit(f"wanted {batch} rows of {new_tokens} tokens, got {counts}")
    return seconds


def other_cpu_seconds() -> float:
    """CPU seconds that everything but this process and its children has used since the machine started."""
    import psutil

    machine, me = psutil.cpu_times(), psutil.Process()
    idle = machine.idle + machine.iowait + machine.guest + machine.guest_nice
    mine = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return float(sum(machine) - idle - sum(times.user + times.system for times in mine))


def arithmetic(spec: Spec) -> dict[str, Any]:
    """FLOPs per decoded token at the mean context, and the GEMM rate of each dtype and batch at the model's sizes."""
    import torch
    from transformers import AutoModelForCausalLM

    from harness.models.flops import count_flops

    torch.set_num_threads(spec["threads"])
    model = AutoModelForCausalLM.from_pretrained(spec["checkpoint"], dtype=torch.float32)
    flops = count_flops(model).decode_row(len(spec["prompts"][0]["ids"]), spec["new_tokens"]) / spec["new_tokens"]
    sizes = matrix_sizes(model)
    rates = {
        name: {batch: gemm_flops_per_s(sizes, batch, getattr(torch, name)) for batch in spec["batches"]}
        for name in ("float32", "bfloat16")
    }
    return {"flops_per_token": flops, "parameters": model.num_parameters(), "gemm_flops_per_s": rates}


def matrix_sizes(model: Any) -> list[tuple[int, int]]:
    """(inputs, outputs) of every matrix that a token meets, those of one input joined."""
    from torch import nn

    joined: dict[str, tuple[int, int]] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            parent, _, name = path.rpartition(".")
            key = f"{parent}.{FUSED.get(name, name)}"
            joined[key] = (module.in_features, joined.get(key, (0, 0))[1] + module.out_features)
    return list(joined.values())


def gemm_flops_per_s(sizes: list[tuple[int, int]], batch: int, dtype: Any) -> float:
    """The best rate of products with all matrices in turn, over two layouts of the weights and 20 trials."""
    import torch

    inputs = {size: torch.randn(batch, size, dtype=dtype) for size, _ in sizes}
    weights = [torch.randn(outputs, size, dtype=dtype) for size, outputs in sizes]
    flipped = [weight.t().contiguous() for weight in weights]
    ways: list[Callable[[], object]] = [
        lambda: [torch.nn.functional.linear(inputs[weight.shape[1]], weight) for weight in weights],
        lambda: [torch.mm(inputs[weight.shape[0]], weight) for weight in flipped],
    ]
    with torch.inference_mode():
        fastest = min(seconds_per_pass(way) for way in ways for _ in range(20))
    return 2 * batch * sum(size * outputs for size, outputs in sizes) / fastest


def seconds_per_pass(work: Callable[[], object], passes: int = 50) -> float:
    began = perf_counter()
    for _ in range(passes):
        work()
    return (perf_counter() - began) / passes


ENGINES: dict[str, Callable[[Spec], Engine]] = {
    "native": ours,
    "transformers": ours,
    "generate": generate,
    "generate-static": generate,
    "vllm": vllm,
}


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    result = arithmetic(spec) if spec["engine"] == "arithmetic" else measure(ENGINES[spec["engine"]](spec), spec)
    Path(spec["out"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
