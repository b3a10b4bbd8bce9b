"""Every family's module against an independent token-by-token reference, and the reference against transformers."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import naive_models
import pytest
import tiny_students
import torch
from tiny import VOCAB
from tiny_students import STUDENTS, Form, Student
from torch import Tensor

from harness.models.native import load_model

LENGTHS = (1, 2, 3, 7, 8, 9, 127, 128, 129, 300)
TOLERANCE = 1e-4
FELT = 10 * TOLERANCE
"""A wrong formula has to move the logits by more than this for an equality within TOLERANCE to mean something."""

TOKEN_IDS = torch.randint(0, VOCAB, (300,), generator=torch.Generator().manual_seed(0))
FAMILIES = pytest.mark.parametrize("name", STUDENTS)


# The right parts of the reference, which tests put wrong ones in place of.
rms_norm, short_conv, recurrence = naive_models.rms_norm, naive_models.short_conv, naive_models.recurrence
grouped_rms_norm, rope_frequencies = naive_models.grouped_rms_norm, naive_models.rope_frequencies
repeat_chunks = naive_models.repeat_chunks


def naive_logits(student: Student, token_ids: Tensor) -> Tensor:
    config = student.config
    if student.mamba_config is not None:
        return naive_models.mamba_in_llama_logits(config, student.mamba_config, student.tensors, token_ids)
    by_family: dict[str, Callable[..., Tensor]] = {
        "llama": naive_models.llama_logits,
        "llamba": naive_models.llamba_logits,
        "mamba2": naive_models.mamba2_logits,
    }
    logits = by_family.get(str(config.get("model_type")), naive_models.phi_mamba_logits)
    return logits(config, student.tensors, token_ids)


@cache
def expected(name: str) -> Tensor:
    """Logits of TOKEN_IDS; a prefix of them are those of the prefix."""
    return naive_logits(STUDENTS[name](), TOKEN_IDS)


def error(logits: Tensor, reference: Tensor) -> float:
    assert logits.shape == reference.shape
    return float((logits.double() - reference.double()).abs().max())


@pytest.fixture(scope="module")
def module_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The loaded module of a tiny checkpoint, loaded once."""

    @cache
    def load(name: str) -> Any:
        return load_model(tiny_students.save(STUDENTS[name](), tmp_path_factory.mktemp("student")))

    return load


# The modules


@FAMILIES
@torch.no_grad()
def test_forward_is_the_formula_at_every_length(module_of: Callable[[str], Any], name: str) -> None:
    module = module_of(name)
    errors = {n: error(module(TOKEN_IDS[None, :n])[0], expected(name)[:n]) for n in LENGTHS}
    assert max(errors.values()) < TOLERANCE, errors


@FAMILIES
@torch.no_grad()
def test_a_row_of_a_batch_is_the_row_alone(module_of: Callable[[str], Any], name: str) -> None:
    module, rows = module_of(name), TOKEN_IDS[:260].reshape(2, 130)
    batch = module(rows)
    assert max(error(batch[i], module(rows[i : i + 1])[0]) for i in range(2)) < TOLERANCE
    assert error(batch[0], expected(name)[:130]) < TOLERANCE


@FAMILIES
@torch.no_grad()
def test_right_padding_leaves_every_row_as_it_is_alone(module_of: Callable[[str], Any], name: str) -> None:
    module, lengths, columns = module_of(name), torch.tensor([130, 1, 3, 64, 128]), 140
    for filler in (0, VOCAB - 1):
        padded = torch.where(torch.arange(columns) < lengths[:, None], TOKEN_IDS[:columns], filler)
        logits, _ = module.prefill(padded, lengths)
        assert error(logits, expected(name)[lengths - 1]) < TOLERANCE


