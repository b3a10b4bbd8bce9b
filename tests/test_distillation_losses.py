"""The losses of distillation against torch's own, finite differences, written-out loops and transformers' attention."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import tiny_students
import torch
from tiny import VOCAB
from torch import Tensor, nn
from torch.nn import functional

from harness.errors import UserError
from harness.models.architectures.attention import Attention
from harness.models.architectures.causal_lm import CausalLM
from harness.models.architectures.discrete_mamba2 import DiscreteMamba2
from harness.models.architectures.mamba2_mixer import Mamba2Mixer
from harness.models.architectures.passes import Span, Step
from harness.models.distillation import losses, matching
from harness.models.distillation.objectives import make_objective, set_trainable
from harness.models.distillation.recipes import Data, LossWeights, Stage, Student
from harness.models.distillation.students import make_student
from harness.models.native import load_model

WIDTH, HEADS, LENGTH, LENGTHS = 32, 4, 11, (11, 6, 1)
IGNORED = -100


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


STUDENT, TEACHER = draw(2, 5, 7, seed=1, scale=2), draw(2, 5, 7, seed=2, scale=2)
LABELS = torch.tensor([[0, 6, 2, 2, 5], [3, 1, 0, 4, 4]])
MASK = torch.tensor([[True, True, False, True, False], [False, True, True, True, True]])
MATRICES, TARGETS = draw(2, 3, 5, 5, seed=3).tril(), draw(2, 3, 5, 5, seed=4).tril()
STATES, GOALS = draw(2, 5, 6, seed=5), draw(2, 5, 6, seed=6)
REAL = torch.tensor([[True, True, True, True, False], [True, True, False, False, False]])

LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "forward KL": (lambda student: losses.forward_kl(student, TEACHER, MASK), STUDENT),
    "reverse KL": (lambda student: losses.reverse_kl(student, TEACHER, MASK), STUDENT),
    "cross entropy": (lambda student: losses.cross_entropy(student, LABELS, MASK), STUDENT),
    "Frobenius": (lambda matrices: losses.frobenius_distance(matrices, TARGETS, REAL), MATRICES),
    "L2": (lambda states: losses.token_distance(states, GOALS, REAL), STATES),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    loss, at = LOSSES[name]
    assert torch.autograd.gradcheck(loss, (at.clone().requires_grad_(),), eps=1e-6, atol=1e-6)


def test_divergences_and_cross_entropy_are_torchs() -> None:
    student, teacher, labels = STUDENT[MASK], TEACHER[MASK], LABELS[MASK]
    log_student, log_teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    forward = functional.kl_div(log_student, log_teacher.exp(), reduction="batchmean")
    reverse = functional.kl_div(log_teacher, log_student.exp(), reduction="batchmean")
    torch.testing.assert_close(losses.forward_kl(STUDENT, TEACHER, MASK), forward)
    torch.testing.assert_close(losses.reverse_kl(STUDENT, TEACHER, MASK), reverse)
    torch.testing.assert_close(
        losses.cross_entropy(STUDENT, LABELS, MASK), functional.cross_entropy(student, labels, reduction="mean")
    )
    assert forward > 0.1
    assert abs(forward - reverse) > 0.01


def test_forward_kl_is_cross_entropy_on_soft_labels_less_the_entropy_of_the_teacher() -> None:
    student, teacher = STUDENT[MASK], TEACHER[MASK].softmax(-1)
    entropy = -(teacher * teacher.log()).sum(-1).mean()
    expected = functional.cross_entropy(student, teacher) - entropy
    torch.testing.assert_close(losses.forward_kl(STUDENT, TEACHER, MASK), expected)


def test_without_a_mask_every_token_counts() -> None:
    every = torch.ones_like(MASK)
    for loss in (losses.forward_kl, losses.reverse_kl):
        assert loss(STUDENT, TEACHER) == loss(STUDENT, TEACHER, every)
    assert losses.cross_entropy(STUDENT, LABELS) == losses.cross_entropy(STUDENT, LABELS, every)


def test_a_mean_over_no_token_is_0_and_moves_nothing() -> None:
    none = torch.zeros_like(MASK)
    student = STUDENT.clone().requires_grad_()
    total = (
        losses.forward_kl(student, TEACHER, none)
        + losses.reverse_kl(student, TEACHER, none)
        + losses.cross_entropy(student, LABELS, none)
        + losses.token_distance(student, TEACHER, none)
    )
    total.backward()
    assert total == 0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("loss", [losses.forward_kl, losses.reverse_kl])
def test_large_logits_neither_overflow_nor_vanish(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    # Each is certain of another token, 20,000 above the rest: log of the odds is the divergence.
    student = torch.zeros(1, 1, 5)
    teacher = torch.zeros(1, 1, 5)
    student[..., 0], teacher[..., 1] = 20000.0, 20000.0
    student.requires_grad_()
    divergence = loss(student, teacher)
    divergence.backward()
    assert divergence == 20000.0
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_half_precision_is_taken_in_float32() -> None:
    student, teacher = STUDENT.bfloat16(), TEACHER.bfloat16()
    exact = losses.forward_kl(student.double(), teacher.double(), MASK)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = losses.forward_kl(student, teacher, MASK)
        distance = losses.token_distance(STATES.bfloat16(), GOALS.bfloat16(), REAL)
    assert rounded.dtype == distance.dtype == torch.float32
    assert abs(rounded.item() - exact.item()) < 1e-6
    expected = (STATES.bfloat16().double() - GOALS.bfloat16().double())[REAL].norm(dim=-1).mean()
    assert abs(float(distance) - expected.item()) < 1e-6


def test_frobenius_distance_is_the_root_of_the_sum_over_the_real_tokens_of_each_head() -> None:
    norms = []
    for row, length in enumerate(REAL.sum(1).tolist()):
        for head in range(3):
            squares = [
                float(MATRICES[row, head, i, j] - TARGETS[row, head, i, j]) ** 2
                for i in range(length)
                for j in range(length)
            ]
            norms.append(sum(squares) ** 0.5)
    expected = sum(norms) / len(norms)
    assert abs(float(losses.frobenius_distance(MATRICES, TARGETS, REAL)) - expected) < 1e-12


def test_token_distance_is_the_mean_length_of_the_differences() -> None:
    lengths = [
        float((STATES[place] - GOALS[place]).square().sum()) ** 0.5 for place in zip(*REAL.nonzero().T, strict=True)
    ]
    assert abs(float(losses.token_distance(STATES, GOALS, REAL)) - sum(lengths) / len(lengths)) < 1e-12


def test_at_a_perfect_match_the_gradients_are_0_and_not_nan() -> None:
    matrices, states = TARGETS.clone().requires_grad_(), GOALS.clone().requires_grad_()
    (losses.frobenius_distance(matrices, TARGETS, REAL) + losses.token_distance(states, GOALS, REAL)).backward()
    for gradient in (matrices.grad, states.grad):
        assert gradient is not None
        assert not gradient.any()


@pytest.mark.parametrize(
    ("loss", "new", "target"),
    [
        (losses.forward_kl, STUDENT, TEACHER),
        (losses.reverse_kl, STUDENT, TEACHER),
        (losses.frobenius_distance, MATRICES, TARGETS),
        (losses.token_distance, STATES, GOALS),
    ],
)
def test_nothing_flows_into_a_target(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], new: Tensor, target: Tensor
) -> None:
    new, target = new.clone().requires_grad_(), target.clone().requires_grad_()
    loss(new, target, REAL).backward()
    assert target.grad is None
    assert new.grad is not None
    assert new.grad.any()


# Materialised matrices


MIXERS = {
    "llamba": tiny_students.llamba(),
    "llamba groups": tiny_students.llamba({"n_v_heads": 8, "n_qk_heads": 2, "expand": 2}),
    "llamba bias, silu": tiny_students.llamba({"bias": True, "activation": "silu"}),
    "mamba-in-llama": tiny_students.mamba_in_llama(tiny_students.MAMBA2, d_inner=64),
    "mamba2 limits": tiny_students.mamba2(n_groups=2, time_step_limit=[0.1, 0.5]),
}


@pytest.mark.parametrize("name", MIXERS)
def test_the_matrix_times_the_convolved_input_is_the_mixers_output_before_its_gate(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny_students.save(MIXERS[name], tmp_path / "student"))
    mixer: Any = model.mixers[0]
    assert isinstance(mixer, DiscreteMamba2 | Mamba2Mixer)
    width, heads = mixer.in_proj.in_features, mixer.heads
    u = torch.randn(2, 70, width, generator=torch.Generator().manual_seed(0))
    seen: dict[str, Tensor] = {}
    mixer.conv1d.register_forward_hook(lambda _, inputs, output: seen.update(convolved=output))
    if isinstance(mixer, Mamba2Mixer):
        mixer.norm.register_forward_pre_hook(lambda _, inputs: seen.update(y=inputs[0]))
    else:
        read_out = mixer.read_out
        monkeypatch.setattr(mixer, "read_out", lambda y, z: seen.update(y=y.flatten(-2)) or read_out(y, z))
    with torch.no_grad():
        mixer(u, Span(None))
        matrix = mixer.matrix(u)
    x = mixer.split(seen["convolved"])[0]
    assert matrix.shape == (2, heads, 70, 70)
    assert not matrix.triu(1).any()
    y = (matrix @ x.transpose(1, 2)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(y, seen["y"], rtol=1e-4, atol=1e-4)
    assert seen["y"].abs().max() > 1


# Matching a teacher


MORE_HEADS = {**tiny_students.LLAMBA["ssm_cfg"], "n_v_heads": 8}
LLAMBA_CONFIG = {**tiny_students.LLAMBA, "vocab_size": VOCAB, "pad_vocab_size_multiple": 1}
MAMBA_CONFIG = {"d_xb": 16, "d_inner": 32, "ssm_cfg": {"expand": 1, "ngroups": 4, "d_state": 8}, "attn_layers": [0]}


@cache
def reference() -> Any:
    """Transformers' Llama with attention that can be looked at, 4 query heads over 2 of keys and values."""
    model = tiny.llama()
    model.set_attn_implementation("eager")
    return model


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    return load_model(tiny.save(reference(), tmp_path_factory.mktemp("teacher")))


