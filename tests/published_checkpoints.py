"""Tiny random checkpoints under the hub names of the paper's experiment, in the formats their authors published."""

import json
from pathlib import Path
from typing import Any

import torch
from tiny import TEMPLATE, make_tokenizer
from tiny_students import MAMBA1, Student, llama, llamba, mamba_in_llama, save
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

HEADS: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
"""Sizes that vLLM's kernels have."""
FUSED: dict[str, Any] = {"fused_mamba": True, "fused_attention": True}
"""The key names of the other of the two codes that train MambaInLlama."""

MODELS: dict[str, Student] = {
    "meta-llama/Llama-3.2-1B-Instruct": llama(seed=11, **HEADS),
    "cartesia-ai/Llamba-1B": llamba(seed=12),
    "JunxiongWang/MambaInLlama1B_Distill_MATH": mamba_in_llama(MAMBA1, seed=13, **HEADS),
    "JunxiongWang/MambaInLlama1B_SFT_MATH": mamba_in_llama(MAMBA1, seed=14, **FUSED, **HEADS),
    "meta-llama/Llama-3.2-3B-Instruct": llama(seed=15, num_hidden_layers=3, **HEADS),
    "cartesia-ai/Llamba-3B": llamba(seed=16, n_layer=3),
    "JunxiongWang/MambaInLlama3B_Distill_MATH": mamba_in_llama(MAMBA1, (0, 2), seed=17, **HEADS),
    "JunxiongWang/MambaInLlama3B_SFT_MATH": mamba_in_llama(MAMBA1, (0, 2), seed=18, **FUSED, **HEADS),
}
TOKENIZER_OF_LLAMBA = "meta-llama/Llama-3.1-8B-Instruct"
"""Llambas are published without a tokenizer and take that of the Llama of their width; for these narrow ones this."""
PROCESS, OUTCOME = "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2"

MATH500 = [
    {
        "problem": f"Compute $\\frac{{{2 * n}}}{{4}}$.",
        "solution": f"Half of ${n}$ is $\\boxed{{\\frac{{{n}}}{{2}}}}$.",
        "answer": f"\\frac{{{n}}}{{2}}",
        "subject": "Prealgebra",
        "level": 1 + n % 5,
        "unique_id": f"test/prealgebra/{n}.json",
    }
    for n in (3, 5, 7)
]
GSM8K = [
    {"question": f"Ann has {n} pens and gets {n} more. How many?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"}
    for n in (3, 4, 6)
]


def write_all(folder: Path, models: list[str] | None = None) -> None:
    """Models, reward models and both data sets, in a folder that stands for the hub."""
    for name in MODELS if models is None else models:
        save(MODELS[name], folder / name)
    write_tokenizer(folder / TOKENIZER_OF_LLAMBA)
    write_reward_model(LlamaForCausalLM, folder / PROCESS)
    write_reward_model(LlamaForSequenceClassification, folder / OUTCOME, num_labels=1)
    for name, rows in (("math500", MATH500), ("gsm8k", GSM8K)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_tokenizer(folder: Path) -> None:
    """What Llamba needs of its teacher."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    make_tokenizer(TEMPLATE).save_pretrained(folder)


def write_reward_model(kind: Any, folder: Path, **changes: Any) -> None:
    """A Llama that judges, in bfloat16 and spelled as files from before transformers 5 are."""
    torch.manual_seed(21)
    config = LlamaConfig(
        vocab_size=259, hidden_size=32, num_hidden_layers=2, intermediate_size=48, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, initializer_range=0.3, pad_token_id=0, eos_token_id=1,
        bos_token_id=2, **changes,
    )  # fmt: skip
    kind(config).to(torch.bfloat16).save_pretrained(folder)
    make_tokenizer(TEMPLATE).save_pretrained(folder)
    stored = json.loads((folder / "config.json").read_text())
    stored["rope_theta"] = stored.pop("rope_parameters")["rope_theta"]
    (folder / "config.json").write_text(json.dumps(stored))
