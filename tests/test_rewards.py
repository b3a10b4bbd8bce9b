"""Reward models: the published formats, scores, losses, what they read and learn from."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from report_runs import spec_of
from tiny import TEMPLATE, VOCAB, llama, make_tokenizer, save
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForSequenceClassification, LlamaForTokenClassification

from harness.errors import UserError
from harness.models.architectures.initial import allocate
from harness.models.checkpoints import find_checkpoint
from harness.models.distillation import reward_data, rewards
from harness.models.distillation.recipes import Data, Stage
from harness.models.distillation.rewards import RewardKind, RewardTrunk
from harness.models.reward_models.reading import TrainedRewardModel
from harness.models.reward_models.reward import reward
from harness.models.tokenizers_ import load_tokenizer
from harness.models.weights import fill, open_weights
from harness.nouns import Completion, Message
from harness.storage.runs import make_run

CLASSES: dict[RewardKind, tuple[Any, int]] = {
    "orm": (LlamaForSequenceClassification, 1),
    "prm": (LlamaForTokenClassification, 2),
}
KINDS: list[RewardKind] = ["orm", "prm"]
CHAT = (Message("user", "2 + 2 + 3?"),)
REPLY = "First 2 + 2 = 4.\n\nThen 4 + 3 = 7.\nThe answer is 7."


def theirs(kind: RewardKind, **changes: Any) -> Any:
    """A tiny random reward model of transformers' own class."""
    model_class, labels = CLASSES[kind]
    settings = llama().config.to_dict() | {"num_labels": labels, "pad_token_id": 0} | changes
    torch.manual_seed(1)
    model = model_class(LlamaConfig(**{k: v for k, v in settings.items() if k not in ("id2label", "label2id")}))
    if model.config.num_labels == labels:
        model.config.id2label = dict(enumerate(rewards.LABELS[kind]))
    if kind == "prm" and model.score.bias is not None:
        torch.nn.init.normal_(model.score.bias)
    return model.eval()


def stored(kind: RewardKind, folder: Path, **changes: Any) -> str:
    """The same on disk, with a tokenizer that has a chat template."""
    return save(theirs(kind, **changes), folder, chat_template=TEMPLATE)


def loaded(kind: RewardKind, name: str) -> RewardTrunk:
    """A trunk with the weights of a checkpoint."""
    checkpoint = find_checkpoint(name)
    files = open_weights(checkpoint)
    with torch.device("meta"):
        model, layout = rewards.build(kind, checkpoint.config, files.shapes.keys())
    allocate(model, torch.float32, torch.device("cpu"))
    fill(model, files, layout)
    return model.eval()


def read_out(kind: RewardKind, logits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What counts of the logits of a batch: an ORM's at the last tokens, a PRM's at all real ones."""
    if kind == "orm":
        return logits[torch.arange(len(lengths)), lengths - 1]
    return logits[torch.arange(logits.shape[1]) < lengths[:, None]]


def scorer(name: str, **options: Any) -> TrainedRewardModel:
    made = reward(name, dtype="float32", device="cpu", **options)
    assert isinstance(made, TrainedRewardModel)
    return made


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded token ids without the padding token in the texts."""
    lengths = torch.tensor([5, 17, 1, 9])
    token_ids = torch.randint(3, VOCAB, (4, 17), generator=torch.Generator().manual_seed(3))
    return token_ids.where(torch.arange(17) < lengths[:, None], 0), lengths


def stage(kind: Any, source: str = "", **changes: Any) -> Stage:
    settings = {"tokens": 64, "rows": 4, "context": 96, "learning_rate": 1e-3} | changes
    return Stage(kind=kind, data=Data(source=source), **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True}])
