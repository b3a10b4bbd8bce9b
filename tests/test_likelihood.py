"""A reward model's first lesson: the probability that a language model gave each token, against transformers' own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_rewards import rows, stage, write_steps
from tiny import TEMPLATE, llama, make_tokenizer, save
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForCausalLM

from harness.errors import UserError
from harness.models.distillation import reward_data, rewards
from harness.models.distillation.likelihood import make_likelihood_objective, token_probabilities
from harness.models.native import load_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    return save(llama(), tmp_path_factory.mktemp("teacher"), chat_template=TEMPLATE)


def batch_of(labelled: range) -> reward_data.RewardBatch:
    token_ids, lengths = rows()
    labels = torch.full(token_ids.shape, reward_data.IGNORED)
    labels[1, list(labelled)] = 1.0
    return reward_data.RewardBatch(token_ids, lengths, labels)


def their_probabilities(checkpoint: str, token_ids: torch.Tensor) -> torch.Tensor:
    """P(token | those before it) of one row, from its second token on, from transformers."""
    with torch.no_grad():
        foreseen = AutoModelForCausalLM.from_pretrained(checkpoint).float()(token_ids[None]).logits[0].softmax(-1)
    return torch.tensor([foreseen[place, token].item() for place, token in enumerate(token_ids[1:].tolist())])


def test_the_probabilities_are_those_that_transformers_gives(checkpoint: str) -> None:
    batch = batch_of(range(4, 9))
    found = token_probabilities(load_model(checkpoint), batch)
    for row, length in enumerate(batch.lengths.tolist()):
        assert found[row, 0] == 0
        theirs = their_probabilities(checkpoint, batch.token_ids[row, :length])
        torch.testing.assert_close(found[row, 1:length], theirs, rtol=1e-4, atol=1e-7)


def test_the_loss_is_the_cross_entropy_against_them_where_there_is_a_label(checkpoint: str) -> None:
    teacher, batch = load_model(checkpoint), batch_of(range(4, 9))
    model, _ = rewards.from_teacher("orm", teacher, llama().config.to_dict(), seed=1)
    objective = make_likelihood_objective("orm", model, teacher)
    parts = objective(batch)
    with torch.no_grad():
        scores = model(batch.token_ids, batch.lengths)[1, 4:9]
    theirs = their_probabilities(checkpoint, batch.token_ids[1, :9])[3:8]
    torch.testing.assert_close(parts["loss"], binary_cross_entropy_with_logits(scores, theirs))
    parts["loss"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert model.score.weight.grad is not None


def test_every_token_of_a_reply_is_learnt_whatever_its_steps_are_labelled(tmp_path: Path) -> None:
    tokenizer: Any = make_tokenizer(TEMPLATE)
    row = {"prompt": "<start>[user]p", "steps": ["one\n\n", "two\n", "end"], "labels": [0.75, 0.5, 0.0]}
    path = write_steps(tmp_path / "steps.jsonl", [row])
    batch = reward_data.reward_batches(stage("likelihood", f"file:{path}", rows=1), tokenizer, seed=0).batch(0)
    labelled = [place for place, label in enumerate(batch.labels[0].tolist()) if label >= 0]
    first = 1 + len("[user]p")  # one token for <start>, then one per byte
    assert labelled == list(range(first, first + len("one\n\ntwo\nend")))


def test_other_data_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.source of a stage of kind likelihood is one of .*, got .task:x."):
        reward_data.reward_batches(stage("likelihood", "task:x"), make_tokenizer(), seed=0)
