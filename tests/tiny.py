"""Tiny random checkpoints with a byte-level tokenizer, made on the spot."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BambaConfig,
    BambaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    PreTrainedTokenizerFast,
)

# Models this small are slower on several threads than on one, and much slower on a busy machine.
torch.set_num_threads(1)

SPECIALS = ["<pad>", "<end>", "<start>"]
PAD, END, START = range(3)
VOCAB = 3 + 256
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def make_tokenizer(chat_template: str | None = None, adds_start: bool = False) -> PreTrainedTokenizerFast:
    """One token per byte after the special ones; a text starts with `<start>` when `adds_start`."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIALS)
    if adds_start:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<start> $A", special_tokens=[("<start>", START)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        bos_token="<start>",
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


def llama(**changes: Any) -> LlamaForCausalLM:
    """A Llama of 2 layers, 4 heads over 2 KV heads; weights wide enough that its choices are not all alike."""
    settings: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "max_position_embeddings": 96,
        "initializer_range": 0.3,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "bos_token_id": START,
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()


def mamba2(**changes: Any) -> Mamba2ForCausalLM:
    """A Mamba-2 of 2 layers with one group."""
    settings: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_heads": 8,
        "head_dim": 8,
        "state_size": 16,
        "n_groups": 1,
        "expand": 2,
        "chunk_size": 8,
        "initializer_range": 0.3,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "bos_token_id": START,
    }
    torch.manual_seed(0)
    return Mamba2ForCausalLM(Mamba2Config(**settings | changes)).eval()


def hybrid() -> BambaForCausalLM:
    """A Mamba-2 layer below an attention layer."""
    torch.manual_seed(0)
    config = BambaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        attn_layer_indices=[1],
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_d_state=8,
        mamba_n_groups=1,
        initializer_range=0.3,
        pad_token_id=PAD,
        eos_token_id=END,
        bos_token_id=START,
    )
    return BambaForCausalLM(config).eval()


def save(model: Any, folder: Path, **tokenizer: Any) -> str:
    """Write a checkpoint with its tokenizer; returns the folder as a user types it."""
    model.save_pretrained(folder)
    make_tokenizer(**tokenizer).save_pretrained(folder)
    return str(folder)
