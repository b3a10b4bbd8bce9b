"""Decode speed of the native engine on a GPU, for the published shapes with random weights, against the memory bound.

    python tests/benchmarks/gpu_decode.py --out results/gpu-decode.csv
    python tests/benchmarks/gpu_decode.py --models preset/llama-3.2-1b preset/llamba-1b --batch 64 512 --generate 512

For every model, batch size and number of generated tokens: prompts of `--prompt` tokens are read, then as many passes
as tokens are taken through the engine's own slots and CUDA graphs, with sampling. Printed and stored: tokens per
second, the bytes that one pass must move at the mean context (see `bytes_per_pass`), and the share that was reached
of the speed that the measured copy bandwidth of the same GPU allows for them. With `--against-transformers`,
transformers' `generate` with a static cache runs the Llama shapes beside it. What does not fit is printed as such.
The last line is JSON.

On a CPU it runs too (`--device cpu`), which is good for trying it out.
"""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import torch

from harness.models.architectures.causal_lm import CausalLM
from harness.models.decode_graphs import CudaRecorder
from harness.models.native import load_model
from harness.models.slots import Slots
from harness.nouns import Sampling

MODELS = [
    "preset/llama-3.2-1b", "preset/llamba-1b", "preset/mamba-in-llama-1b", "preset/llama-3.2-3b", "preset/llamba-3b",
    "preset/mamba-in-llama-3b", "preset/mamba2-in-llama-3b", "preset/phi-mamba-1.5b",
]  # fmt: skip
BATCHES = [1, 8, 32, 64, 128, 256, 512]
PREFILL_ROWS = 8
SAMPLING = Sampling(temperature=0.8)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second that a large copy reads and writes, the median of ten."""
    source = torch.empty(2**29 if device.type == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(11):
        synchronize(device)
        began = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return 2 * source.numel() / sorted(seconds[1:])[5]


def bytes_per_pass(model: CausalLM, slots: Slots, batch: int, context: float) -> float:
    """What one pass must move: weights once, KV columns read, states and windows read and written, for every row.

    The embedding table counts only as the tied head's matrix or not at all; logits and activations are not counted.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    if model.head.weight is not model.embedding.weight:
        weights -= model.embedding.weight.numel() * model.embedding.weight.element_size()
    per_row = 0.0
    for buffers, grows in zip(slots.states, slots.grows, strict=True):
        for buffer in buffers:
            one = buffer[0].numel() * buffer.element_size()
            per_row += one * context / slots.columns if grows else 2 * one
    return weights + batch * per_row


@torch.inference_mode()
def fill_slots(model: CausalLM, slots: Slots, batch: int, prompt: int, generate: int) -> None:
    """Read random prompts, a few rows at a time, and draw their first tokens."""
    slots.prepare(SAMPLING, None)
    vocabulary = model.head.weight.shape[0]
    for first in range(0, batch, PREFILL_ROWS):
        rows = min(PREFILL_ROWS, batch - first)
        logits, states = model.prefill(torch.randint(vocabulary, (rows, prompt), device=slots.rows.device))
        order = list(range(rows))
        seeds = [first + row for row in order]
        new = slots.enter(states, order, seeds, [prompt] * rows, seeds, [generate] * rows, [0] * rows)
        slots.draw(new, logits, SAMPLING)


def measure(model: CausalLM, batch: int, prompt: int, generate: int) -> dict[str, Any]:
    """Seconds of the passes after the prompts, and the bytes behind them."""
    device = model.embedding.weight.device
    never = torch.zeros(model.head.weight.shape[0], dtype=torch.bool, device=device)
    record = CudaRecorder() if device.type == "cuda" else None
    slots = Slots(model, batch, prompt + generate, generate, torch.float32, never, record)
    fill_slots(model, slots, batch, prompt, generate)
    synchronize(device)
    began = time.perf_counter()
    for _ in range(generate - 1):
        slots.advance(SAMPLING)
    synchronize(device)
    seconds = time.perf_counter() - began
    moved = bytes_per_pass(model, slots, batch, prompt + generate / 2)
    return {"seconds": seconds, "passes": generate - 1, "bytes_per_pass": moved}


def transformers_seconds(name: str, batch: int, prompt: int, generate: int, device: str) -> float:
    """Seconds of transformers' own generation of a Llama shape, prompts included, after one short run to warm up."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from harness.models.architectures.presets import find_preset

    config = LlamaConfig(**find_preset(name.removeprefix("preset/")).config)
    with torch.device(device):
        model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
        ids = torch.randint(config.vocab_size, (batch, prompt))
    settings = {"do_sample": True, "temperature": 0.8, "top_k": 0, "eos_token_id": None, "pad_token_id": 0}
    for tokens in (8, generate):
        synchronize(ids.device)
        began = time.perf_counter()
        model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, cache_implementation="static", **settings)
        synchronize(ids.device)
    return time.perf_counter() - began


def lines(options: argparse.Namespace) -> Any:
    """One measured line after another."""
    device = torch.device(options.device)
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    bandwidth = copy_bandwidth(device)
    for name in options.models:
        model = load_model(name, torch.bfloat16, options.device)
        for generate in options.generate:
            for batch in options.batch:
                line = {"model": name, "hardware": hardware, "batch": batch, "prompt": options.prompt}
                line |= {"generate": generate, "copy_gb_per_s": bandwidth / 1e9}
                try:
                    found = measure(model, batch, options.prompt, generate)
                except torch.OutOfMemoryError:
                    yield line | {"error": "does not fit"}
                    continue
                step_s = found["seconds"] / found["passes"]
                bound_s = found["bytes_per_pass"] / bandwidth
                line |= {"tokens_per_s": batch / step_s, "ms_per_pass": 1e3 * step_s}
                line |= {"gb_per_pass": found["bytes_per_pass"] / 1e9, "share_of_bound": bound_s / step_s}
                if options.against_transformers and "llama-3" in name:
                    other_s = transformers_seconds(name, batch, options.prompt, generate, options.device)
                    line["transformers_tokens_per_s"] = batch * generate / other_s
                yield line
        del model


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batch", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", nargs="+", type=int, default=[512, 2048])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--against-transformers", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    done = []
    for line in lines(options):
        done.append(line)
        print(
            " ".join(
                f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in line.items()
            )
        )
    if options.out:
        fields = list({key: None for line in done for key in line})
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(done)
    print(json.dumps(done))


if __name__ == "__main__":
    main()