@FAMILIES
@torch.no_grad()
def test_steps_after_a_prefill_are_the_formula(module_of: Callable[[str], Any], name: str) -> None:
    """Rows of different lengths go on together, each with the tokens that follow it."""
    module, lengths, steps = module_of(name), torch.tensor([64, 1, 3, 130]), 6
    rows = len(lengths)
    _, states = module.prefill(TOKEN_IDS[:130].expand(rows, -1), lengths)
    buffers = module.empty_states(rows, 140)
    for layer, buffer in zip(states, buffers, strict=True):
        for state, room in zip(layer, buffer, strict=True):
            room[tuple(slice(size) for size in state.shape)] = state
    for positions in (lengths + n for n in range(steps)):
        logits = module.step(TOKEN_IDS[positions], positions, buffers, columns=int(positions.max()) + 1, ragged=True)
        assert error(logits, expected(name)[positions]) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "choice"), [("mamba-in-llama", "none"), ("mamba-in-llama fused", "from_config")], ids=["off", "on"]
)
@torch.no_grad()
def test_scaling_of_rope_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, choice: Literal["none", "from_config"]
) -> None:
    folder = tiny_students.save(STUDENTS[name](), tmp_path)
    chosen = choice == "from_config"
    monkeypatch.setattr(
        naive_models, "rope_frequencies", lambda config, hd, scaled: rope_frequencies(config, hd, chosen)
    )
    reference = naive_logits(STUDENTS[name](), TOKEN_IDS)
    assert error(load_model(folder, rope_scaling=choice)(TOKEN_IDS[None])[0], reference) < TOLERANCE