def test_logits_equal_transformers(kind: RewardKind, changes: dict[str, Any], tmp_path: Path) -> None:
    token_ids, lengths = rows()
    with torch.no_grad():
        ours = read_out(kind, loaded(kind, stored(kind, tmp_path, **changes))(token_ids, lengths), lengths)
        mask = (torch.arange(17) < lengths[:, None]).long()
        expected = theirs(kind, **changes)(token_ids, attention_mask=mask).logits
    expected = expected.squeeze(-1) if kind == "orm" else expected[mask.bool()]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_a_token_classifier_without_bias_is_read(tmp_path: Path) -> None:
    name = stored("prm", tmp_path, token_classification_bias=False)
    token_ids, lengths = rows()
    with torch.no_grad():
        ours = loaded("prm", name)(token_ids[1:2], lengths[1:2])
        expected = theirs("prm", token_classification_bias=False)(token_ids[1:2]).logits
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_scores_as_its_rows_alone(kind: RewardKind, tmp_path: Path) -> None:
    model = loaded(kind, stored(kind, tmp_path))
    token_ids, lengths = rows()
    with torch.no_grad():
        together = model(token_ids, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = model(token_ids[row : row + 1, :length], lengths[row : row + 1])[0]
            torch.testing.assert_close(together[row, :length], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_read_by_transformers_and_by_us(kind: RewardKind, tmp_path: Path) -> None:
    teacher_folder = save(llama(), tmp_path / "teacher", chat_template=TEMPLATE)
    config = find_checkpoint(teacher_folder).config
    from harness.models.native import load_model

    model, layout = rewards.from_teacher(kind, load_model(teacher_folder), config, seed=5)
    rewards.save(tmp_path / "made", model, layout, config, make_tokenizer(TEMPLATE), torch.float32)
    token_ids, lengths = rows()
    mask = (torch.arange(17) < lengths[:, None]).long()
    model_class, labels = CLASSES[kind]
    read, report = model_class.from_pretrained(tmp_path / "made", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert read.config.num_labels == labels
    with torch.no_grad():
        expected = read.eval()(token_ids, attention_mask=mask).logits
        expected = expected.squeeze(-1) if kind == "orm" else expected[mask == 1]
        for ours in (model, loaded(kind, str(tmp_path / "made"))):
            logits = read_out(kind, ours(token_ids, lengths), lengths)
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def test_a_trunk_starts_as_its_teacher_and_leaves_it_alone(tmp_path: Path) -> None:
    from harness.models.native import load_model

    name = save(llama(tie_word_embeddings=False), tmp_path)
    teacher, config = load_model(name), find_checkpoint(name).config
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    model, layout = rewards.from_teacher("orm", teacher, config, seed=5)
    again, _ = rewards.from_teacher("orm", teacher, config, seed=5)
    other, _ = rewards.from_teacher("orm", teacher, config, seed=6)
    token_ids, lengths = rows()
    torch.testing.assert_close(model.trunk.read(token_ids, lengths)[0], teacher.read(token_ids, lengths)[0])
    assert torch.equal(model.score.weight, again.score.weight)
    assert not torch.equal(model.score.weight, other.score.weight)
    assert "lm_head.weight" not in layout
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def test_a_reward_model_starts_from_another_without_its_head(tmp_path: Path) -> None:
    checkpoint = find_checkpoint(stored("prm", tmp_path))
    trunk = rewards.load_trunk(checkpoint)
    model, _ = rewards.from_teacher("orm", trunk, checkpoint.config, seed=5)
    token_ids, lengths = rows()
    mask = (torch.arange(17) < lengths[:, None]).long()
    with torch.no_grad():
        expected = theirs("prm").model(token_ids, attention_mask=mask).last_hidden_state
        ours = model.trunk.norm(model.trunk.read(token_ids, lengths)[0])
    torch.testing.assert_close(ours[mask.bool()], expected[mask.bool()], rtol=0, atol=1e-4)


def test_more_layers_begin_by_changing_nothing(tmp_path: Path) -> None:
    from harness.models.native import load_model

    name = save(llama(), tmp_path)
    teacher, config = load_model(name), dict(find_checkpoint(name).config)
    model, _ = rewards.from_teacher("prm", teacher, config | {"num_hidden_layers": 4}, seed=5)
    token_ids, lengths = rows()
    assert len(model.trunk.blocks) == 4
    torch.testing.assert_close(model.trunk.read(token_ids, lengths)[0], teacher.read(token_ids, lengths)[0])
    for part in ("mixer.in_proj", "mlp.gate_up_proj"):
        assert model.trunk.get_parameter(f"blocks.3.{part}.weight").std() > 0.01


def test_fewer_layers_are_the_teachers_first(tmp_path: Path) -> None:
    from harness.models.native import load_model

    shorter = llama()
    name = save(shorter, tmp_path)
    shorter.model.layers = shorter.model.layers[:1]
    teacher, config = load_model(name), dict(find_checkpoint(name).config)
    model, _ = rewards.from_teacher("orm", teacher, config | {"num_hidden_layers": 1}, seed=5)
    token_ids, lengths = rows()
    mask = torch.arange(token_ids.shape[1]) < lengths[:, None]
    with torch.inference_mode():
        expected = shorter.model(token_ids, attention_mask=mask).last_hidden_state
        ours = model.trunk.norm(model.trunk.read(token_ids, lengths)[0])
    torch.testing.assert_close(ours[mask], expected[mask], rtol=0, atol=1e-4)


def test_losses_are_the_cross_entropies_by_hand() -> None:
    logits = torch.tensor([[0.3, 5.0, -1.2], [2.0, -7.0, 0.5]])
    labels = torch.tensor([[1.0, reward_data.IGNORED, 0.0], [0.0, reward_data.IGNORED, 0.25]])
    by_hand = []
    for x, y in zip(logits.flatten().tolist(), labels.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        if y >= 0:
            by_hand.append(-y * math.log(p) - (1 - y) * math.log(1 - p))
    assert rewards.reward_loss("orm", logits, labels).item() == pytest.approx(sum(by_hand) / 4, rel=1e-6)

    steps = torch.tensor([[[0.1, 0.7], [9.0, 9.0], [-0.4, 0.2]], [[1.5, -0.5], [3.0, 1.0], [7.0, 7.0]]])
    soft = torch.tensor([[0.25, reward_data.IGNORED, 1.0], [0.0, 0.5, reward_data.IGNORED]])
    terms = []
    for (bad, good), label in zip(steps.view(-1, 2).tolist(), soft.flatten().tolist(), strict=True):
        if label >= 0:
            total = math.exp(bad) + math.exp(good)
            terms.append(-(1 - label) * math.log(math.exp(bad) / total) - label * math.log(math.exp(good) / total))
    assert rewards.reward_loss("prm", steps, soft).item() == pytest.approx(sum(terms) / len(terms), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind: RewardKind) -> None:
    objective, model, batch = toy(kind)
    objective(batch)["loss"].backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        direction = torch.randn(parameter.shape, generator=generator)
        direction /= direction.norm()
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * 1e-2)
                values.append(objective(batch)["loss"].item())
                parameter.sub_(direction, alpha=sign * 1e-2)
        slope = (values[0] - values[1]) / 2e-2
        assert (parameter.grad * direction).sum().item() == pytest.approx(slope, abs=2e-3, rel=2e-2), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_toy_is_learnt_by_heart(kind: RewardKind) -> None:
    objective, model, batch = toy(kind)
    first = objective(batch)["loss"].item()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(60):
        optimiser.zero_grad()
        objective(batch)["loss"].backward()
        optimiser.step()
    parts = objective(batch)
    soft = batch.labels[batch.labels >= 0].double()
    least = -(torch.xlogy(soft, soft) + torch.xlogy(1 - soft, 1 - soft)).mean().item()
    assert first > least + 0.2
    assert parts["loss"].item() < least + 0.05
    assert parts["accuracy"].item() == 1.0


def toy(kind: RewardKind) -> tuple[rewards.Objective, RewardTrunk, reward_data.RewardBatch]:
    """A tiny model with labels that have nothing to do with the texts."""
    with torch.device("meta"):
        model, _ = rewards.build(kind, llama().config.to_dict())
    from harness.models.architectures.initial import randomise

    allocate(model, torch.float32, torch.device("cpu"))
    randomise(model, std=0.2)
    token_ids, lengths = rows()
    labels = torch.full(token_ids.shape, reward_data.IGNORED)
    if kind == "orm":
        labels[0, 4], labels[1, 16], labels[2, 0], labels[3, 8] = 1.0, 0.0, 0.0, 1.0
    else:
        labels[0, 4], labels[1, 3], labels[1, 16], labels[2, 0], labels[3, 8] = 1.0, 0.75, 0.0, 0.125, 0.5
    return rewards.make_reward_objective(stage(kind), model), model, reward_data.RewardBatch(token_ids, lengths, labels)


def test_an_objective_is_of_a_reward_stage() -> None:
    with pytest.raises(UserError, match=r"kind orm, prm, got 'sft'"):
        rewards.make_reward_objective(stage("sft"), torch.nn.Linear(1, 1))


def test_steps_are_lines_that_are_not_blank() -> None:
    assert reward_data.split_steps("a\nb") == ["a\n", "b"]
    assert reward_data.split_steps("\n a\n\n \nb\n") == ["\n a\n\n \n", "b\n"]
    assert reward_data.split_steps("one line\r\nand\u2028no other") == ["one line\r\n", "and\u2028no other"]
    assert reward_data.split_steps(" \n\n") == []
    assert reward_data.split_steps("") == []


@given(st.text(st.sampled_from("ab \n\t.7"), max_size=40))
def test_steps_join_to_the_text_and_each_has_one_line(completion: str) -> None:
    steps = reward_data.split_steps(completion)
    lines = [line for line in completion.split("\n") if line.strip()]
    assert [step.strip() for step in steps] == [line.strip() for line in lines]
    if lines:
        assert "".join(steps) == completion


TEXTS = [REPLY, "eins ünd — 数\n🙂\n\n\n ok ", "7", "\n\n x\ny\n", "Step 1: 4 * 12 = 48.\nThe answer is \\boxed{48}."]


@pytest.mark.parametrize("tokenizer", [make_tokenizer(TEMPLATE), load_tokenizer(find_checkpoint("zoo/teacher"))])
def test_a_step_is_scored_at_its_last_character(tokenizer: Any) -> None:
    asked = len(tokenizer.apply_chat_template([CHAT[0]._asdict()], add_generation_prompt=True)["input_ids"])
    for completion, (token_ids, places) in zip(
        TEXTS, reward_data.read_texts("prm", tokenizer, CHAT, TEXTS), strict=True
    ):
        steps = reward_data.split_steps(completion)
        assert tokenizer.decode(token_ids[asked:]) == completion
        assert len(places) == len(steps)
        for number, place in enumerate(places):
            read = "".join(steps[: number + 1]).rstrip()
            assert tokenizer.decode(token_ids[asked : place + 1]).rstrip() == read
            assert tokenizer.decode(token_ids[asked:place]).rstrip() != read


def test_an_orm_reads_the_reply_as_the_template_closes_it() -> None:
    tokenizer = load_tokenizer(find_checkpoint("zoo/teacher"))
    messages = [CHAT[0]._asdict(), {"role": "assistant", "content": REPLY}]
    whole = tokenizer.apply_chat_template(messages)["input_ids"]
    ((token_ids, places),) = reward_data.read_texts("orm", tokenizer, CHAT, [REPLY])
    assert list(token_ids) == whole
    assert tokenizer.convert_ids_to_tokens(token_ids[places[0]]) == "<|end|>"
    assert places == (len(token_ids) - 1,)
    ((plain, _),) = reward_data.read_texts("orm", make_tokenizer(), "2?", ["4"])
    assert make_tokenizer().decode(plain) == "2?4"


def by_transformers(kind: RewardKind, completion: str) -> list[float]:
    """Scores of one completion, with nothing of ours but the place of a step's end found by search."""
    tokenizer = make_tokenizer(TEMPLATE)
    begun = tokenizer.apply_chat_template([CHAT[0]._asdict()], add_generation_prompt=True)["input_ids"]
    ids = begun + tokenizer(completion, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = theirs(kind)(torch.tensor([ids])).logits
    if kind == "orm":
        return [float(torch.sigmoid(logits[0, 0]))]
    ends, read = [], 0
    for line in completion.split("\n"):
        if line.strip():
            ends.append(len(begun) + read + len(line.encode()) - 1)  # the tokenizer has a token per byte
        read += len(line.encode()) + 1
    return [float(logits[0, end].exp()[1] / logits[0, end].exp().sum()) for end in ends]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_batch_size", [1, 2, 32])
def test_scores_equal_transformers_in_any_batch(kind: RewardKind, max_batch_size: int, tmp_path: Path) -> None:
    model = scorer(stored(kind, tmp_path), max_batch_size=max_batch_size)
    completions = [REPLY, "7.", "No.\nYes: é 7", REPLY + "!"]
    scores = model.score(CHAT, completions)
    for completion, found in zip(completions, scores, strict=True):
        assert found == pytest.approx(by_transformers(kind, completion), abs=1e-4)
        assert all(0 <= one <= 1 for one in found)
    assert [len(found) for found in scores] == ([1, 1, 1, 1] if kind == "orm" else [3, 1, 2, 3])
    assert model.score(CHAT, []) == []
    assert model.facts["format"] == kind


def test_a_step_scores_alike_whatever_follows(tmp_path: Path) -> None:
    model = scorer(stored("prm", tmp_path))
    steps = reward_data.split_steps(REPLY)
    (whole,) = model.score(CHAT, [REPLY])
    for number in (1, 2):
        (begun,) = model.score(CHAT, ["".join(steps[:number])])
        assert begun == pytest.approx(whole[:number], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_beyond_the_context_is_neither_cut_nor_hidden(kind: RewardKind, tmp_path: Path) -> None:
    model = scorer(stored(kind, tmp_path))
    scores = model.score(CHAT, ["7" * 200, "7", "  \n"])
    assert scores[0] == []
    assert scores[1] == pytest.approx(by_transformers(kind, "7"), abs=1e-4)
    assert scores[2] == ([] if kind == "prm" else pytest.approx(by_transformers("orm", "  \n"), abs=1e-4))
    assert model.facts["too_long"] == model.too_long == 1
    assert model.facts["blank"] == (kind == "prm")


@pytest.mark.parametrize("kind", KINDS)
def test_flops_are_those_that_torch_counts(kind: RewardKind, tmp_path: Path) -> None:
    model = scorer(stored(kind, tmp_path))
    ids, places = reward_data.read_texts(kind, model.tokenizer, CHAT, [REPLY])[0]
    layers, width, inner, kv, labels = 2, 32, 48, 16, {"orm": 1, "prm": 2}[kind]
    head = 2 * width * labels * len(places)

    def counted(completions: list[str]) -> tuple[float, float]:
        """What the model says of a call, and torch's count of its products with weights."""
        before = model.flops
        with FlopCounterMode(display=False) as counter:
            model.score(CHAT, completions)
        by_name = counter.get_flop_counts()["Global"].items()
        return model.flops - before, sum(flops for name, flops in by_name if str(name) in ("aten.mm", "aten.addmm"))

    def by_hand(first: int, end: int) -> tuple[float, float]:
        """Of reading tokens first..end: all, and of it the products with weights."""
        products = 2 * layers * (width * (2 * width + 2 * kv) + 3 * width * inner) * (end - first)
        # Attention's two products take 2 FLOPs per channel and pair of a token and one that is not after it.
        return products + layers * 4 * width * sum(range(first + 1, end + 1)), products

    whole, products = by_hand(0, len(ids))
    assert counted([REPLY]) == (whole + head, products + head)
    again = scorer(stored(kind, tmp_path / "again"))
    asked = len(model.tokenizer.apply_chat_template([CHAT[0]._asdict()], add_generation_prompt=True)["input_ids"])
    shared, own = by_hand(0, asked), by_hand(asked, len(ids))
    model = again
    assert counted([REPLY, REPLY]) == (shared[0] + 2 * (own[0] + head), shared[1] + 2 * (own[1] + head))
    # The prompt is known by now.
    assert counted([REPLY]) == (own[0] + head, own[1] + head)


def test_what_is_no_reward_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'zoo/teacher' is no reward model: .* names LlamaForCausalLM \(llama\)"):
        reward("zoo/teacher", device="cpu")
    name = save(theirs("orm", num_labels=5), tmp_path / "five")
    with pytest.raises(UserError, match="has 5 labels and a reward model of this form has 1"):
        reward(name, device="cpu")
    with pytest.raises(UserError, match="there is no dtype 'int8'"):
        reward(name, dtype="int8", device="cpu")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="trunk is a llama, got 'gpt2'"):
        rewards.build("orm", {"model_type": "gpt2"})
    broken = Path(stored("prm", tmp_path / "broken"))
    config = json.loads((broken / "config.json").read_text())
    del config["hidden_size"]
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"is not that of a llama \(KeyError: 'hidden_size'\); download it again"):
        reward(str(broken), device="cpu")


def completion(problem_id: str, sample_index: int, text: str, finish_reason: Any = "stop") -> Completion:
    return Completion(
        problem_id, sample_index, text, finish_reason, 1, 1, seed=0, submitted_s=0.0, started_s=0.0, first_token_s=0.0,
        finished_s=1.0, batch_size=1.0,
    )  # fmt: skip


def make_graded_run(folder: Path) -> Path:
    run = make_run(
        folder,
        spec_of("m", 2, 7),
        [{"problem_id": one, "prompt": f"<start>[user]{one}", "gold": "7", "meta": {}} for one in "pq"],
    )
    graded = [
        (completion("q", 0, "It is 7."), "correct"),
        (completion("p", 0, "It is 8."), "wrong"),
        (completion("p", 1, "It is 7."), "correct"),
        (completion("p", 2, "It is, it is, it is", "length"), "no_answer"),
        (completion("p", 3, "It is", "deadline"), "no_answer"),
        (completion("p", 4, "", "error"), "no_answer"),
        (completion("p", 5, "7**7**7"), "timeout"),
        (completion("p", 6, "not graded"), None),
    ]
    run.add_completions([one for one, _ in graded])
    run.add_verdicts(
        [
            {"problem_id": one.problem_id, "sample_index": one.sample_index, "answer": None, "answer_class": None,
             "verdict": verdict, "reason": "", "ms": 0.0}
            for one, verdict in graded if verdict
        ]
    )  # fmt: skip
    return folder


def test_an_orm_learns_from_the_verdicts_of_a_run(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(TEMPLATE)
    examples = list(reward_data.run_examples("orm", make_graded_run(tmp_path / "run"), tokenizer))
    assert [(tokenizer.decode(one.token_ids), one.labels) for one in examples] == [
        ("<start>[user]pIt is 8.", (0.0,)),
        ("<start>[user]pIt is 7.", (1.0,)),
        ("<start>[user]pIt is, it is, it is", (0.0,)),
        ("<start>[user]qIt is 7.", (1.0,)),
    ]
    batches = reward_data.reward_batches(stage("orm", f"run:{tmp_path / 'run'}", context=22), tokenizer, seed=0)
    assert (len(batches.examples), batches.too_long) == (3, 1)
    batch = batches.batch(0)
    assert batch.token_ids.shape == (4, max(batch.lengths.tolist()))
    ends = torch.nn.functional.one_hot(batch.lengths - 1, batch.token_ids.shape[1]).bool()
    assert torch.equal(batch.labels >= 0, ends)
    with pytest.raises(UserError, match="has 4 labelled texts and none fits a context of 3 tokens"):
        reward_data.reward_batches(stage("orm", f"run:{tmp_path / 'run'}", context=3), tokenizer, seed=0)


def test_a_verdict_may_be_learnt_at_every_token_and_at_every_step(tmp_path: Path) -> None:
    tokenizer, source = make_tokenizer(TEMPLATE), f"run:{make_graded_run(tmp_path / 'run')}"
    begun = 1 + len("[user]p")  # one token for <start>, then one per byte
    data = Data(source=source, loss_on="completion")
    everywhere = reward_data.reward_batches(replace(stage("orm"), data=data), tokenizer, seed=0)
    found = {tokenizer.decode(one.token_ids)[len("<start>[user]") :]: one for one in everywhere.examples}
    assert found["pIt is 8."].places == tuple(range(begun, begun + len("It is 8.")))
    assert set(found["pIt is 8."].labels) == {0.0}
    assert set(found["pIt is 7."].labels) == {1.0}
    steps = reward_data.reward_batches(stage("prm", source), tokenizer, seed=0)
    assert {(one.places, one.labels) for one in steps.examples} == {
        ((begun + len("It is 8.") - 1,), (0.0,)),
        ((begun + len("It is 7.") - 1,), (1.0,)),
        ((begun + len("It is, it is, it is") - 1,), (0.0,)),
    }


def test_sources_are_put_together(tmp_path: Path) -> None:
    run, row = make_graded_run(tmp_path / "run"), {"prompt": "<start>[user]p", "steps": ["so"], "labels": [0.5]}
    steps = write_steps(tmp_path / "steps.jsonl", [row])
    data = Data(source=f"run:{run}", mixed_with=(f"file:{steps}",))
    batches = reward_data.reward_batches(replace(stage("prm"), data=data), make_tokenizer(TEMPLATE), seed=0)
    assert sorted(one.labels for one in batches.examples) == [(0.0,), (0.0,), (0.5,), (1.0,), (1.0,)]


def write_steps(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_prm_learns_from_labelled_steps(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(TEMPLATE)
    row = {"prompt": "<start>[user]p", "steps": ["one\n\n", "two\n", "end"], "labels": [0.75, 0.5, 0.0]}
    path = write_steps(tmp_path / "steps.jsonl", [row])
    batch = reward_data.reward_batches(stage("prm", f"file:{path}", rows=1), tokenizer, seed=0).batch(0)
    text = "<start>[user]pone\n\ntwo\nend"
    assert tokenizer.decode(batch.token_ids[0]) == text
    labelled = {place: label for place, label in enumerate(batch.labels[0].tolist()) if label >= 0}
    first = 1 + len("[user]p")  # one token for <start>, then one per byte
    assert labelled == {first + 2: 0.75, first + 7: 0.5, first + 11: 0.0}


Change = Callable[[dict[str, Any]], object]
WRONG: list[tuple[Change, str]] = [
    (lambda row: row.pop("prompt"), r"line 2 of '.*' is no JSON object with prompt, steps and labels .KeyError"),
    (lambda row: row.update(labels=[0.5]), "wants one label in 0..1 for each step, got 2 steps"),
    (lambda row: row.update(labels=[0.5, 2]), "wants one label in 0..1 for each step"),
    (lambda row: row.update(steps=["a", "b"]), "has steps that are not lines of a text"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG)
def test_a_bad_line_of_steps_is_named(change: Change, sentence: str, tmp_path: Path) -> None:
    good = {"prompt": "p", "steps": ["a\n", "b"], "labels": [1, 0]}
    bad = dict(good)
    change(bad)
    with pytest.raises(UserError, match=sentence):
        list(reward_data.step_examples(write_steps(tmp_path / "steps.jsonl", [good, bad]), make_tokenizer()))


@pytest.mark.parametrize(("kind", "source"), [("orm", "file:x.jsonl"), ("prm", "task:x")])
def test_a_source_of_the_other_kind_is_refused(kind: RewardKind, source: str) -> None:
    with pytest.raises(UserError, match=f"data.source of a stage of kind {kind} is one of .*, got '{source}'"):
        reward_data.reward_batches(stage(kind, source), make_tokenizer(), seed=0)


def test_batches_are_a_function_of_seed_and_step_and_cover_everything() -> None:
    examples = [reward_data.Example((number,), (0,), (0.0,)) for number in range(10)]
    batches = reward_data.RewardBatches(examples, 4, seed=1)
    seen = [batches.batch(step).token_ids.flatten().tolist() for step in range(5)]
    flat = [number for batch in seen for number in batch]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert [batches.batch(step).token_ids.flatten().tolist() for step in (4, 1)] == [seen[4], seen[1]]
    other = reward_data.RewardBatches(examples, 4, seed=2)
    assert [other.batch(step).token_ids.flatten().tolist() for step in range(5)] != seen
