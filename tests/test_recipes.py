"""Recipes: what is refused and how it is said, and what the dry run reckons, held against counts made elsewhere."""

import copy
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import UserError
from harness.models.architectures import phi
from harness.models.architectures.initial import allocate, randomise
from harness.models.distillation import dry_run, fit, memory
from harness.models.distillation.objectives import set_trainable
from harness.models.distillation.recipes import Recipe, parse_recipe, read_recipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"

PUBLISHED = {
    "llamba-1b": (1_405_159_936, 1_235_814_400),
    "llamba-3b": (3_656_994_688, 3_212_749_824),
    "mamba-in-llama-1b": (1_293_002_752, 1_235_814_400),
    "mamba-in-llama-3b": (3_447_874_560, 3_212_749_824),
    "phi-mamba-1.5b": (1_521_097_472, 1_418_270_720),
    "hybrid-phi-mamba-1.5b": (1_503_959_680, 1_418_270_720),
}
"""Parameters of student and teacher: from the sizes of the published files and the model pages."""

TOKENS = {
    "llamba-1b": 8e9,
    "llamba-3b": 8e9,
    "mamba-in-llama-1b": 8e9,
    "mamba-in-llama-3b": 8e9,
    "phi-mamba-1.5b": 3e9,
    "hybrid-phi-mamba-1.5b": 5e9,
}

TEACHER = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
LLAMBA = {
    "vocab_size": 64,
    "d_model": 32,
    "n_layer": 2,
    "tie_embeddings": True,
    "mlp_cfg": {"intermediate_size": 48},
    "ssm_cfg": {"d_state": 8, "n_v_heads": 4, "n_qk_heads": 4},
}
HYBRID = {"attn_layers": [1], "d_xb": 16, "ssm_cfg": {"expand": 1, "d_state": 8}}


def stage(kind: str, **fields: Any) -> dict[str, Any]:
    common = {"tokens": 1024, "rows": 2, "context": 64, "learning_rate": 1e-3, "data": {"source": "task:arithmetic"}}
    return {"kind": kind, **common, **fields}


def table() -> dict[str, Any]:
    """A small recipe of all three stages of MOHAWK, as a parsed file."""
    return {
        "name": "small",
        "teacher": "someone/llama",
        "precision": "fp32",
        "teacher_config": dict(TEACHER),
        "student": {"family": "llamba", "initialise": "mohawk", "config": copy.deepcopy(LLAMBA)},
        "stage": [
            stage("matrix-orientation", trainable="mixers"),
            stage("hidden-alignment", trainable="mixers"),
            stage("distillation", loss={"forward_kl": 1.0}),
        ],
    }


def hybrid() -> dict[str, Any]:
    student = {"family": "mamba-in-llama", "initialise": "attention", "mamba_config": copy.deepcopy(HYBRID)}
    stages = [stage("distillation", loss={"reverse_kl": 1}), stage("sft", loss={"cross_entropy": 1.0})]
    return {**table(), "student": student, "stage": stages}


def accepted(document: dict[str, Any]) -> Recipe:
    recipe = parse_recipe(document)
    fit.check_fit(recipe)
    return recipe


