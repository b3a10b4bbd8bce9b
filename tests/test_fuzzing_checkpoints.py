"""Every reader of checkpoints and recipes on hostile input: a result or one sentence, never another exception."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from fuzzing import TEXTS, changed, few, mangled, many, told, values
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from harness import plugins
from harness.models.checkpoints import find_checkpoint
from harness.models.distillation.documents import read_file
from harness.models.distillation.recipes import read_recipe
from harness.models.distillation.reward_data import read_line
from harness.models.tokenizers_ import load_tokenizer
from harness.models.weights import open_weights

FILES = sorted((Path(__file__).resolve().parents[1] / "recipes").glob("*.toml"))
RECIPES = [file for file in FILES if "[[model]]" not in file.read_text()]
"""Those of students and reward models; the others are sweeps."""
WEIGHTS = {"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama on disk."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.llama().save_pretrained(folder)
    tiny.make_tokenizer(tiny.TEMPLATE).save_pretrained(folder)
    return folder


@pytest.fixture
def restored(folder: Path) -> Any:
    """The folder, put back as it was."""
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    yield folder
    for path, content in before.items():
        path.write_bytes(content)


@many
@given(data=st.data())
def test_weight_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "weights"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    whole = save(WEIGHTS)
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.dumps(data.draw(changed(json.loads(whole[8 : 8 + size])))).encode()
    forged = struct.pack("<Q", data.draw(st.just(len(header)) | st.integers(0, 2**64 - 1))) + header + whole[8 + size :]
    (folder / "model.safetensors").write_bytes(data.draw(st.just(forged) | mangled(whole)))
    found = told(open_weights, find_checkpoint(str(folder)))
    if found is not None:
        for key, shape in found.shapes.items():
            tensor = told(found.tensor, key)
            assert tensor is None or tuple(tensor.shape) == shape
    (folder / "model.safetensors.index.json").write_text(json.dumps(data.draw(values(("weight_map", "metadata")))))
    told(open_weights, find_checkpoint(str(folder)))
    (folder / "model.safetensors.index.json").unlink()


@few
@given(data=st.data())
def test_configs(restored: Path, data: st.DataObject) -> None:
    whole = json.loads((restored / "config.json").read_text())
    # A model of a hostile size is a model that is too large, which nothing here forbids.
    sizes = [name for name, value in whole.items() if isinstance(value, int) and not isinstance(value, bool)]
    hostile = data.draw(changed(whole, ("mamba_config", "model_type", "ssm_cfg", "mlp_cfg", "LanguageModel")))
    if isinstance(hostile, dict):
        for name in sizes:
            if isinstance(hostile.get(name), int | float) and not abs(hostile[name]) < 2**12:
                hostile[name] = 7
    text = json.dumps(hostile).encode()
    try:
        (restored / "config.json").write_bytes(data.draw(st.just(text) | mangled(text)))
        told(plugins.load_model, str(restored), "native", ["device=cpu"])
    finally:
        (restored / "config.json").write_text(json.dumps(whole))


@few
@given(data=st.data(), name=st.sampled_from(["tokenizer.json", "tokenizer_config.json"]))
def test_tokenizers(restored: Path, name: str, data: st.DataObject) -> None:
    whole = (restored / name).read_bytes()
    text = json.dumps(data.draw(changed(json.loads(whole)))).encode()
    try:
        (restored / name).write_bytes(data.draw(st.just(text) | mangled(whole)))
        told(load_tokenizer, find_checkpoint(str(restored)))
    finally:
        (restored / name).write_bytes(whole)


@many
@given(data=st.data())
def test_recipes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    assert RECIPES
    file = tmp_path_factory.getbasetemp() / "recipe.toml"
    lines = data.draw(st.sampled_from(RECIPES)).read_text().splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    name = lines[place].partition("=")[0]
    value = data.draw(
        st.sampled_from(["0", "-1", "1e400", "nan", '""', "[]", "{}", "true", "1979-05-27", "9" * 30]) | TEXTS
    )
    lines[place] = f"{name}= {value}" if data.draw(st.booleans()) else data.draw(TEXTS)
    text = "\n".join(lines).encode("utf-8", "replace")
    file.write_bytes(data.draw(st.just(text) | mangled(text)))
    told(read_recipe, file)


@many
@given(
    row=changed({"prompt": "p", "steps": ["a\n", "b"], "labels": [0.5, 1.0]}, ("prompt", "steps", "labels"))
    | changed({"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]}, ("text",))
)
def test_lines_to_learn_from(tmp_path_factory: pytest.TempPathFactory, row: Any) -> None:
    told(read_line, json.dumps(row), "line 1")
    file = tmp_path_factory.getbasetemp() / "x.jsonl"
    file.write_text(json.dumps(row))
    told(read_file, file)