def make(teacher: CausalLM, **changes: Any) -> Any:
    student = replace(Student(family="llamba", initialise="mohawk", config=LLAMBA_CONFIG), **changes)
    return make_student(student, teacher, reference().config.to_dict(), seed=3)[0]


def hybrid(teacher: CausalLM, **ssm: Any) -> Any:
    mamba = {**MAMBA_CONFIG, **({"ssm_cfg": ssm} if ssm else {})}
    return make(teacher, family="mamba-in-llama", initialise="attention", config={}, mamba_config=mamba)


TOKEN_IDS = torch.randint(0, VOCAB, (3, LENGTH), generator=torch.Generator().manual_seed(1))
MASK_OF_ROWS = torch.arange(LENGTH) < torch.tensor(LENGTHS)[:, None]
EVERY = torch.ones(3, LENGTH, dtype=torch.bool)


def test_the_teachers_hidden_states_and_attention_are_transformers(teacher: CausalLM) -> None:
    with torch.no_grad():
        expected = reference()(TOKEN_IDS, output_hidden_states=True, output_attentions=True)
    states, rotation = matching.layer_inputs(teacher, TOKEN_IDS)
    for state, hidden in zip(states[:-1], expected.hidden_states[:-1], strict=True):
        torch.testing.assert_close(state, hidden, rtol=1e-4, atol=1e-4)
    # Transformers gives the last one behind the norm.
    torch.testing.assert_close(teacher.norm(states[-1]), expected.hidden_states[-1], rtol=1e-4, atol=1e-4)
    for number, attention in enumerate(expected.attentions):
        matrix = matching.attention_matrix(teacher, number, states[number], rotation)
        torch.testing.assert_close(matrix, attention, rtol=1e-4, atol=1e-5)


