"""The training loop: the steps it takes, how it goes on after a kill, and what it writes."""

import csv
import gc
import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_students
import torch
from fakes import FakeClock
from report_runs import spec_of
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from harness.errors import UserError
from harness.models import native
from harness.models.architectures import blocks, llamba, mamba_in_llama
from harness.models.architectures.initial import allocate, randomise
from harness.models.checkpoints import find_checkpoint
from harness.models.distillation.batches import Batch, Batches, NumberedBatches
from harness.models.distillation.documents import Document
from harness.models.distillation.recipes import Data, LossWeights, Recipe, Stage, Student
from harness.models.distillation.run_folder import Metrics, Place
from harness.models.distillation.saving import save_checkpoint
from harness.models.distillation.schedules import learning_rate, make_optimizer, multiplier
from harness.models.distillation.trainees import Trainee, make_trainee
from harness.models.distillation.training import train
from harness.models.tokenizers_ import end_tokens, load_tokenizer
from harness.nouns import Completion
from harness.progress import Progress, Quiet, chooser
from harness.storage.runs import make_run

pytest.importorskip("accelerate")
QUIET = chooser(quiet=True)
TIMES = ("seconds", "tokens_per_s")
Hook = Callable[[int], float]


@pytest.fixture(autouse=True, scope="module")
def _quick_collection() -> Iterator[None]:
    """`accelerate` collects garbage after every stage, which is slow with a million objects of imported libraries."""
    gc.freeze()
    yield
    gc.unfreeze()


# A toy: its steps are numbered, so that a test can do something at the n-th.


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 16)
        torch.manual_seed(1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, token_ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.embedding(token_ids)))
        return logits


class ToyObjective(nn.Module):
    def __init__(self, model: nn.Module, hook: Hook) -> None:
        super().__init__()
        self.student, self.hook, self.calls = model, hook, 0

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        self.calls += 1
        loss = toy_loss(self.student, batch)
        return {"loss": loss * self.hook(self.calls), "twice": 2 * loss.detach()}


def toy_loss(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(batch.token_ids)[:, :-1]
    return cross_entropy(logits.flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100)


def toy_document(number: int) -> Document:
    ids = [(3 * number + place * place) % 16 for place in range(3 + number % 5)]
    return Document(ids, ids)


def toy_batches(stage: Stage, seed: int, processes: int) -> NumberedBatches:
    return Batches(toy_document, stage.rows, stage.context, stage.data.packed, seed, processes)


def save_toy(model: nn.Module, folder: Path, number: int, dtype: torch.dtype) -> None:
    folder.mkdir(exist_ok=True)
    torch.save(model.state_dict(), folder / "toy.pt")


def toy(hook: Hook = lambda call: 1.0) -> Callable[[Recipe, torch.device], Trainee]:
    def make(recipe: Recipe, device: torch.device) -> Trainee:
        return Trainee(
            Toy(), lambda model, number: model, lambda number: Toy(), lambda model, stage: ToyObjective(model, hook),
            toy_batches, save_toy,
        )  # fmt: skip

    return make


def toy_stage(**changes: Any) -> Stage:
    settings: dict[str, Any] = {
        "kind": "sft",
        "tokens": 480,
        "rows": 2,
        "context": 8,
        "accumulate": 3,
        "learning_rate": 0.02,
        "clip_norm": 0.5,
        "data": Data(source="file:none", packed=True),
    }
    return Stage(**settings | changes)


def toy_recipe(**changes: Any) -> Recipe:
    stages = (toy_stage(), toy_stage(schedule="cosine", data=Data(source="file:none")))
    settings: dict[str, Any] = {"name": "toy", "teacher": "none", "student": Student(family="llamba")}
    return Recipe(**settings | {"stages": stages, "precision": "fp32", "checkpoint_steps": 4} | changes)


def weights(out: Path, name: str = "final") -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(out / name / "toy.pt", weights_only=True)
    return state


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(out: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows(out)]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Killed(BaseException):
    """Nothing in the program catches it."""


def kill_at(step: int) -> Hook:
    def hook(call: int) -> float:
        if call == step:
            raise Killed
        return 1.0

    return hook


# Schedules and the optimiser


def test_schedules_by_hand() -> None:
    wsd = [multiplier("wsd", step, 10, 0.2, 0.4) for step in range(10)]
    assert wsd == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    cosine = [multiplier("cosine", step, 6, 1 / 3, 0.4) for step in range(6)]
    assert cosine == pytest.approx([0.5, 1, 1, 0.5 + 0.5 * math.sqrt(0.5), 0.5, 0.5 - 0.5 * math.sqrt(0.5)])
    assert [multiplier("constant", step, 5, 0.4, 0.9) for step in range(5)] == [0.5, 1, 1, 1, 1]
    assert [multiplier("wsd", step, 1, 0.0, 0.0) for step in range(1)] == [1]
    stage = toy_stage(learning_rate=3.0, min_learning_rate=1.0, warmup_fraction=0.5)
    assert [learning_rate(stage, step, 4) for step in range(4)] == [2, 3, 3, 3]


def test_weight_decay_spares_vectors_and_the_recurrence() -> None:
    student = tiny_students.mamba_in_llama()
    with torch.device("meta"):
        model, _ = mamba_in_llama.build({**student.config, "mamba_config": student.mamba_config}, list(student.tensors))
    model.blocks[0].requires_grad_(False)
    optimizer = make_optimizer(model, toy_stage(weight_decay=0.3))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_decay = {
        group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]}
        for group in optimizer.param_groups
    }
    assert "blocks.2.mixer.A_log" in by_decay[0.0]
    assert dict(model.named_parameters())["blocks.2.mixer.A_log"].ndim == 2
    assert {"norm.weight", "blocks.2.mixer.D", "blocks.2.mixer.conv1d.bias"} <= by_decay[0.0]
    assert {"embedding.weight", "blocks.2.mixer.conv1d.weight", "blocks.1.mixer.in_proj.weight"} <= by_decay[0.3]
    together = by_decay[0.0] | by_decay[0.3]
    assert together == {name for name in names.values() if not name.startswith("blocks.0.")}