def change(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The document with a value at `stage.0.data.source`; None takes the field away."""
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place: Any = document
    for part in parents:
        place = place[part] if isinstance(part, int) else place.setdefault(part, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


def test_a_recipe_is_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        """
        name = "r"
        teacher = "someone/llama"
        [student]
        family = "llama"
        initialise = "attention"
        [[stage]]
        kind = "sft"
        tokens = 4096
        rows = 4
        context = 64
        accumulate = 2
        learning_rate = 1
        betas = [0.5, 0.75]
        schedule = "cosine"
        [stage.loss]
        cross_entropy = 1
        [stage.data]
        source = "task:arithmetic?difficulty=3"
        loss_on = "completion"
        [teacher_config]
        """
        + "\n".join(f"{name} = {json.dumps(value)}" for name, value in TEACHER.items())
    )
    recipe = read_recipe(tmp_path / "r.toml")
    assert (recipe.name, recipe.seed, recipe.precision, recipe.checkpoint_steps) == ("r", 0, "bf16", 200)
    (only,) = recipe.stages
    assert (only.kind, only.trainable, only.clip_norm, only.weight_decay) == ("sft", "all", 1.0, 0.1)
    assert only.betas == (0.5, 0.75)
    assert type(only.learning_rate) is type(only.loss.cross_entropy) is float
    assert (only.data.loss_on, only.data.packed, only.data.split) == ("completion", False, "train")
    assert only.steps == 4096 / (4 * 64 * 2)
    assert not only.needs_teacher


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("sed", 1, "there is no field sed; known here are checkpoint_steps, name"),
        ("stage.1.learningrate", 1.0, "there is no field stage[1].learningrate; known here are accumulate, activ"),
        (
            "stage.0.data.sauce",
            "x",
            "there is no field stage[0].data.sauce; known here are loss_on, mixed_with, packed, source",
        ),
        ("student.size", 1, "there is no field student.size"),
        ("stages", [], "there is no field stages; write each stage as a table [[stage]]"),
        ("stage", [], "a recipe has at least one [[stage]]"),
        ("stage.0", 3, "stage[0] must be a table, got 3"),
        ("teacher", None, "the field teacher is missing"),
        ("teacher", "", "teacher is empty"),
        ("name", "a/b", "name must be letters, digits"),
        ("student.family", None, "the field student.family is missing"),
        ("stage.2.tokens", None, "the field stage[2].tokens is missing"),
        ("stage.0.data", None, "the field stage[0].data is missing"),
        ("stage.0.rows", 2.0, "stage[0].rows must be a whole number, got 2.0"),
        ("stage.0.rows", True, "stage[0].rows must be a whole number, got True"),
        ("stage.0.rows", 0, "stage[0].rows must be at least 1, got 0"),
        ("stage.0.context", 1, "stage[0].context must be at least 2, got 1"),
        ("stage.0.learning_rate", "1e-3", "stage[0].learning_rate must be a number, got '1e-3'"),
        ("stage.0.learning_rate", 0.0, "stage[0].learning_rate must be above 0, got 0.0"),
        ("stage.0.learning_rate", float("nan"), "stage[0].learning_rate must be above 0, got nan"),
        ("stage.0.min_learning_rate", 1.0, "stage[0].min_learning_rate 1.0 is above learning_rate 0.001"),
        ("stage.0.clip_norm", -1.0, "stage[0].clip_norm must be at least 0"),
        ("stage.0.weight_decay", float("inf"), "stage[0].weight_decay must be at least 0"),
        ("stage.0.betas", [0.9], "stage[0].betas must be two numbers, such as [0.9, 0.95], got [0.9]"),
        ("stage.0.betas", [0.9, 1.0], "stage[0].betas must each be at least 0 and below 1, got [0.9, 1.0]"),
        ("stage.0.warmup_fraction", 0.95, "stage[0].warmup_fraction 0.95 and decay_fraction 0.1 sum to above 1"),
        ("stage.0.kind", "kd", "stage[0].kind has no value 'kd'; write one of distillation, hidden-alignment"),
        ("stage.0.data.packed", 1, "stage[0].data.packed must be true or false, got 1"),
        ("precision", "fp16", "precision has no value 'fp16'; write one of bf16, fp32"),
        ("seed", -1, "seed must be from 0 to 2^63 - 1, got -1"),
        ("stage.2.loss.forward_kl", -1.0, "stage[2].loss.forward_kl must be at least 0"),
        ("stage.2.loss.forward_kl", 0.0, "stage[2].loss has no positive weight"),
        ("stage.0.loss", {"cross_entropy": 1.0}, "stage[0].loss is for distillation and sft"),
        ("stage.0.tokens", 1000, "stage[0].tokens of the matrix-orientation stage is 1000, no multiple of the 128"),
        ("stage.0.trainable", "all", "stage[0].trainable must be mixers"),
        ("stage.0.kind", "orm", "stage[0].kind 'orm' is not for llamba; write distillation, hidden-alignment"),
        (
            "stage.0.data.source",
            "arithmetic",
            "stage[0].data.source 'arithmetic' says no kind of data; write file: and",
        ),
        ("stage.0.data.source", "task:sums", "stage[0].data.source: no task named 'sums'; there is"),
        ("stage.0.data.source", "file:no.jsonl", "stage[0].data.source: there is no file 'no.jsonl'"),
        ("stage.0.data.source", "run:nowhere", "stage[0].data.source: there is no run at 'nowhere'"),
        ("student.initialise", "attention", "student.initialise 'attention' is not for llamba; write mohawk, random"),
        ("student.mamba_config", {"d_xb": 1}, "student.mamba_config is for mamba-in-llama, not for llamba"),
        ("student.config", None, "student.config is missing; write the fields of a llamba's config.json"),
        (
            "student.config.d_model",
            64,
            "student.config.d_model is 64 and hidden_size of the teacher 'someone/llama' 32",
        ),
        ("student.config.n_layer", 3, "student.config.n_layer is 3 and num_hidden_layers of the teacher"),
        ("student.config.mlp_cfg.intermediate_size", 64, "student.config.mlp_cfg.intermediate_size is 64 and interm"),
        ("student.config.vocab_size", 65, "student.config.vocab_size is 65 and vocab_size of the teacher"),
        ("student.config.d_model", None, "student.config is not that of a llamba (KeyError: 'd_model')"),
        (
            "student.config.ssm_cfg.d_stat",
            8,
            "the ssm_cfg of this checkpoint has fields that are not known here: d_stat",
        ),
        ("teacher_config.tie_word_embeddings", False, "student: the student's head is tied to its embedding"),
        (
            "student.config.ssm_cfg",
            {"d_state": 8, "n_v_heads": 8, "n_qk_heads": 8},
            "stage[0]: layer 0 of the student ",
        ),
        ("teacher_config.model_type", "phi", "is of the family phi; a student of the family llamba wants a llama"),
        (
            "teacher_config.hidden_size",
            None,
            "the config of the teacher 'someone/llama' is not that of a llama (KeyErr",
        ),
        ("stage.1.context", 256, "stage[1].context is 256 and the teacher 'someone/llama' reads at most 128"),
    ],
)
def test_a_bad_recipe_is_refused_by_the_name_of_its_field(path: str, value: Any, says: str) -> None:
    accepted(table())
    with pytest.raises(UserError, match=re.escape(says)):
        accepted(change(table(), path, value))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("student.mamba_config.d_xb", 32, "write d_xb = 16 and d_inner = 32"),
        ("student.mamba_config.attn_layers", [2], "keeps attention in layers [2] of a model with 2 layers"),
        ("student.mamba_config", None, "student.mamba_config is missing"),
        ("student.config.num_attention_heads", 8, "student.config.num_attention_heads is 8 and num_attention_heads of"),
        ("student.config.hidden_act", "gelu", "has no gate 'gelu'"),
        ("stage.0", stage("matrix-orientation", trainable="mixers"), "stage[0]: matrix-orientation is not for Mamba-1"),
        ("stage.1.data.loss_on", "answer", "stage[1].data.loss_on has no value 'answer'"),
        ("stage.1.attn_layers", [1], "stage[1].attn_layers: replacement in steps starts with the first stage"),
        (
            "stage.0.attn_layers",
            [0, 1],
            "stage[0].attn_layers is the last and [0, 1], and student.mamba_config",
        ),
        ("stage.0.attn_layers", [0.5], "stage[0].attn_layers[0] must be a whole number, got 0.5"),
        ("stage.0.attn_layers", 1, "stage[0].attn_layers must be a list, got 1"),
        ("stage.0.data.mixed_with", ["task:sums"], "stage[0].data.mixed_with[0]: no task named 'sums'"),
    ],
)
def test_a_hybrid_that_does_not_fit_is_refused(path: str, value: Any, says: str) -> None:
    accepted(hybrid())
    with pytest.raises(UserError, match=re.escape(says)):
        accepted(change(hybrid(), path, value))


def test_attention_that_is_to_come_back_is_refused() -> None:
    recipe = hybrid()
    recipe["stage"][0]["attn_layers"], recipe["stage"][1]["attn_layers"] = [0, 1], [1]
    assert [one.attn_layers for one in accepted(recipe).stages] == [(0, 1), (1,)]
    recipe["stage"][0]["attn_layers"] = [0]
    with pytest.raises(UserError, match=re.escape("stage[1].attn_layers [1] must be some of [0]")):
        accepted(recipe)


@pytest.mark.parametrize(
    ("rows", "accumulate", "devices", "share"),
    [
        (2, 32, 1, (2, 32)),
        (2, 32, 8, (2, 4)),
        (32, 1, 8, (4, 1)),
        (3, 4, 2, (3, 2)),
        (6, 2, 3, (4, 1)),
        (3, 2, 6, (1, 1)),
    ],
)
def test_a_step_is_the_same_on_any_number_of_devices(
    rows: int, accumulate: int, devices: int, share: tuple[int, int]
) -> None:
    document = table()
    document["stage"] = [stage("distillation", loss={"forward_kl": 1.0}, rows=rows, accumulate=accumulate)]
    document["stage"][0]["tokens"] = 5 * rows * accumulate * 64
    (only,) = accepted(document).stages
    each = only.on(devices)
    assert (each.rows, each.accumulate) == share
    assert each.rows * each.accumulate * devices == rows * accumulate
    assert only.steps == 5


def test_rows_that_devices_cannot_share_are_refused() -> None:
    (first, *_) = accepted(table()).stages
    with pytest.raises(UserError, match=re.escape("has 2 rows (2 rows x 1 accumulate), which 4 devices cannot share")):
        first.on(4)


def test_nothing_to_match_and_nothing_to_compare_are_refused() -> None:
    kept = change(hybrid(), "student.mamba_config.attn_layers", [0, 1])
    with pytest.raises(UserError, match="trainable is 'mixers' and the student has no state-space mixer"):
        accepted(change(copy.deepcopy(kept), "stage.0", stage("hidden-alignment", trainable="mixers")))
    with pytest.raises(UserError, match=re.escape("stage[0]: hidden-alignment has nothing to do")):
        accepted(change(kept, "stage.0", stage("hidden-alignment")))
    other = change(table(), "student.initialise", "random")
    del other["stage"][:2]
    with pytest.raises(UserError, match="the student's vocabulary is 128 and the teacher's 64"):
        accepted(change(other, "student.config.vocab_size", 128))


def test_a_reward_model_is_its_teacher_with_a_score_head() -> None:
    document = {**table(), "student": {"family": "prm"}, "stage": [stage("prm")]}
    (planned,) = dry_run.plan(accepted(document))
    # The head of two labels has 2 * 32 weights and 2 biases.
    assert planned.parameters == planned.trained == planned.teacher_parameters + 66
    assert planned.memory.teacher == 0
    (deeper,) = dry_run.plan(accepted(change(copy.deepcopy(document), "student.config", {"num_hidden_layers": 5})))
    assert deeper.parameters > planned.parameters
    with pytest.raises(UserError, match="may say num_hidden_layers and no more"):
        accepted(change(copy.deepcopy(document), "student.config", {"d_model": 3}))
    with pytest.raises(UserError, match=re.escape("stage[0].trainable must be all")):
        accepted(change(copy.deepcopy(document), "stage.0.trainable", "mixers"))


def test_a_teacher_on_disk_is_read_and_must_be_what_the_recipe_says(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TEACHER))
    document = {**table(), "teacher": str(tmp_path)}
    del document["teacher_config"]
    accepted(document)
    fit.check_teacher(parse_recipe(document))
    says = re.escape("teacher_config.hidden_size is 64 and the config.json of")
    with pytest.raises(UserError, match=says):
        accepted({**document, "teacher_config": {"hidden_size": 64}})
    (tmp_path / "config.json").write_text(json.dumps(TEACHER | {"model_type": "opt"}))
    with pytest.raises(UserError, match="is of the family opt, which the native engine cannot run; only --dry-run"):
        fit.check_teacher(parse_recipe(document))
    with pytest.raises(UserError, match="the zoo has no checkpoint 'nobody'"):
        accepted({**document, "teacher": "zoo/nobody"})


def test_a_file_is_named_when_it_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the recipe '.*no\.toml' \(No such file or directory\)"):
        read_recipe(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(UserError, match=r"bad\.toml' is not valid TOML"):
        read_recipe(tmp_path / "bad.toml")
    (tmp_path / "less.toml").write_text('name = "less"\n[[stage]]\nkind = "sft"')
    with pytest.raises(UserError, match=r"less\.toml: the field teacher is missing"):
        read_recipe(tmp_path / "less.toml")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_papers_recipes_have_the_published_sizes_and_tokens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe = read_recipe(RECIPES / f"{name}.toml")
    assert recipe.name == name
    plans = dry_run.plan(recipe, devices=8)
    assert {(each.parameters, each.teacher_parameters) for each in plans} == {PUBLISHED[name]}
    assert all(each.trained + each.frozen == each.parameters for each in plans)
    assert sum(each.tokens for each in plans) == pytest.approx(TOKENS[name], rel=1e-4)
    assert all(each.steps * each.tokens_per_step == each.tokens for each in plans)
    assert plans[-1].trained == PUBLISHED[name][0]


def test_frozen_and_trained_of_llamba_1b_are_those_of_its_formulas() -> None:
    first, second, third = dry_run.plan(read_recipe(RECIPES / "llamba-1b.toml"))
    # Per mixer: in_proj (2I + 2HN + H) d, conv 5 (I + 2HN), z_bias I, D H, out_proj I d; I = d = 2048, H = 32, N = 64.
    d, heads, columns = 2048, 32, 2048 + 2 * 32 * 64
    mixer = (columns + d + heads) * d + 5 * columns + d + heads + d * d
    assert first.trained == second.trained == 16 * mixer
    assert third.frozen == 0
    assert third.memory.gradients == 4 * 1_405_159_936
    assert third.memory.moments == 8 * 1_405_159_936
    assert third.memory.weights == 6 * 1_405_159_936
    assert first.memory.total(8) < first.memory.total()


def counted(run: Callable[[], torch.Tensor], *, backward: bool) -> int:
    """FLOPs by torch's own counter, of a function and its gradients."""
    with FlopCounterMode(display=False) as counter:
        out = run()
        if backward:
            out.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("trainable", ["all", "mixers"])
def test_flops_agree_with_a_count_of_real_operations(trainable: str) -> None:
    """Of a Llama: a recurrence is counted by its formula, and done in chunks."""
    document = change(change(table(), "student", {"family": "llama", "initialise": "attention"}), "stage", [])
    document["stage"] = [stage("distillation", rows=1, tokens=64, loss={"forward_kl": 1.0})]
    recipe = accepted(document)
    teacher, student = (real(part) for part in fit.build_pair(recipe))
    teacher.requires_grad_(False)
    if trainable == "mixers":
        student.requires_grad_(False)
        for mixer in student.mixers:
            mixer.requires_grad_(True)
    ids = torch.zeros(1, 64, dtype=torch.long)
    ours = dry_run.row_flops(recipe.stages[0], teacher, student)
    with sdpa_kernel(SDPBackend.MATH):  # the counter does not know every fused kernel
        torch_ = counted(lambda: student(ids), backward=True) + counted(lambda: teacher(ids), backward=False)
    # The attention of both layers: 4 L^2 heads head_dim in full, of which ours has the causal half.
    full = 2 * 4 * 64 * 64 * 32
    causal = 2 * 4 * (64 * 65 // 2) * 32
    # The gradient of the first layer's input is wanted by nobody when the embedding is frozen.
    unwanted = 0 if trainable == "all" else 2 * 64 * 32 * 64
    assert ours - 4 * causal == torch_ - 4 * full + unwanted


def real(model: nn.Module) -> Any:
    allocate(model, torch.float32, torch.device("cpu"))
    randomise(model)
    return model


@pytest.mark.parametrize("kind", ["llamba", "mamba-in-llama"])
def test_activations_are_what_autograd_keeps(kind: str) -> None:
    """The estimate in float32 without a head, against the tensors that a pass forward really saves."""
    document = table() if kind == "llamba" else hybrid()
    recipe = accepted(document)
    _, student = fit.build_pair(recipe)
    student = real(student)
    last = replace(recipe.stages[-1], rows=1, context=64)
    set_trainable(student, "all")
    ids = torch.zeros(1, 64, dtype=torch.long)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in student.parameters()}
    saved: dict[int, int] = {}
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        student.read(ids, None)
    estimate = 64 * (memory.token_bytes(last, student, 4) - memory.logit_bytes(last, student, 4))
    assert estimate == pytest.approx(sum(saved.values()), rel=0.1)


def test_more_costs_more() -> None:
    recipe = accepted(table())
    plain = dry_run.plan(recipe)
    recomputed = replace(recipe, stages=tuple(replace(each, activation_checkpointing=True) for each in recipe.stages))
    for once, twice in zip(plain, dry_run.plan(recomputed), strict=True):
        assert twice.flops > once.flops
        assert twice.memory.activations < once.memory.activations
    halved = replace(recipe, precision="bf16")
    assert all(
        narrow.memory.activations < wide.memory.activations
        for narrow, wide in zip(dry_run.plan(halved), plain, strict=True)
    )
    slow, fast = dry_run.plan(recipe, 1, 1.0), dry_run.plan(recipe, 2, 2.0)
    assert [each.hours / 4 for each in slow] == pytest.approx([each.hours for each in fast])
    assert [each.flops for each in slow] == [each.flops for each in fast]
    with pytest.raises(UserError, match="which 5 devices cannot share evenly"):
        dry_run.plan(recipe, devices=5)


def test_phi_is_transformers_phi() -> None:
    from transformers import PhiConfig, PhiForCausalLM

    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=None,
    )  # fmt: skip
    theirs = PhiForCausalLM(config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    with torch.device("meta"):
        ours, layout = phi.build(config.to_dict())
    real(ours)
    state = theirs.state_dict()
    assert set(layout) == set(state)
    filled = dict(ours.named_parameters())
    with torch.no_grad():
        for key, place in layout.items():
            assert place is not None
            filled[place.parameter][place.start : place.start + len(state[key])] = state[key]
    ids = torch.randint(32, (2, 17))
    torch.testing.assert_close(ours.eval()(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
    for wrong in ({"hidden_act": "relu"}, {"qk_layernorm": True}, {"rope_scaling": {"rope_type": "linear"}}):
        with pytest.raises(UserError, match="native engine has"):
            phi.build({**config.to_dict(), **wrong})


def ttc(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", "distill", *arguments]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_the_command_tells_the_cost_and_writes_nothing(tmp_path: Path) -> None:
    recipe = str(RECIPES / "llamba-1b.toml")
    text = ttc(tmp_path, recipe, "--dry-run", "--devices", "8").stdout
    assert "llamba-1b: llamba of 1,405,159,936 parameters" in text
    assert [line.split()[0] for line in text.splitlines()[4:]] == [
        "matrix-orientation", "hidden-alignment", "distillation", "all",
    ]  # fmt: skip
    told = json.loads(ttc(tmp_path, recipe, "--dry-run", "--devices", "8", "--device-tflops", "100", "--json").stdout)
    assert told["student"] == {"family": "llamba", "parameters": 1_405_159_936}
    assert told["teacher"]["parameters"] == 1_235_814_400
    assert [each["kind"] for each in told["stages"]] == ["matrix-orientation", "hidden-alignment", "distillation"]
    assert told["total"]["hours"] == pytest.approx(told["total"]["flops"] / (8 * 100e12 * 3600))
    assert told["total"]["tokens"] == sum(each["tokens"] for each in told["stages"])
    for each in told["stages"]:
        parts = ("weights_bytes", "gradients_bytes", "moments_bytes", "teacher_bytes", "activations_bytes")
        assert each["memory"]["replicated_bytes"] == sum(each["memory"][part] for part in parts)
    assert list(tmp_path.iterdir()) == []


def test_the_commands_mistakes(tmp_path: Path) -> None:
    assert "ttc: cannot read the recipe 'no.toml'" in ttc(tmp_path, "no.toml", code=2).stderr
    recipe = str(RECIPES / "phi-mamba-1.5b.toml")
    refused = ttc(tmp_path, recipe, "--dry-run", "--device-tflops", "0", code=2).stderr
    assert "ttc: --device-tflops must be positive and finite, got 0" in refused
    assert "ttc: the hub cannot be reached for 'microsoft/phi-1_5'" in ttc(tmp_path, recipe, code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_every_recipe_that_is_shipped_is_whole() -> None:
    assert {path.stem for path in RECIPES.glob("*.toml")} >= set(PUBLISHED)
    for path in RECIPES.glob("*.toml"):
        assert tomllib.loads(path.read_text())["name"] == path.stem