def naive_orientation(student: CausalLM, hidden: Any, attentions: Any, lengths: tuple[int, ...]) -> float:
    """Stage 1 of a Llamba in loops over rows, heads and pairs of tokens, in float64."""
    total = 0.0
    for number, block in enumerate(student.blocks):
        weights = {name: parameter.detach().double() for name, parameter in block.named_parameters()}
        norms = []
        for row, length in enumerate(lengths):
            h = hidden[number][row, :length].double()
            u = h / (h.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights["mixer_norm.weight"]
            projected = u @ weights["mixer.in_proj.weight"].T
            columns, a = projected[:, :96], projected[:, 128:]
            taps, bias = weights["mixer.conv1d.weight"][:, 0], weights["mixer.conv1d.bias"]
            convolved = torch.stack(
                [bias + sum(columns[t - k] * taps[:, 3 - k] for k in range(4) if t >= k) for t in range(length)]
            )
            B, C = convolved[:, 32:64], convolved[:, 64:96]
            for head in range(HEADS):
                part = slice(8 * head, 8 * head + 8)
                square = 0.0
                for i in range(length):
                    decay = 1.0
                    for j in range(i, -1, -1):
                        entry = float(C[i, part] @ B[j, part]) * decay
                        entry += float(weights["mixer.D"][head]) if i == j else 0.0
                        square += (entry - float(attentions[number][row, head, i, j])) ** 2
                        decay *= float(torch.sigmoid(-a[j, head]))
                norms.append(square**0.5)
        total += sum(norms) / len(norms)
    return total


@cache
def observed() -> tuple[Any, Any]:
    with torch.no_grad():
        seen = reference()(TOKEN_IDS, output_hidden_states=True, output_attentions=True)
    return seen.hidden_states, seen.attentions


def test_orientation_loss_is_that_of_the_loops_and_so_are_its_gradients(teacher: CausalLM) -> None:
    student = make(teacher, initialise="random")
    for number, block in enumerate(student.blocks):
        block.mixer_norm.load_state_dict(teacher.blocks[number].get_submodule("mixer_norm").state_dict())
        block.mixer.D.data.uniform_(0.5, 1.5)
    hidden, attentions = observed()
    loss = matching.orientation_loss(student, teacher, TOKEN_IDS, MASK_OF_ROWS)
    loss.backward()
    assert abs(loss.item() - naive_orientation(student, hidden, attentions, LENGTHS)) < 1e-4
    # Along a random direction of each parameter that makes the matrix, the slope of the loops is the gradient's.
    for name in ("in_proj.weight", "conv1d.weight", "conv1d.bias", "D"):
        parameter = student.get_parameter(f"blocks.1.mixer.{name}")
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
        assert parameter.grad is not None
        slope, step = float((parameter.grad * direction).sum()), 1e-3
        kept, at = parameter.data, []
        for sign in (1, -1):
            parameter.data = kept + sign * step * direction
            at.append(naive_orientation(student, hidden, attentions, LENGTHS))
        parameter.data = kept
        assert slope == pytest.approx((at[0] - at[1]) / (2 * step), rel=0.01, abs=1e-3), name
    # x, z and the output projection have no part in it (rows [x | B | C | z | a]).
    for block in student.blocks:
        rows = block.mixer.in_proj.weight.grad.abs().sum(1)
        assert not rows[:32].any()
        assert rows[32:96].all()
        assert not rows[96:128].any()
        assert rows[128:].all()
        assert block.mixer.out_proj.weight.grad is None
        assert block.mixer.z_bias.grad is None
        assert block.mlp.down_proj.weight.grad is None


def naive_alignment(student: CausalLM, hidden: Any, number: int) -> Tensor:
    """One layer's distance of every token, the student's block taken token by token through its decode step."""
    block: Any = student.blocks[number]
    state = block.mixer.empty_state(len(TOKEN_IDS), LENGTH, torch.float32)
    for tensor in state:
        tensor.zero_()
    rows = torch.arange(len(TOKEN_IDS))
    outputs = []
    with torch.no_grad():
        for t in range(LENGTH):
            step = Step(None, rows, torch.full_like(rows, t), t + 1, None, (rows, torch.zeros_like(rows)))
            outputs.append(block.step(hidden[number][:, t], state, step))
    distances: Tensor = (torch.stack(outputs, dim=1) - hidden[number + 1]).norm(dim=-1)
    return distances


def test_alignment_loss_is_the_sum_over_layers_of_the_mean_distance_of_a_real_token(teacher: CausalLM) -> None:
    student = make(teacher)
    hidden = [*observed()[0][:-1], matching.layer_inputs(teacher, TOKEN_IDS)[0][-1]]
    expected = sum(float(naive_alignment(student, hidden, number)[MASK_OF_ROWS].mean()) for number in range(2))
    loss = matching.alignment_loss(student, teacher, TOKEN_IDS, MASK_OF_ROWS)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", [matching.orientation_loss, matching.alignment_loss])
def test_only_replaced_layers_are_matched(
    loss: Callable[[CausalLM, CausalLM, Tensor, Tensor], Tensor], teacher: CausalLM
) -> None:
    student = hybrid(teacher)
    assert matching.replaced_layers(student, teacher) == [1]
    before = loss(student, teacher, TOKEN_IDS, EVERY)
    student.blocks[0].mixer.in_proj.weight.data.zero_()
    assert loss(student, teacher, TOKEN_IDS, EVERY) == before
    student.blocks[1].mixer.in_proj.weight.data.zero_()
    assert loss(student, teacher, TOKEN_IDS, EVERY) != before


@pytest.mark.parametrize("build", [make, hybrid])
@pytest.mark.parametrize("loss", [matching.orientation_loss, matching.alignment_loss])
def test_padding_changes_nothing(loss: Any, build: Callable[[CausalLM], Any], teacher: CausalLM) -> None:
    student = build(teacher)
    padded = loss(student, teacher, TOKEN_IDS, MASK_OF_ROWS)
    noise = torch.randint(0, VOCAB, TOKEN_IDS.shape, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(loss(student, teacher, TOKEN_IDS.where(MASK_OF_ROWS, noise), MASK_OF_ROWS), padded)
    alone = [
        loss(student, teacher, TOKEN_IDS[row : row + 1, :length], EVERY[:1, :length]).item()
        for row, length in enumerate(LENGTHS)
    ]
    shares = [1 / 3] * 3 if loss is matching.orientation_loss else [length / sum(LENGTHS) for length in LENGTHS]
    assert padded.item() == pytest.approx(sum(x * y for x, y in zip(alone, shares, strict=True)), rel=1e-5)


def test_recomputing_matrices_changes_no_gradient(teacher: CausalLM) -> None:
    gradients = []
    for recomputes in (False, True):
        student = make(teacher)
        matching.orientation_loss(student, teacher, TOKEN_IDS, EVERY, recomputes=recomputes).backward()
        gradients.append(student.blocks[0].mixer.in_proj.weight.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda teacher: hybrid(teacher, expand=1, d_state=8), r"layer 1 of the student is Mamba1Mixer"),
        (
            lambda teacher: make(
                teacher, config={**LLAMBA_CONFIG, "ssm_cfg": {**LLAMBA_CONFIG["ssm_cfg"], "n_v_heads": 8}}
            ),
            r"layer 0 of the student has 8 heads and the teacher's attention 4",
        ),
    ],
)
def test_what_has_no_comparable_matrix_is_refused(
    build: Callable[[CausalLM], Any], told: str, teacher: CausalLM
) -> None:
    with pytest.raises(UserError, match=told):
        matching.orientation_loss(build(teacher), teacher, TOKEN_IDS, EVERY)


