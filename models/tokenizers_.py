"""The tokenizer of a checkpoint, its base model's where it ships none, and the tokens that end a text."""

import json
from typing import Any

from harness.errors import UserError

from .checkpoints import Checkpoint, tokenizer_files, whole_folder

LLAMA3_ENDS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
"""What ends a turn of a Llama 3 model, and of every student distilled from one; student repositories do not say so."""


def load_tokenizer(checkpoint: Checkpoint, *, source: str = "", trust_remote_code: bool = False) -> Any:
    """A transformers tokenizer.

    Args:
        checkpoint: Llamba and Phi-Mamba repositories ship no tokenizer; for them the base model's is taken.
        source: a folder or hub id to load it from instead.
        trust_remote_code: let the checkpoint run its own Python code.

    Raises UserError when there is none, naming the two ways out.
    """
    from transformers import AutoTokenizer

    place = source or (checkpoint.source if has_tokenizer(checkpoint) else base_model(checkpoint))
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
    except Exception as error:  # the libraries behind it let errors of every type through for damaged files
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
        raise UserError(
            f"no tokenizer can be loaded for '{checkpoint.name}' from '{place}' ({reason.rstrip('.')}); put the "
            "tokenizer.json and tokenizer_config.json of its base model beside its config.json"
        ) from error


def has_tokenizer(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint can be expected to bring its own."""
    if checkpoint.family not in ("llamba", "phi-mamba"):
        return True
    return bool(tokenizer_files(checkpoint))


def base_model(checkpoint: Checkpoint) -> str:
    """The hub id of the model that a Llamba or Phi-Mamba was distilled from; the chat form, for its template."""
    if checkpoint.family == "phi-mamba":
        return "microsoft/phi-1_5"
    size = {2048: "3.2-1B", 3072: "3.2-3B"}.get(checkpoint.config.get("d_model", 0), "3.1-8B")
    return f"meta-llama/Llama-{size}-Instruct"


def end_tokens(checkpoint: Checkpoint, tokenizer: Any) -> frozenset[int]:
    """Every token id that ends a completion: generation_config.json's, config.json's, the tokenizer's, Llama 3's."""
    ids: set[int] = set()
    for value in (generation_config(checkpoint), checkpoint.config):
        ids.update(as_list(checkpoint.name, value.get("eos_token_id")))
    ids.update(as_list(checkpoint.name, tokenizer.eos_token_id))
    vocabulary = tokenizer.get_vocab()
    ids.update(vocabulary[token] for token in LLAMA3_ENDS if token in vocabulary)
    return frozenset(ids)


def generation_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's generation_config.json; empty when there is none."""
    path = whole_folder(checkpoint) / "generation_config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"the generation_config.json of '{checkpoint.name}' is not valid JSON ({error}); download it again"
        ) from error
    return config if isinstance(config, dict) else {}


def as_list(name: str, value: Any) -> list[int]:
    """One token id, several, or none, as files spell them. Raises UserError for anything else."""
    ids = value if isinstance(value, list) else [value] if value is not None else []
    if any(type(token) is not int for token in ids):
        raise UserError(
            f"the eos_token_id of '{name}' is {value!r}, not a token id or a list of them; download it again"
        )
    return ids


def byte_tokenizer() -> Any:
    """One token per byte, for models with random weights that have no tokenizer of their own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
