"""What a student takes from its teacher and how the rest of it starts, read under the published keys."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_students
import torch
from safetensors.torch import save_file
from tiny import VOCAB
from torch import Tensor

from harness.errors import UserError
from harness.models.architectures.causal_lm import CausalLM
from harness.models.architectures.passes import Span
from harness.models.checkpoints import find_checkpoint
from harness.models.distillation.recipes import Student
from harness.models.distillation.students import make_student, student_configs
from harness.models.native import load_model
from harness.models.weights import collect

LAYERS, WIDTH, KEPT = 3, 64, 1
NEW = (0, 2)
TEACHER = tiny_students.llama(hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=8, num_key_value_heads=4)
OLD = TEACHER.tensors

MAMBA1 = {"attn_layers": [KEPT], "d_xb": 32, "d_inner": 64, "ssm_cfg": {"expand": 1}}
MAMBA2 = {"attn_layers": [KEPT], "d_xb": 32, "d_inner": 64, "ssm_cfg": {"expand": 1, "ngroups": 8, "d_state": 8}}
LLAMBA = {
    "vocab_size": VOCAB,
    "pad_vocab_size_multiple": 1,
    "d_model": WIDTH,
    "n_layer": LAYERS,
    "tie_embeddings": True,
    "mlp_cfg": {"intermediate_size": 48},
    "ssm_cfg": {"d_state": 8, "n_v_heads": 8, "n_qk_heads": 4},
}
HYBRID = Student(family="mamba-in-llama", initialise="attention", mamba_config=MAMBA2)
PURE = Student(family="llamba", initialise="mohawk", config=LLAMBA)
STUDENTS = {
    "mamba-1": replace(HYBRID, mamba_config=MAMBA1),
    "mamba-2": HYBRID,
    "llamba": PURE,
    "llamba bias": replace(PURE, config={**LLAMBA, "ssm_cfg": {**LLAMBA["ssm_cfg"], "bias": True}}),  # type: ignore[dict-item]
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    return load_model(tiny_students.save(TEACHER, tmp_path_factory.mktemp("teacher")))


def tensors_of(student: Student, teacher: CausalLM, seed: int = 0, config: Any = None) -> Mapping[str, Tensor]:
    return collect(*make_student(student, teacher, TEACHER.config if config is None else config, seed))


def llama_key(key: str) -> str:
    """The Llama's name of a Llamba's key."""
    for new, old in (("backbone.embedding", "model.embed_tokens"), ("backbone.final_layernorm", "model.norm")):
        key = key.replace(new, old)
    return key.replace("backbone.", "model.")


@pytest.mark.parametrize("name", STUDENTS)
def test_everything_but_the_mixers_is_the_teachers(name: str, teacher: CausalLM) -> None:
    tensors = tensors_of(STUDENTS[name], teacher)
    taken = {llama_key(key): tensor for key, tensor in tensors.items() if "mamba." not in key and ".mixer." not in key}
    attention = {key for key in taken if ".mha." in key}
    for key in taken.keys() - attention:
        assert torch.equal(taken[key], OLD[key]), key
    assert taken.keys() - attention == {key for key in OLD if ".self_attn." not in key}
    assert all(key.startswith(f"model.layers.{KEPT}.mha.") for key in attention)
    assert len(attention) == (2 if "mamba" in name else 0)


@pytest.mark.parametrize("name", ["mamba-1", "mamba-2"])
def test_a_kept_attention_layer_is_the_teachers(name: str, teacher: CausalLM) -> None:
    tensors, prefix = tensors_of(STUDENTS[name], teacher), f"model.layers.{KEPT}"
    joined = torch.cat([OLD[f"{prefix}.self_attn.{letter}_proj.weight"] for letter in "qkv"])
    assert torch.equal(tensors[f"{prefix}.mha.in_proj.weight"], joined)
    assert torch.equal(tensors[f"{prefix}.mha.out_proj.weight"], OLD[f"{prefix}.self_attn.o_proj.weight"])


@pytest.mark.parametrize("name", ["mamba-1", "mamba-2"])
@pytest.mark.parametrize("layer", NEW)
def test_x_b_c_and_the_output_start_as_values_keys_queries_and_output(name: str, layer: int, teacher: CausalLM) -> None:
    tensors, source = tensors_of(STUDENTS[name], teacher), f"model.layers.{layer}.self_attn."
    rows = tensors[f"model.layers.{layer}.mamba.in_proj.weight"]
    # The published rows: z (64), x (32), B (32), C (64), dt.
    assert torch.equal(rows[64:96], OLD[f"{source}v_proj.weight"])
    assert torch.equal(rows[96:128], OLD[f"{source}k_proj.weight"])
    assert torch.equal(rows[128:192], OLD[f"{source}q_proj.weight"])
    assert torch.equal(tensors[f"model.layers.{layer}.mamba.out_proj.weight"], OLD[f"{source}o_proj.weight"])
    gate, step = rows[:64], rows[192:]
    assert len(step) == (4 if name == "mamba-1" else 8)
    for random in (gate, step):
        # Uniform within 1 / sqrt(64), torch's default for 64 inputs.
        assert 0.12 < random.abs().max() <= 0.125
        assert abs(float(random.std()) - 0.125 / math.sqrt(3)) < 0.01


@pytest.mark.parametrize("name", ["mamba-1", "mamba-2"])
def test_what_attention_has_no_counterpart_of_starts_at_mambas_defaults(name: str, teacher: CausalLM) -> None:
    tensors = tensors_of(STUDENTS[name], teacher)
    parts = {key.removeprefix("model.layers.2.mamba."): tensors[key] for key in tensors if "layers.2.mamba." in key}
    assert torch.equal(parts["D"], torch.ones_like(parts["D"]))
    for kind in ("weight", "bias"):  # uniform within 1 / sqrt(4 taps)
        assert 0.45 < parts[f"conv1d.{kind}"].abs().max() <= 0.5
    bias = parts["dt_proj.bias" if name == "mamba-1" else "dt_bias"].double()
    steps = torch.nn.functional.softplus(bias)
    assert steps.min() >= 1e-3 * (1 - 1e-4)
    assert steps.max() <= 0.1 * (1 + 1e-4)
    if name == "mamba-1":
        assert torch.equal(parts["A_log"], torch.arange(1, 17).float().log().expand(64, 16))
        # Log-uniform: the middle of 64 draws is near the geometric mean of the bounds.
        assert 0.005 < steps.median() < 0.02
    else:
        assert parts["A_log"].exp().min() >= 1
        assert parts["A_log"].exp().max() <= 16
        assert torch.equal(parts["norm.weight"], torch.ones(64))


@pytest.mark.parametrize("name", ["llamba", "llamba bias"])
def test_mohawk_starts_with_an_idle_convolution_and_an_open_gate(name: str, teacher: CausalLM) -> None:
    tensors, channels = tensors_of(STUDENTS[name], teacher), 64 + 2 * 4 * 8
    for layer in range(LAYERS):
        prefix = f"backbone.layers.{layer}.mixer."
        taps = tensors[f"{prefix}conv1d.weight"]
        assert torch.equal(taps[:, 0], torch.tensor([0.0, 0, 0, 1]).expand(channels, 4))
        assert not tensors[f"{prefix}conv1d.bias"].any()
        # The published rows: xBC (128), z (64), a (8).
        rows = tensors[f"{prefix}in_proj.weight"]
        assert not rows[channels : channels + 64].any()
        biases = tensors.get(f"{prefix}in_proj.bias")
        bias = tensors[f"{prefix}z_bias"] if biases is None else biases[channels : channels + 64]
        assert torch.allclose(bias * torch.sigmoid(bias), torch.ones(64), atol=1e-6)
        if biases is not None:
            assert not biases[:channels].any()
            assert not biases[channels + 64 :].any()
        for random in (rows[:channels], rows[channels + 64 :], tensors[f"{prefix}out_proj.weight"]):
            assert 0.12 < random.abs().max() <= 0.125
        assert torch.equal(tensors[f"{prefix}D"], torch.ones(8))


def test_a_fresh_mohawk_mixer_is_its_matrix_between_two_projections(teacher: CausalLM) -> None:
    mixer: Any = make_student(PURE, teacher, TEACHER.config)[0].mixers[1]
    u = torch.randn(2, 20, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = (u @ mixer.in_proj.weight[:64].T).unflatten(-1, (8, 8)).transpose(1, 2)
        mixed = (mixer.matrix(u) @ x).transpose(1, 2).flatten(2)
        torch.testing.assert_close(mixer(u, Span(None))[0], mixed @ mixer.out_proj.weight.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STUDENTS)
def test_random_takes_nothing_from_the_teacher(name: str, teacher: CausalLM) -> None:
    tensors = tensors_of(replace(STUDENTS[name], initialise="random"), teacher)
    other = tensors_of(STUDENTS[name], teacher)
    assert tensors.keys() == other.keys()
    # Norms, A_log and D start at constants; the projection of the step size is drawn in either case.
    drawn = [key for key in tensors if key.endswith("weight") and tensors[key].ndim == 2 and "dt_proj" not in key]
    assert len(drawn) > 4 * LAYERS
    assert not any(torch.equal(tensors[key], other[key]) for key in drawn if ".mixer." not in key)


@pytest.mark.parametrize("initialise", ["own", "random"])
@pytest.mark.parametrize("name", STUDENTS)
def test_the_seed_decides_the_random_part_and_nothing_else(name: str, initialise: str, teacher: CausalLM) -> None:
    student = STUDENTS[name] if initialise == "own" else replace(STUDENTS[name], initialise="random")
    torch.manual_seed(1)
    first = tensors_of(student, teacher, seed=5)
    torch.manual_seed(2)
    again, other = tensors_of(student, teacher, seed=5), tensors_of(student, teacher, seed=6)
    assert all(torch.equal(first[key], again[key]) for key in first)
    changed = {key for key in first if not torch.equal(first[key], other[key])}
    assert any(key.endswith("in_proj.weight") for key in changed)
    if initialise == "own":
        assert all("mamba." in key or ".mixer." in key for key in changed)


def save(student: Student, teacher: CausalLM, folder: Path) -> CausalLM:
    """Write a student as published checkpoints are written; returns the module."""
    model, layout = make_student(student, teacher, TEACHER.config)
    config, mamba_config = student_configs(student, TEACHER.config)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if mamba_config is not None:
        (folder / "mamba_config.json").write_text(json.dumps(mamba_config))
    save_file(collect(model, layout), folder / "model.safetensors")
    return model


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_loads_as_any_checkpoint_of_its_family(name: str, teacher: CausalLM, tmp_path: Path) -> None:
    model = save(STUDENTS[name], teacher, tmp_path / "student")
    loaded = load_model(str(tmp_path / "student"))
    token_ids = torch.arange(50)[None]
    with torch.no_grad():
        assert torch.equal(loaded(token_ids), model(token_ids))


def test_a_llama_student_is_its_teacher(teacher: CausalLM) -> None:
    tensors = tensors_of(Student(family="llama", initialise="mohawk"), teacher)
    assert tensors.keys() == OLD.keys()
    assert all(torch.equal(tensors[key], OLD[key]) for key in OLD)


@pytest.mark.parametrize("name", ["mamba-2", "llamba"])
def test_a_student_goes_on_from_one_of_its_own_family(name: str, teacher: CausalLM, tmp_path: Path) -> None:
    before = save(STUDENTS[name], teacher, tmp_path / "before")
    found = find_checkpoint(str(tmp_path / "before"))
    after, _ = make_student(STUDENTS[name], load_model(str(tmp_path / "before")), found.config, seed=9)
    token_ids = torch.arange(50)[None]
    with torch.no_grad():
        assert torch.equal(after(token_ids), before(token_ids))


def test_stepwise_replacement_keeps_the_mixers_that_are_there(teacher: CausalLM, tmp_path: Path) -> None:
    save(STUDENTS["mamba-2"], teacher, tmp_path / "half")
    half = load_model(str(tmp_path / "half"))
    for mixer in (half.mixers[0], half.mixers[2]):
        mixer.D.data.fill_(7)  # type: ignore[operator]
    before = dict(half.state_dict())
    student = replace(HYBRID, mamba_config={**MAMBA2, "attn_layers": []})
    after = make_student(student, half, TEACHER.config, seed=9)[0].state_dict()
    for key in (key for key in after if not key.startswith(f"blocks.{KEPT}.mixer.")):
        assert torch.equal(after[key], before[key]), key
    queries, _, values = before[f"blocks.{KEPT}.mixer.in_proj.weight"].split((64, 32, 32))
    rows = after[f"blocks.{KEPT}.mixer.in_proj.weight"]
    assert torch.equal(rows[64:96], values)
    assert torch.equal(rows[128:192], queries)


def test_an_untied_student_gets_a_head_of_its_own_and_a_bias_of_0(teacher: CausalLM) -> None:
    tensors = tensors_of(replace(PURE, config={**LLAMBA, "tie_embeddings": False, "lm_head_bias": True}), teacher)
    assert torch.equal(tensors["lm_head.weight"], OLD["model.embed_tokens.weight"])
    assert not tensors["lm_head.bias"].any()


def test_phi_mamba_takes_over_the_parallel_blocks_of_phi(tmp_path: Path) -> None:
    attention = tiny_students.phi_mamba(("phi_attention",) * 2, width=256)
    phi = load_model(tiny_students.save(attention, tmp_path / "phi"))
    config = tiny_students.phi_mamba(("discrete_mamba2", "phi_attention"), width=256).config
    tensors = tensors_of(Student(family="phi-mamba", initialise="mohawk", config=config), phi, config={})
    new = {key for key in tensors if key.startswith("backbone.layers.0.mixer.")}
    assert new
    for key in tensors.keys() - new:
        assert torch.equal(tensors[key], attention.tensors[key]), key
    assert torch.allclose(tensors["backbone.layers.0.mixer.z_bias"], torch.tensor(1.278464542761))


def test_the_fields_of_a_hybrid_that_the_recipe_leaves_out_are_the_teachers() -> None:
    config, mamba_config = student_configs(
        replace(HYBRID, config={"max_position_embeddings": 64}, mamba_config={"attn_layers": [1]}), TEACHER.config
    )
    assert config == {**TEACHER.config, "max_position_embeddings": 64}
    assert mamba_config == {
        "d_model": 64,
        "ssm_cfg": {"expand": 1},
        "rms_norm_eps": 1e-5,
        "vocab_size": None,
        "d_inner": None,
        "d_xb": 32,
        "intermediate_size": 48,
        "hidden_act": "silu",
        "n_layer": 3,
        "attn_layers": [1],
    }
    assert student_configs(PURE, TEACHER.config) == (LLAMBA, None)


REFUSED = {
    "another width": (
        replace(PURE, config={**LLAMBA, "d_model": 32, "ssm_cfg": {"n_v_heads": 4, "n_qk_heads": 4}}),
        r"in the embedding of the student weight has the shape \(259, 32\), where the teacher has \(259, 64\)",
    ),
    "another vocabulary": (
        replace(PURE, config={**LLAMBA, "pad_vocab_size_multiple": 8}),
        r"in the embedding of the student weight has the shape \(264, 64\)",
    ),
    "another depth": (replace(PURE, config={**LLAMBA, "n_layer": 2}), "the student has 2 layers and its teacher 3"),
    "another feed-forward width": (
        replace(PURE, config={**LLAMBA, "mlp_cfg": {"intermediate_size": 40}}),
        r"in the mlp of layer 0 of the student gate_up_proj.weight has the shape \(80, 64\), .* has \(96, 64\)",
    ),
    "narrow x": (
        replace(HYBRID, mamba_config={**MAMBA1, "d_xb": 16}),
        "layer 0 of the student has d_xb 16 and d_inner 64 .* write d_xb = 32 and d_inner = 64",
    ),
    "attention for a llamba": (
        replace(PURE, initialise="attention"),
        'layer 0 of the student is DiscreteMamba2 and of the teacher Attention; initialise = "attention" is for',
    ),
    "no Llamba": (
        replace(PURE, config={"n_layer": 2}),
        r"student.config is not that of a llamba \(KeyError: 'd_model'",
    ),
    "a reward model": (Student(family="orm"), "student.family 'orm' is the teacher with a score head"),
    "other blocks": (
        Student(
            family="phi-mamba",
            initialise="mohawk",
            config={
                "LanguageModel": {"input": {"vocab_size": VOCAB, "pad_vocab_size_multiple": 1}},
                "MixerModel": {"input": {"d_model": WIDTH, "n_layer": LAYERS}},
                "Block1": {"n_layers": 3, "CoreType": "discrete_mamba2", "core_input": LLAMBA["ssm_cfg"]},
            },
        ),
        "layer 0 of the student is a ParallelBlock and of the teacher a SequentialBlock",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_student_that_does_not_fit_is_refused_in_one_sentence(name: str, teacher: CausalLM) -> None:
    student, told = REFUSED[name]
    with pytest.raises(UserError, match=told) as refusal:
        make_student(student, teacher, TEACHER.config)
    assert "\n" not in str(refusal.value)


def test_a_tied_student_of_a_teacher_with_a_head_of_its_own_is_refused(tmp_path: Path) -> None:
    untied = load_model(tiny_students.save(tiny_students.llama(tie_word_embeddings=False), tmp_path / "untied"))
    config = {**LLAMBA, "d_model": 32, "n_layer": 2, "ssm_cfg": {"n_v_heads": 4, "n_qk_heads": 4}}
    with pytest.raises(UserError, match="tied to its embedding and the teacher has a head of its own"):
        make_student(replace(PURE, config=config), untied, {})