# Objectives


def stage(kind: str, **changes: Any) -> Stage:
    fields: dict[str, Any] = {"kind": kind, "tokens": 64, "rows": 1, "context": 64, "learning_rate": 1e-2}
    return Stage(**fields, data=Data(source="task:arithmetic"), **changes)


def batch(labels: Tensor | None = None) -> Any:
    return SimpleNamespace(
        token_ids=TOKEN_IDS, labels=TOKEN_IDS if labels is None else labels, lengths=torch.tensor(LENGTHS)
    )


KL_AND_LABELS = LossWeights(forward_kl=0.5, reverse_kl=2.0, cross_entropy=0.25)


def test_token_losses_are_weighted_and_taken_where_the_next_token_has_a_label(teacher: CausalLM) -> None:
    student = make(teacher)
    labels = torch.full_like(TOKEN_IDS, IGNORED)
    labels[0, 4:9], labels[1, 2:6], labels[2, 0] = TOKEN_IDS[0, 4:9], TOKEN_IDS[1, 2:6], TOKEN_IDS[2, 0]
    told = make_objective(stage("distillation", loss=KL_AND_LABELS), student, teacher)(batch(labels))
    forward, reverse, entropy = [], [], []
    with torch.no_grad():
        for row, places in ((0, range(4, 9)), (1, range(2, 6))):  # the label of a first token is nobody's prediction
            for t in places:
                prefix = TOKEN_IDS[row : row + 1, :t]
                p, q = (model(prefix)[0, -1].double().softmax(-1) for model in (student, teacher))
                forward.append(float((q * (q.log() - p.log())).sum()))
                reverse.append(float((p * (p.log() - q.log())).sum()))
                entropy.append(-float(p[TOKEN_IDS[row, t]].log()))
    means = {
        name: sum(values) / len(values)
        for name, values in (("forward_kl", forward), ("reverse_kl", reverse), ("cross_entropy", entropy))
    }
    for name, value in means.items():
        assert told[name].item() == pytest.approx(value, rel=1e-4)
        assert not told[name].requires_grad
    expected = 0.5 * means["forward_kl"] + 2 * means["reverse_kl"] + 0.25 * means["cross_entropy"]
    assert told["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_fine_tuning_needs_no_teacher_and_reports_what_it_minimises(teacher: CausalLM) -> None:
    told = make_objective(stage("sft", loss=LossWeights(cross_entropy=1.0)), make(teacher), None)(batch())
    assert set(told) == {"loss", "cross_entropy"}
    assert told["loss"] == told["cross_entropy"]


STAGES: dict[str, Stage] = {
    "matrix-orientation": stage("matrix-orientation", trainable="mixers"),
    "matrix-orientation, recomputed": stage("matrix-orientation", trainable="mixers", activation_checkpointing=True),
    "hidden-alignment": stage("hidden-alignment", trainable="mixers"),
    "distillation": stage("distillation", loss=KL_AND_LABELS),
    "sft": stage("sft", loss=LossWeights(cross_entropy=1.0)),
}


@pytest.mark.parametrize("is_half", [False, True], ids=["float32", "bfloat16 autocast"])
@pytest.mark.parametrize("build", [make, hybrid])
@pytest.mark.parametrize("name", STAGES)
def test_every_stage_lowers_its_loss_and_leaves_the_teacher_alone(
    name: str, build: Callable[[CausalLM], Any], is_half: bool, teacher: CausalLM
) -> None:
    student = build(teacher)
    set_trainable(student, STAGES[name].trainable)
    objective = make_objective(STAGES[name], student, teacher)
    assert {id(each) for each in objective.parameters()} == {id(each) for each in student.parameters()}
    kept = {key: value.clone() for key, value in teacher.state_dict().items()}
    trained = [each for each in student.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    seen = []
    for _ in range(8):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            told = objective(batch())
        optimizer.zero_grad()
        told["loss"].backward()
        optimizer.step()
        assert told["loss"].dtype == torch.float32
        assert all(each.grad is None or each.grad.isfinite().all() for each in trained)
        seen.append(told["loss"].item())
    assert seen[-1] < 0.99 * seen[0]
    assert all(each.grad is None for each in teacher.parameters())
    assert all(torch.equal(value, kept[key]) for key, value in teacher.state_dict().items())


@pytest.mark.parametrize("name", STAGES)
def test_autocast_changes_a_loss_by_little(name: str, teacher: CausalLM) -> None:
    objective = make_objective(STAGES[name], make(teacher), teacher)
    with torch.no_grad():
        exact = objective(batch())["loss"]
        with torch.autocast("cpu", torch.bfloat16):
            rounded = objective(batch())["loss"]
    assert rounded.item() == pytest.approx(exact.item(), rel=0.03)
    assert rounded != exact


def test_a_teacher_in_half_precision_teaches_a_student_in_float32(teacher: CausalLM, tmp_path: Path) -> None:
    half = load_model(tiny.save(reference(), tmp_path / "teacher"), torch.bfloat16)
    for name in ("matrix-orientation", "hidden-alignment", "distillation"):
        student = make(teacher)
        told = make_objective(STAGES[name], student, half)(batch())["loss"]
        expected = make_objective(STAGES[name], student, teacher)(batch())["loss"]
        assert told.item() == pytest.approx(expected.item(), rel=0.05)


def test_a_wrapped_student_speaks_for_itself_or_is_refused(teacher: CausalLM) -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, token_ids: Tensor) -> Tensor:
            logits: Tensor = self.module(token_ids)
            return logits

    student = make(teacher)
    plain, wrapped = (
        make_objective(STAGES["distillation"], each, teacher)(batch()) for each in (student, Wrapper(student))
    )
    assert plain["loss"] == wrapped["loss"]
    with pytest.raises(TypeError, match="wrap the objective"):
        make_objective(STAGES["hidden-alignment"], Wrapper(student), teacher)


@pytest.mark.parametrize("name", ["matrix-orientation", "hidden-alignment", "distillation"])
def test_a_stage_that_needs_a_teacher_says_so(name: str, teacher: CausalLM) -> None:
    with pytest.raises(UserError, match=f"{name} stage with this loss needs a teacher"):
        make_objective(STAGES[name], make(teacher), None)


def test_a_score_head_is_not_trained_here(teacher: CausalLM) -> None:
    with pytest.raises(UserError, match="orm trains a score head"):
        make_objective(stage("orm"), make(teacher), teacher)


def test_mixers_alone_are_trained_where_that_is_wanted(teacher: CausalLM) -> None:
    student = hybrid(teacher)
    set_trainable(student, "mixers")
    trained = {name for name, each in student.named_parameters() if each.requires_grad}
    assert trained == {name for name, _ in student.named_parameters() if name.startswith("blocks.1.mixer.")}
    set_trainable(student, "all")
    assert all(each.requires_grad for each in student.parameters())
    assert isinstance(student.mixers[0], Attention)
    with pytest.raises(UserError, match="no state-space mixer"):
        set_trainable(teacher, "mixers")
    teacher.requires_grad_(True)