@FAMILIES
def test_every_parameter_gets_a_gradient(module_of: Callable[[str], Any], name: str) -> None:
    module, token_ids = module_of(name), TOKEN_IDS[None, :10]
    with torch.enable_grad():
        logits = module(token_ids[:, :-1])
        torch.nn.functional.cross_entropy(logits[0], token_ids[0, 1:]).backward()  # type: ignore[no-untyped-call]
    without = [key for key, weight in module.named_parameters() if weight.grad is None or not weight.grad.any()]
    broken = [
        key for key, weight in module.named_parameters() if weight.grad is not None and not weight.grad.isfinite().all()
    ]
    module.zero_grad()
    assert (without, broken) == ([], [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("form", ["safetensors", "sharded safetensors", "bin", "sharded bin"])
@torch.no_grad()
def test_weights_are_read_from_every_kind_of_file(tmp_path: Path, form: Form, dtype: torch.dtype) -> None:
    student = STUDENTS["mamba-in-llama"]()
    module = load_model(tiny_students.save(student, tmp_path, form, dtype))
    reference = naive_logits(replace(student, tensors=student.rounded(dtype)), TOKEN_IDS[:20])
    assert error(module(TOKEN_IDS[None, :20])[0], reference) < TOLERANCE


@pytest.mark.parametrize("name", ["llama", "mamba-in-llama fused"])
@torch.no_grad()
def test_a_tied_checkpoint_may_hold_a_copy_of_the_table_as_its_head(tmp_path: Path, name: str) -> None:
    student = STUDENTS[name]()
    copied = student.tensors | {"lm_head.weight": student.tensors["model.embed_tokens.weight"].clone()}
    module = load_model(tiny_students.save(replace(student, tensors=copied), tmp_path, "bin"))
    assert error(module(TOKEN_IDS[None, :20])[0], expected(name)[:20]) < TOLERANCE


# transformers, for the modules and for the reference


def transformers_model(name: str, folder: Path) -> Any:
    """The checkpoint as transformers loads it, written to `folder` once more by transformers itself."""
    from transformers import LlamaForCausalLM, Mamba2ForCausalLM

    kinds = {"llama": LlamaForCausalLM, "mamba2": Mamba2ForCausalLM}
    ours = tiny_students.save(STUDENTS[name](), folder / "ours")
    kind = kinds[str(STUDENTS[name]().config["model_type"])]
    model, report = kind.from_pretrained(ours, dtype=torch.float32, output_loading_info=True)
    assert not any(report.values())
    model.save_pretrained(folder / "theirs")
    return model.eval()


@pytest.mark.parametrize("name", ["llama", "llama plain", "llama untied", "mamba2", "mamba2 options"])
@torch.no_grad()
def test_llama_and_mamba2_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    model, module = transformers_model(name, tmp_path), load_model(str(tmp_path / "theirs"))
    for n in LENGTHS:
        theirs = model(TOKEN_IDS[None, :n], use_cache=False).logits[0]
        assert error(expected(name)[:n], theirs) < TOLERANCE
        assert error(module(TOKEN_IDS[None, :n])[0], theirs) < TOLERANCE


def test_the_frequencies_of_llama_3_2_are_those_of_transformers() -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rule = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rule |= {"original_max_position_embeddings": 8192}
    shape: dict[str, Any] = {"hidden_size": 2048, "num_attention_heads": 32, "max_position_embeddings": 131072}
    config = LlamaConfig(**shape, rope_parameters=rule | {"rope_theta": 5e5})
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    for spelled in ({"rope_theta": 5e5, "rope_scaling": rule}, {"rope_parameters": rule | {"rope_theta": 5e5}}):
        torch.testing.assert_close(naive_models.rope_frequencies(spelled, 64).float(), theirs)


@torch.no_grad()
def test_an_attention_block_of_phi_mamba_is_that_of_phi(tmp_path: Path) -> None:
    from transformers import PhiConfig, PhiForCausalLM

    student = tiny_students.phi_mamba(("phi_attention",) * 2, width=256)
    config = PhiConfig(
        vocab_size=student.vocab, hidden_size=256, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=32
    )
    phi = PhiForCausalLM(config).eval()
    phi_name = {"backbone.embedding": "model.embed_tokens", "backbone": "model", "mixer.": ""}
    renamed = dict(student.tensors)
    for ours, its in phi_name.items():
        renamed = {key.replace(ours, its): tensor for key, tensor in renamed.items()}
    phi.load_state_dict(renamed)
    theirs = phi(TOKEN_IDS[None], use_cache=False).logits[0]
    assert error(naive_logits(student, TOKEN_IDS), theirs) < TOLERANCE
    module = load_model(tiny_students.save(student, tmp_path))
    assert error(module(TOKEN_IDS[None])[0], theirs) < TOLERANCE


def test_a_mamba2_student_is_a_standard_mamba2_with_repeated_rows() -> None:
    """Repeating the rows of x and B makes a stock mixer with as many groups as heads."""
    student = STUDENTS["mamba-in-llama mamba2 pure"]()
    name, inner, X, N, heads = "model.layers.0.mamba", 64, 32, 16, 4
    own = {key: tensor.double() for key, tensor in student.tensors.items() if key.startswith(name)}

    def repeated(rows: Tensor, before: int) -> Tensor:
        source = torch.arange(X).reshape(-1, 1, N).expand(-1, inner // X, -1).flatten()
        keep, tail = torch.arange(before), torch.arange(before + 2 * X, len(rows))
        return rows[torch.cat([keep, before + source, before + X + source, tail])]

    stock = own | {f"{name}.in_proj.weight": repeated(own[f"{name}.in_proj.weight"], before=inner)}
    stock |= {key: repeated(own[key], before=0) for key in (f"{name}.conv1d.weight", f"{name}.conv1d.bias")}
    config: dict[str, Any] = {"num_heads": heads, "head_dim": N, "state_size": N, "n_groups": heads}
    config |= {"layer_norm_epsilon": 1e-5, "time_step_limit": (0.0, math.inf)}
    u = torch.randn(20, 64, generator=torch.Generator().manual_seed(1)).double()
    assert student.mamba_config is not None
    y = naive_models.student_mamba2(student.mamba_config, own, name, u)
    assert error(y, naive_models.mamba2_mixer(config, stock, name, u)) < 1e-10


# What the reference would notice


@FAMILIES
def test_the_tiny_checkpoints_are_not_degenerate(name: str) -> None:
    logits = expected(name)
    assert 0.5 < logits.std(1).mean() < 5
    assert logits.std(0).mean() > 0.5
    late = naive_logits(STUDENTS[name](), TOKEN_IDS[5:136])
    assert error(logits[135], late[130]) > FELT, "nothing is remembered for 130 tokens"


@FAMILIES
def test_every_tensor_is_felt_in_the_logits(name: str) -> None:
    student = STUDENTS[name]()
    reference, unfelt = expected(name)[:24], []
    for key, tensor in student.tensors.items():
        changed = replace(student, tensors=student.tensors | {key: tensor * 0.8})
        if error(naive_logits(changed, TOKEN_IDS[:24]), reference) < FELT:
            unfelt.append(key)
    assert unfelt == []


def with_config(student: Student, **changes: Any) -> Student:
    return replace(student, config={**student.config, **changes})


def with_half(student: Student, ending: str) -> Student:
    halves = {key: tensor / 2 if key.endswith(ending) else tensor for key, tensor in student.tensors.items()}
    return replace(student, tensors=halves)


ANOTHER_CHECKPOINT: list[tuple[str, str, Callable[[Student], Student]]] = [
    ("mamba-in-llama", "the bias of the step size once", lambda student: with_half(student, "dt_proj.bias")),
    ("mamba-in-llama fused", "the bias of the step size once", lambda student: with_half(student, "dt_proj.bias")),
    ("llama", "no scaling of RoPE", lambda student: with_config(student, rope_scaling=None)),
    ("llama untied", "no scaling of RoPE", lambda student: with_config(student, **tiny_students.PLAIN_NEW_SPELLING)),
    ("mamba-in-llama", "no scaling of RoPE", lambda student: with_config(student, rope_scaling=None)),
    ("llamba untied", "the final eps of the blocks", lambda student: with_config(student, norm_epsilon=1e-5)),
    ("mamba2 options", "no limits of the step", lambda student: with_config(student, time_step_limit=(0.0, math.inf))),
]


@pytest.mark.parametrize(
    ("name", "trap", "change"), ANOTHER_CHECKPOINT, ids=[" - ".join(row[:2]) for row in ANOTHER_CHECKPOINT]
)
def test_a_checkpoint_read_wrongly_has_other_logits(name: str, trap: str, change: Callable[[Student], Student]) -> None:
    assert error(naive_logits(change(STUDENTS[name]()), TOKEN_IDS), expected(name)) > FELT, trap


def interleaved(heads: Tensor, position: int, frequencies: Tensor) -> Tensor:
    cos, sin = torch.cos(position * frequencies), torch.sin(position * frequencies)
    even, odd = heads[:, 0::2], heads[:, 1::2]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=2).flatten(1)


def in_turn(x: Tensor, width: int, times: int) -> Tensor:
    return torch.cat([x] * times, dim=1)


def one_group(x: Tensor, weight: Tensor, eps: float, groups: int) -> Tensor:
    return grouped_rms_norm(x, weight, eps, groups=1)


def stepped(decay: Tensor, x: Tensor, B: Tensor, C: Tensor) -> Tensor:
    return recurrence(decay, -torch.log(decay)[:, :, None] * x, B, C)


# Name of a checkpoint, what the wrong reader does, the part of the reference it does otherwise, and how.
WRONG_PARTS: list[tuple[str, str, str, Any]] = [
    ("mamba-in-llama", "B and C convolved", "MAMBA1_CONVOLVED", ("x", "B", "C")),
    ("mamba-in-llama", "chunks as wide as a head", "repeat_chunks", lambda x, _, times: repeat_chunks(x, 8, times)),
    ("mamba-in-llama", "chunks in turn", "repeat_chunks", in_turn),
    ("mamba-in-llama mamba2", "chunks in turn", "repeat_chunks", in_turn),
    ("llamba groups", "heads in turn", "repeat_chunks", in_turn),
    ("mamba2 groups", "heads in turn", "repeat_chunks", in_turn),
    ("mamba-in-llama mamba2", "one norm", "grouped_rms_norm", one_group),
    ("mamba2 groups", "one norm", "grouped_rms_norm", one_group),
    ("mamba-in-llama own eps", "one eps", "rms_norm", lambda x, weight, eps: rms_norm(x, weight, 1e-5)),
    ("llamba untied", "one eps", "rms_norm", lambda x, weight, eps: rms_norm(x, weight, 0.1)),
    ("llamba", "silu after the convolution", "short_conv", lambda *args: naive_models.silu(short_conv(*args))),
    ("llamba", "input times step size", "recurrence", stepped),
    ("llama", "channels turned in neighbouring pairs", "rotate", interleaved),
    ("phi-mamba hybrid", "whole heads turned", "PHI_ROTARY_FRACTION", 1.0),
    ("phi-mamba hybrid", "heads of the config", "PHI_HEADS", 4),
    ("phi-mamba hybrid", "theta of the config", "PHI_ROPE_THETA", 500.0),
    ("phi-mamba hybrid", "exact GELU", "gelu_new", torch.nn.functional.gelu),
    ("phi-mamba", "exact GELU", "gelu_new", torch.nn.functional.gelu),
]


@pytest.mark.parametrize(
    ("name", "trap", "part", "wrong"), WRONG_PARTS, ids=[" - ".join(row[:2]) for row in WRONG_PARTS]
)
def test_a_wrong_formula_has_other_logits(
    monkeypatch: pytest.MonkeyPatch, name: str, trap: str, part: str, wrong: Any
) -> None:
    reference = expected(name)
    monkeypatch.setattr(naive_models, part, wrong)
    assert error(naive_logits(STUDENTS[name](), TOKEN_IDS), reference) > FELT, trap