# Steps


def test_the_steps_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stage = toy_stage(weight_decay=0.2, warmup_fraction=0.3, decay_fraction=0.3)
    recipe = toy_recipe(stages=(stage,))
    train(recipe, out, QUIET, make=toy())

    model = Toy()
    decayed = [model.embedding.weight, model.head.weight]
    others = [model.norm.weight, model.norm.bias, model.head.bias]
    groups = [{"params": decayed, "weight_decay": 0.2}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.95), eps=1e-8)
    factors = [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3]
    batches = Batches(toy_document, 2, 8, packed=True, seed=0)
    for step, (factor, row) in enumerate(zip(factors, rows(out), strict=True)):
        losses = [toy_loss(model, batches.batch(3 * step + micro)) for micro in range(3)]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        loss = torch.stack(losses).detach().mean()
        norm = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()  # type: ignore[union-attr]
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad *= min(1.0, 0.5 / float(norm))
        for group in optimizer.param_groups:
            group["lr"] = 1e-8 + (0.02 - 1e-8) * factor
        optimizer.step()
        assert float(row["loss"]) == pytest.approx(float(loss), abs=1e-5)
        assert float(row["twice"]) == pytest.approx(2 * float(loss), abs=1e-5)
        assert float(row["gradient_norm"]) == pytest.approx(float(norm), abs=1e-5)
        assert float(row["learning_rate"]) == pytest.approx(0.02 * factor, abs=1e-7)
    for name, tensor in weights(out).items():
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=2e-5, rtol=1e-4)


def test_metrics_count_steps_tokens_and_seconds(tmp_path: Path) -> None:
    clock, shown = FakeClock(), []

    class Display(Quiet):
        def update(self, done: int, note: str) -> None:
            shown.append((done, note))

    def show(title: str, total: int) -> Progress:
        shown.append((total, title))
        return Display()

    def hook(call: int) -> float:
        clock.sleep(0.5)
        return 1.0

    out = tmp_path / "out"
    train(toy_recipe(), out, show, clock, make=toy(hook))
    table = rows(out)
    assert [(row["stage"], row["step"]) for row in table] == [(str(s), str(n)) for s in (1, 2) for n in range(1, 11)]
    assert [int(row["tokens"]) for row in table] == [48 * n for n in range(1, 21)]
    assert [int(row["real_tokens"]) for row in table[:10]] == [48 * n for n in range(1, 11)]
    lengths = [int(table[n]["real_tokens"]) - int(table[n - 1]["real_tokens"]) for n in range(10, 20)]
    assert all(6 * 3 <= length <= 6 * 7 for length in lengths)
    assert [float(row["seconds"]) for row in table] == [1.5 * n for n in range(1, 21)]
    assert {row["tokens_per_s"] for row in table} == {"32.0"}
    assert {row["kind"] for row in table} == {"sft"}
    assert shown[0] == (10, "stage 1/2 sft")
    assert shown[4] == (4, f"loss {float(table[3]['loss']):.4f}, 32 tokens/s, 0:00:09 left")


