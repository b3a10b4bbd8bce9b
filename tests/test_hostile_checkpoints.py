"""Attacks by whoever made a checkpoint: templates, pickles and configs that would like to have code run."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from harness import plugins
from harness.errors import UserError
from harness.nouns import Message


class Payload:
    """Unpickled, it makes the file `owned`."""

    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    import tiny

    folder = tmp_path / "checkpoint"
    tiny.llama().save_pretrained(folder)
    tiny.make_tokenizer(tiny.TEMPLATE).save_pretrained(folder)
    return folder


TEMPLATES = {
    "builtins": "{{ cycler.__init__.__globals__.os.popen('touch owned').read() }}",
    "subclasses": "{{ ().__class__.__base__.__subclasses__() }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "filter": "{{ messages | map(attribute='__class__.__mro__') | list }}",
    "file": "{% include '/etc/passwd' %}",
    "words": "{{ raise_exception('\x1b]0;owned\x07') }}",
    "syntax": "{% if",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=list(TEMPLATES))
def test_a_chat_template_stays_in_its_sandbox(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    """It raises, which becomes the row's error, or its text is a prompt; nothing of Python's comes into it."""
    from harness.models.checkpoints import find_checkpoint
    from harness.models.text import render
    from harness.models.tokenizers_ import load_tokenizer

    monkeypatch.chdir(tmp_path)
    (checkpoint / "chat_template.jinja").write_text(template)
    tokenizer = load_tokenizer(find_checkpoint(str(checkpoint)))
    try:
        told = render(tokenizer, (Message("user", "hi"),))
    except Exception as error:
        told = str(error)
    assert not any(word in told for word in ("<class", "__main__", "root:"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("engine", ["native", "transformers"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "torch.bin"])
def test_a_pickle_under_any_name_is_not_unpickled(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, engine: str, file: str
) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    (checkpoint / "model.safetensors").unlink()
    if file == "torch.bin":
        torch.save({"model.norm.weight": Payload()}, checkpoint / "pytorch_model.bin")
    else:
        (checkpoint / file).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(UserError):
        plugins.load_model(str(checkpoint), engine, ["device=cpu"])
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"attn_implementation": "evil/kernels"},
        {"_attn_implementation": "evil/kernels@main:run"},
        {"attn_implementation": {"": "evil/kernels", "text_config": "sdpa"}},
        {"text_config": {"attn_implementation": "evil/kernels"}},
        {"experts_implementation": "evil/kernels"},
    ],
)
def test_a_config_has_no_kernels_of_the_hub_run(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    import torch
    import transformers

    from harness.models.checkpoints import find_checkpoint
    from harness.models.reward_models.trunks import load_library

    def loaded(*given: object, **more: object) -> None:
        raise AssertionError("transformers was asked")

    for name in ("AutoModel", "AutoModelForCausalLM"):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", loaded)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match="has code of 'evil/kernels"):
        plugins.load_model(str(checkpoint), "transformers", ["device=cpu"])
    with pytest.raises(UserError, match="has code of 'evil/kernels"):
        load_library(find_checkpoint(str(checkpoint)), torch.float32, torch.device("cpu"))
