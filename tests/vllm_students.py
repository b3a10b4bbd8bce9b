"""Small checkpoints of each family in sizes that vLLM's kernels have: heads of 32 channels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_students
from tiny import TEMPLATE, make_tokenizer
from tiny_students import MAMBA2, Student

HEADS: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}

STUDENTS: dict[str, Callable[[], Student]] = {
    "llamba": tiny_students.llamba,
    "mamba-1": lambda: tiny_students.mamba_in_llama(attn_layers=(1,), **HEADS),
    "mamba-2": lambda: tiny_students.mamba_in_llama(MAMBA2, attn_layers=(0, 2), d_inner=64, **HEADS),
}
"""One of each kind of mixer: what every test of the plug-in runs on."""

OTHER_FORMS: dict[str, Callable[[], Student]] = {
    "llamba groups": tiny_students.STUDENTS["llamba groups"],
    "llamba untied": tiny_students.STUDENTS["llamba untied"],
    "llamba bias, silu": tiny_students.STUDENTS["llamba bias, silu"],
    "mamba-1 fused": lambda: tiny_students.mamba_in_llama(
        {"expand": 1, "dt_rank": "auto"}, fused_mamba=True, fused_attention=True, **HEADS
    ),
    "mamba-1 late repeat": lambda: tiny_students.mamba_in_llama(
        {"expand": 2, "repeat_kv_before_conv": False, "dt_rank": 3},
        attn_layers=(0, 2),
        tie_word_embeddings=False,
        **HEADS,
    ),
    "mamba-2 pure": lambda: tiny_students.mamba_in_llama(MAMBA2, attn_layers=(), num_hidden_layers=2, **HEADS),
}
"""Other fields and file forms of the same families."""


def write(student: Student, folder: Path) -> str:
    """A checkpoint with a tokenizer, which published Llambas lack; returns the folder as a user types it."""
    path = tiny_students.save(student, folder)
    make_tokenizer(TEMPLATE).save_pretrained(path)
    return path