def test_checkpoints_are_whole_and_the_newest_two_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert train(toy_recipe(), out, QUIET, make=toy()) == out / "final"
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["2-0000008", "2-0000010"]
    assert same(weights(out), weights(out, "stage-2"))
    assert not same(weights(out), weights(out, "stage-1"))

    def unwanted(recipe: Recipe, device: torch.device) -> Trainee:
        raise AssertionError("a finished run loads nothing")

    assert train(toy_recipe(), out, QUIET, make=unwanted) == out / "final"


# Stopping and going on


@pytest.mark.parametrize("call", [1, 13, 30, 31, 44, 59])
def test_a_killed_run_goes_on_to_the_bit(tmp_path: Path, call: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(toy_recipe(), whole, QUIET, make=toy())
    calls = 0

    def hook(_: int) -> float:
        nonlocal calls
        calls += 1
        return kill_at(call)(calls)

    with pytest.raises(Killed):
        train(toy_recipe(), broken, QUIET, make=toy(hook))
    # What a kill in the middle of writing leaves behind.
    if (broken / "metrics.csv").is_file():
        with (broken / "metrics.csv").open("a") as file:
            file.write("1,sft,1")
        (broken / "checkpoints" / ".2-0000010.unfinished").mkdir(parents=True)
    torch.manual_seed(call)
    train(toy_recipe(), broken, QUIET, make=toy())
    assert same(weights(broken), weights(whole))
    assert same(weights(broken, "stage-1"), weights(whole, "stage-1"))
    assert timeless(broken) == timeless(whole)


def test_ctrl_c_stores_the_state_and_says_how_to_go_on(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(toy_recipe(), whole, QUIET, make=toy())

    def hook(call: int) -> float:
        if call == 17:
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"stopped after step [67] of 10 of stage 1 \(sft\).*same command"):
        train(toy_recipe(), stopped, QUIET, make=toy(hook))
    assert signal.getsignal(signal.SIGINT) is before
    newest = max((stopped / "checkpoints").iterdir())
    assert json.loads((newest / "place.json").read_text())["step"] == len(rows(stopped))
    train(toy_recipe(), stopped, QUIET, make=toy())
    assert same(weights(stopped), weights(whole))
    assert timeless(stopped) == timeless(whole)


@pytest.mark.parametrize(("factor", "what"), [(math.nan, "loss is nan"), (math.inf, "loss is inf")])
def test_a_loss_that_is_not_finite_names_stage_step_and_batch(tmp_path: Path, factor: float, what: str) -> None:
    out = tmp_path / "out"
    sentence = rf"the {what} at step 6 of stage 1 \(sft\), in batch 16 of the data's seed \d+; lower"
    with pytest.raises(UserError, match=sentence):
        train(toy_recipe(), out, QUIET, make=toy(lambda call: factor if call == 17 else 1.0))
    assert len(rows(out)) == 5
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["1-0000004"]


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the gradient is inf at step 1 of stage 1"):
        train(toy_recipe(), tmp_path / "out", QUIET, make=toy(lambda call: 1e38))


def test_another_recipe_is_refused_in_the_same_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(toy_recipe(), out, QUIET, make=toy())
    recipe = toy_recipe()
    other = replace(recipe, stages=(recipe.stages[0], replace(recipe.stages[1], learning_rate=0.5)))
    with pytest.raises(UserError, match=r"a recipe with stages\[1\].learning_rate = 0.02, not 0.5; choose another"):
        train(other, out, QUIET, make=toy())
    with pytest.raises(UserError, match=r"with stages = "):
        train(replace(recipe, stages=recipe.stages[:1]), out, QUIET, make=toy())


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is in use and holds no training run"):
        train(toy_recipe(), tmp_path, QUIET, make=toy())
    with pytest.raises(UserError, match="is a file"):
        train(toy_recipe(), tmp_path / "thesis.tex", QUIET, make=toy())


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    def make(recipe: Recipe, device: torch.device) -> Trainee:
        train(recipe, tmp_path / "out", QUIET, make=toy())
        raise AssertionError

    with pytest.raises(UserError, match="another process trains in"):
        train(toy_recipe(), tmp_path / "out", QUIET, make=make)


def test_metrics_take_new_columns_and_drop_what_came_after_a_place(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    metrics = Metrics(path, Place())
    metrics.append({"stage": 1, "step": 1, "loss": 0.5})
    metrics.append({"stage": 2, "step": 1, "loss": 0.25, "part": 3})
    assert path.read_text() == "stage,step,loss,part\n1,1,0.5,\n2,1,0.25,3\n"
    with path.open("a") as file:
        file.write("2,1")
    Metrics(path, Place(2, 1)).append({"stage": 2, "step": 2, "loss": 0.125, "part": 4})
    assert path.read_text() == "stage,step,loss,part\n1,1,0.5,\n2,1,0.25,3\n2,2,0.125,4\n"
    Metrics(path, Place(1, 5))
    assert path.read_text() == "stage,step,loss,part\n1,1,0.5,\n"


# Files


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["llamba", "llamba untied", "mamba-in-llama fused", "mamba-in-llama mamba2"])
def test_a_student_comes_back_as_it_was_saved(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    published = tiny_students.STUDENTS[name]()
    config, keys = {**published.config}, list(published.tensors)
    build = llamba.build
    if published.mamba_config is not None:
        config, build = {**config, "mamba_config": published.mamba_config}, mamba_in_llama.build
    with torch.device("meta"):
        model, layout = build(config, keys)
    allocate(model, torch.float32, torch.device("cpu"))
    randomise(model, seed=3)
    save_checkpoint(
        tmp_path / "saved",
        model,
        layout,
        published.config,
        published.mamba_config,
        tiny.make_tokenizer(tiny.TEMPLATE),
        dtype,
        {"eos_token_id": [1, 5]},
    )
    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(keys)
    read = native.load_model(str(tmp_path / "saved"))
    for (name, saved), loaded in zip(model.named_parameters(), read.parameters(), strict=True):
        exact = name.rsplit(".", 1)[-1] in ("A_log", "D", "dt_bias", "z_bias")
        assert torch.equal(saved if exact else saved.to(dtype).float(), loaded)
    if dtype == torch.float32:
        token_ids = torch.arange(24).reshape(2, 12)
        assert torch.equal(model.eval()(token_ids), read(token_ids))
    found = find_checkpoint(str(tmp_path / "saved"))
    tokenizer = load_tokenizer(found)
    assert end_tokens(found, tokenizer) == {1, 5}
    assert tokenizer.chat_template == tiny.TEMPLATE


# The whole, with a small teacher

STUDENT = {
    "model_type": "llamba",
    "vocab_size": 264,
    "d_model": 32,
    "n_layer": 2,
    "tie_embeddings": True,
    "pad_vocab_size_multiple": 8,
    "lm_head_bias": False,
    "norm_epsilon": 1e-5,
    "mlp_cfg": {"intermediate_size": 48, "bias": False, "act_fn": "silu"},
    "ssm_cfg": {"d_state": 8, "n_v_heads": 4, "n_qk_heads": 4, "expand": 1, "chunk_size": 8, "bias": False},
}


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    return tiny_students.save(tiny_students.llama(tiny_students.NO_SCALING, vocab_size=264), tmp_path / "teacher")


@pytest.fixture
def texts(tmp_path: Path) -> str:
    path = tmp_path / "texts.jsonl"
    lines = [{"prompt": f"{n} + 1?", "completion": f"{n} + 1 = {n + 1}"} for n in range(30)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"file:{path}"


def small_stage(source: str, kind: Any, steps: int = 3, **changes: Any) -> Stage:
    data = Data(source=source, loss_on="completion")
    settings: dict[str, Any] = {"tokens": 128 * steps, "rows": 2, "context": 64, "learning_rate": 1e-2, "data": data}
    return Stage(kind=kind, **settings | changes)


def test_a_llamba_is_made_by_all_three_stages_and_loads(tmp_path: Path, teacher: str, texts: str) -> None:
    stages = (
        small_stage(texts, "matrix-orientation", trainable="mixers"),
        small_stage(texts, "hidden-alignment", trainable="mixers"),
        small_stage(texts, "distillation", loss=LossWeights(forward_kl=1.0), activation_checkpointing=True),
    )
    student = Student(family="llamba", initialise="mohawk", config=STUDENT)
    recipe = Recipe(name="r", teacher=teacher, student=student, stages=stages, precision="fp32", weights="fp16", seed=2)
    final = train(recipe, tmp_path / "out", QUIET)
    assert len(rows(tmp_path / "out")) == 9
    before, after = (native.load_model(str(tmp_path / "out" / f"stage-{n}")) for n in (2, 3))
    assert torch.equal(before.embedding.weight, native.load_model(teacher).embedding.weight)
    assert not torch.equal(before.embedding.weight, after.embedding.weight)
    with safe_open(final / "model.safetensors", "pt") as file:
        keys = file.keys()
        assert {file.get_tensor(key).dtype for key in keys} == {torch.float16, torch.float32}
        assert file.get_tensor("backbone.layers.0.mixer.D").dtype == torch.float32
    for weight, stored in zip(after.parameters(), native.load_model(str(final)).parameters(), strict=True):
        torch.testing.assert_close(stored, weight, atol=1e-3, rtol=1e-3)
    assert end_tokens(find_checkpoint(str(final)), load_tokenizer(find_checkpoint(str(final)))) == {tiny.END}


def test_a_hybrid_is_made_by_reverse_kl_and_fine_tuning_and_goes_on_after_a_kill(
    tmp_path: Path, teacher: str, texts: str
) -> None:
    stages = (
        small_stage(texts, "distillation", loss=LossWeights(reverse_kl=1.0, cross_entropy=0.1), accumulate=3),
        small_stage(texts, "sft", loss=LossWeights(cross_entropy=1.0), data=Data(source=texts, packed=True)),
    )
    stages = (replace(stages[0], tokens=128 * 9), stages[1])
    mamba = {"attn_layers": [0], "ssm_cfg": {"expand": 1, "ngroups": 4, "d_state": 8}}
    student = Student(family="mamba-in-llama", initialise="attention", mamba_config=mamba)
    recipe = Recipe(name="r", teacher=teacher, student=student, stages=stages, precision="fp32", checkpoint_steps=2)
    whole = native.load_model(str(train(recipe, tmp_path / "whole", QUIET)))
    seen: list[int] = []

    class Dying(Quiet):
        def update(self, done: int, note: str) -> None:
            seen.append(done)
            if len(seen) == 5:
                raise Killed

    with pytest.raises(Killed):
        train(recipe, tmp_path / "broken", lambda title, total: Dying())
    broken = native.load_model(str(train(recipe, tmp_path / "broken", QUIET)))
    assert same(whole.state_dict(), broken.state_dict())
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "broken")
    assert json.loads((tmp_path / "whole" / "final" / "mamba_config.json").read_text())["attn_layers"] == [0]


def test_attention_is_replaced_in_steps_and_goes_on_after_a_kill(tmp_path: Path, teacher: str, texts: str) -> None:
    stages = (
        small_stage(texts, "distillation", loss=LossWeights(forward_kl=1.0), attn_layers=(0,)),
        small_stage(texts, "distillation", loss=LossWeights(forward_kl=1.0), attn_layers=(), trainable="mixers"),
    )
    mamba = {"attn_layers": [], "ssm_cfg": {"expand": 1, "ngroups": 4, "d_state": 8}}
    student = Student(family="mamba-in-llama", initialise="attention", mamba_config=mamba)
    recipe = Recipe(name="r", teacher=teacher, student=student, stages=stages, precision="fp32", checkpoint_steps=2)
    whole = native.load_model(str(train(recipe, tmp_path / "whole", QUIET)))
    kept = [
        json.loads((tmp_path / "whole" / name / "mamba_config.json").read_text())["attn_layers"]
        for name in ("stage-1", "stage-2", "final")
    ]
    assert kept == [[0], [], []]
    half, old = native.load_model(str(tmp_path / "whole" / "stage-1")), native.load_model(teacher)
    assert not torch.equal(half.mixers[0].in_proj.weight, old.mixers[0].in_proj.weight)  # attention trains too
    narrow = half.mixers[0].n_kv_heads * half.mixers[0].head_dim
    keys = half.mixers[0].in_proj.weight[-2 * narrow : -narrow]
    learnt = whole.mixers[0].in_proj.weight  # z, x, B, C, dt
    assert (learnt[32 + narrow : 32 + 2 * narrow] - keys).abs().max() < 0.1 < keys.abs().max()
    seen: list[int] = []

    class Dying(Quiet):
        def update(self, done: int, note: str) -> None:
            seen.append(done)
            if len(seen) == 6:
                raise Killed

    with pytest.raises(Killed):
        train(recipe, tmp_path / "broken", lambda title, total: Dying())
    broken = native.load_model(str(train(recipe, tmp_path / "broken", QUIET)))
    assert same(whole.state_dict(), broken.state_dict())


def test_recomputing_activations_changes_nothing_but_the_work(
    tmp_path: Path, teacher: str, texts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    forward = blocks.SequentialBlock.forward

    def counted(self: Any, *given: Any) -> Any:
        calls.append("block")
        return forward(self, *given)

    monkeypatch.setattr(blocks.SequentialBlock, "forward", counted)
    made = []
    for recomputes in (False, True):
        calls.clear()
        stage = small_stage(texts, "sft", loss=LossWeights(cross_entropy=1.0), activation_checkpointing=recomputes)
        student = Student(family="llamba", initialise="mohawk", config=STUDENT)
        recipe = Recipe(name="r", teacher=teacher, student=student, stages=(stage,), precision="fp32")
        final = train(recipe, tmp_path / f"out-{recomputes}", QUIET)
        assert len(calls) == 3 * 2 * (2 if recomputes else 1)
        made.append(native.load_model(str(final)).state_dict())
    for name, tensor in made[0].items():
        torch.testing.assert_close(tensor, made[1][name])


def test_autocast_keeps_the_weights_in_float32(tmp_path: Path, teacher: str, texts: str) -> None:
    stage = small_stage(texts, "distillation", loss=LossWeights(forward_kl=1.0))
    student = Student(family="llamba", initialise="mohawk", config=STUDENT)
    recipe = Recipe(name="r", teacher=teacher, student=student, stages=(stage,), precision="bf16")
    final = train(recipe, tmp_path / "out", QUIET)
    with safe_open(final / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F32"}  # noqa: SIM118
    exact = replace(recipe, precision="fp32")
    train(exact, tmp_path / "exact", QUIET)
    rough, fine = (float(rows(tmp_path / name)[0]["loss"]) for name in ("out", "exact"))
    assert rough != fine
    assert rough == pytest.approx(fine, rel=0.05)


def test_a_reward_model_is_trained_from_a_stored_run(tmp_path: Path, teacher: str) -> None:
    (tmp_path / "run").mkdir()
    problems = [{"problem_id": str(n), "prompt": f"{n}?", "gold": "1", "meta": {}} for n in range(4)]
    run = make_run(tmp_path / "run", spec_of("m", 4, 1), problems)
    run.add_completions([Completion(str(n), 0, f"is {n}", "stop", 1, 2, 0, 0.0, 0.0, 0.1, 0.2, 1.0) for n in range(4)])
    run.add_verdicts(
        [
            {"problem_id": str(n), "sample_index": 0, "answer": "1", "answer_class": 0, "reason": "", "ms": 0.0}
            | {"verdict": "correct" if n % 2 else "wrong"}
            for n in range(4)
        ]
    )
    stage = small_stage(f"run:{tmp_path}/run", "orm", steps=8)
    recipe = Recipe(name="r", teacher=teacher, student=Student(family="orm"), stages=(stage,), precision="fp32")
    final = train(recipe, tmp_path / "out", QUIET)
    losses = [float(row["loss"]) for row in rows(tmp_path / "out")]
    assert losses[-1] < losses[0]
    assert "accuracy" in rows(tmp_path / "out")[0]
    assert json.loads((final / "config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]


def test_the_trainee_of_a_recipe_has_an_empty_twin(teacher: str, texts: str) -> None:
    for family in ("llamba", "orm"):
        student = Student(family=family, config=STUDENT if family == "llamba" else {})
        recipe = Recipe(name="r", teacher=teacher, student=student, stages=(small_stage(texts, "sft"),))
        trainee = make_trainee(recipe, torch.device("cpu"))
        twin = trainee.empty(1)
        twin.load_state_dict(trainee.model.state_dict())
        assert same(dict(trainee.model.named_parameters()), dict(twin.named_parameters()))
