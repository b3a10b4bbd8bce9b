"""The cost of every family against torch's own count of operations, on the published shapes and on tiny checkpoints."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_students import STUDENTS, save
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
)

from harness.errors import UserError
from harness.models.architectures.causal_lm import CausalLM
from harness.models.architectures.kernels import cpu
from harness.models.architectures.presets import PRESETS
from harness.models.architectures.ssd import CHUNK
from harness.models.costs.shapes import ModelShape, layer_of, native_shape, read_shape
from harness.models.native import load_model

ROWS, TOKENS = 2, 77


def counted(call: Callable[[], Any]) -> int:
    """What torch's counter sees of a call; attention is multiplied out, because its fused form is not counted."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        call()
    return sum(counter.get_flop_counts()["Global"].values())


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch alone, whose operations the counter sees, without autocast, which the meta device has not."""
    monkeypatch.setattr(cpu, "library", lambda: None)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())


def check_products(model: CausalLM, shape: ModelShape) -> None:
    """Prefill and decode of `model` do exactly the matrix products of `shape`."""
    device, forward = model.embedding.weight.device, shape.forward
    ids = torch.zeros(ROWS, TOKENS, dtype=torch.int64, device=device)
    # The counter sees full squares where causal attention has T (T + 1) / 2 pairs, and chunks for the recurrence.
    squares = 4 * forward.attention * TOKENS**2 - 2 * forward.attention * TOKENS * (TOKENS + 1)
    chunks = shape.chunk_products(TOKENS, CHUNK) - TOKENS * forward.scan
    assert counted(lambda: model.prefill(ids)) == ROWS * (forward.prefill(TOKENS) + squares + chunks)
    states = model.empty_states(ROWS, TOKENS + 1)
    places = torch.full((ROWS,), TOKENS, dtype=torch.int64, device=device)
    step = counted(lambda: model.step(ids[:, 0], places, states, TOKENS + 1, ragged=False))
    # Of the recurrence the counter sees the read-out, a product of the state with C.
    assert step == ROWS * (forward.decode(1, TOKENS + 1) - forward.scan + 2 * shape.state_size)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.usefixtures("plain")
def test_the_products_of_every_published_shape_are_counted_exactly(name: str) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        model, _ = preset.build(preset.config, None)
    check_products(model.to("meta"), read_shape(f"preset/{name}"))


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.usefixtures("plain")
def test_the_products_of_every_form_of_checkpoint_are_counted_exactly(name: str, tmp_path: Path) -> None:
    folder = save(STUDENTS[name](), tmp_path)
    model = load_model(folder)
    shape = read_shape(folder)
    assert shape == native_shape(model, shape.family)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    check_products(model, shape)


@pytest.mark.parametrize("name", STUDENTS)
def test_memory_is_what_the_engine_allocates(name: str, tmp_path: Path) -> None:
    folder = save(STUDENTS[name](), tmp_path)
    model, shape = load_model(folder), read_shape(folder)
    states = model.empty_states(1, 50, torch.bfloat16)
    sizes = {torch.float32: 0, torch.bfloat16: 0}
    for tensor in (tensor for state in states for tensor in state):
        sizes[tensor.dtype] += tensor.numel()
    assert sizes[torch.float32] == 50 * shape.kv_size + shape.window_size
    assert sizes[torch.bfloat16] == shape.state_size


@pytest.mark.parametrize("name", PRESETS)
def test_mixers_and_shapes_agree_about_the_recurrence(name: str) -> None:
    with torch.device("meta"):
        model, _ = PRESETS[name].build(PRESETS[name].config, None)
    for mixer in model.mixers:
        assert getattr(layer_of(mixer), "step_flops", 0) == mixer.scan_flops


def test_an_embedding_that_is_no_head_is_read_row_by_row() -> None:
    untied, tied = read_shape("preset/llama-3.1-8b"), read_shape("preset/llama-3.2-1b")
    assert (untied.table, tied.table) == (128256 * 4096, 0)
    assert untied.parameters == 8_030_261_248


QWEN2 = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    ("cls", "config", "labels", "scored"),
    [
        (LlamaForSequenceClassification, LlamaConfig, 1, 1),
        (Qwen2ForSequenceClassification, Qwen2Config, 1, 1),
        (Qwen2ForTokenClassification, Qwen2Config, 2, TOKENS),
    ],
    ids=["Llama ORM", "Qwen2 ORM", "Qwen2 PRM"],
)
def test_a_reward_models_products_are_counted_exactly(
    cls: Any, config: Any, labels: int, scored: int, tmp_path: Path
) -> None:
    settings = config(**QWEN2, num_labels=labels)
    model = cls(settings).eval()
    (tmp_path / "config.json").write_text(json.dumps(settings.to_dict() | {"architectures": [cls.__name__]}))
    shape = read_shape(str(tmp_path))
    assert shape.parameters == model.num_parameters()
    assert (shape.kv_size, shape.outputs) == (3 * 2 * 2 * 8, labels)
    # The library's classifier scores every token and picks the last; a reward model needs the last alone.
    ids = torch.ones(1, TOKENS, dtype=torch.int64)
    seen = counted(lambda: model.model(input_ids=ids, use_cache=False)) + 2 * 32 * labels * scored
    squares = 4 * 3 * 32 * TOKENS**2 - 2 * 3 * 32 * TOKENS * (TOKENS + 1)
    assert seen == shape.forward.score(TOKENS, scored) + squares


def test_reading_on_costs_what_the_longer_text_costs_more() -> None:
    forward = read_shape("zoo/teacher").forward
    assert forward.read(40) + forward.read(25, before=40) == forward.read(65)
    assert forward.prefill(40) - forward.read(40) == 2 * forward.head


def test_a_shape_that_nothing_can_make_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    with pytest.raises(UserError, match=r"the cost of .* is not known: transformers has no model of the family"):
        read_shape(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 32}))
    with pytest.raises(UserError, match=r"the config of .* is not that of a llama"):
        read_shape(str(tmp_path))
