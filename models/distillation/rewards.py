"""Reward models: a Llama trunk with a score head, and how they are trained.

Two kinds, both in the formats of Hugging Face transformers:

- ORM (outcome): LlamaForSequenceClassification with one label. One score for a whole text, read at its last token; its
  sigmoid is the probability that the answer is correct. It may learn to say so at every token (arXiv 2110.14168).
- PRM (process): LlamaForTokenClassification with two labels, 0 bad and 1 good. One score for each step, read at the
  step's last token: softmax P(good).

`reward_data` makes the texts and labels.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from harness.errors import UserError, choices
from harness.models.architectures import llama
from harness.models.architectures.causal_lm import CausalLM
from harness.models.architectures.initial import allocate, randomise
from harness.models.architectures.layout import Layout, Place
from harness.models.checkpoints import Checkpoint
from harness.models.native import load_model
from harness.models.weights import fill, open_weights

from .saving import save_checkpoint

if TYPE_CHECKING:
    from .recipes import Stage
    from .reward_data import RewardBatch

RewardKind = Literal["orm", "prm"]

KINDS: dict[str, RewardKind] = {"LlamaForSequenceClassification": "orm", "LlamaForTokenClassification": "prm"}
"""The kind of reward model by the `architectures` of its config.json."""

LABELS: dict[RewardKind, tuple[str, ...]] = {"orm": ("correct",), "prm": ("bad", "good")}
GOOD = 1
"""The PRM's label of a good step."""

Objective = Callable[["RewardBatch"], dict[str, Tensor]]


class RewardTrunk(nn.Module):
    """A causal language model that scores instead of predicting; its own head is tied to the embedding and unused."""

    def __init__(self, kind: RewardKind, trunk: CausalLM, score: nn.Linear) -> None:
        super().__init__()
        self.kind: RewardKind = kind
        self.trunk, self.score = trunk, score

    def forward(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """Logits of the scores at every token: ORM (b, L), PRM (b, L, 2). Those of the padding mean nothing.

        Args:
            token_ids: (b, L), padded on the right; what stands in the padding does not matter.
            lengths: (b,) true lengths of at least 1.
        """
        logits: Tensor = self.score(self.trunk.norm(self.trunk.read(token_ids, lengths)[0]))
        return logits.squeeze(-1) if self.kind == "orm" else logits


def probabilities(kind: RewardKind, logits: Tensor) -> Tensor:
    """Scores in 0..1, float32 (b, L), from `RewardTrunk.forward`: P(correct) of an ORM, P(good) of a PRM."""
    return logits.float().sigmoid() if kind == "orm" else logits.float().softmax(-1)[..., GOOD]


def build(
    kind: RewardKind, config: Mapping[str, Any], keys: Collection[str] | None = None
) -> tuple[RewardTrunk, Layout]:
    """The reward model of a Llama's config.json, uninitialised, and where the keys of its weight files belong.

    Args:
        kind: "orm" or "prm".
        config: the parsed config.json, the reward model's own or that of the Llama it starts from.
        keys: what the weight files hold; None for the published form.

    Raises KeyError for a missing field and UserError for one that this engine does not know how to honour.
    """
    if config.get("model_type") != "llama" or "mamba_config" in config:
        raise UserError(f"a reward model's trunk is a llama, got '{config.get('model_type')}'; name a Llama checkpoint")
    trunk, trunk_layout = llama.build({**config, "tie_word_embeddings": True}, keys)
    layout = {key: place and Place(f"trunk.{place.parameter}", place.start) for key, place in trunk_layout.items()}
    biased = kind == "prm" and (keys is None or "score.bias" in keys)
    score = nn.Linear(config["hidden_size"], len(LABELS[kind]), bias=biased)
    layout |= {f"score.{name}": Place(f"score.{name}") for name, _ in score.named_parameters()}
    return RewardTrunk(kind, trunk, score), layout


@torch.no_grad()
def from_teacher(
    kind: RewardKind, teacher: CausalLM, config: Mapping[str, Any], seed: int
) -> tuple[RewardTrunk, Layout]:
    """A float32 reward model with the trunk of a Llama and a small random score head, on the teacher's device.

    Layers that `config` has beyond the teacher's begin by changing nothing: what they write is 0. To see that a token
    is not the one that was foreseen takes layers after the one that foresees. Of a teacher with more layers the first
    are taken. The teacher's weights stay as they are.

    Raises UserError when it is no Llama.
    """
    with torch.device("meta"):
        model, layout = build(kind, config)
    allocate(model, torch.float32, teacher.embedding.weight.device)
    randomise(model.trunk, seed)
    known = dict(teacher.named_parameters())
    for name, parameter in model.trunk.named_parameters():
        if name in known:
            parameter.copy_(known[name])
        elif name.endswith(("out_proj.weight", "down_proj.weight")):
            parameter.zero_()
    generator = torch.Generator().manual_seed(seed)
    model.score.weight.copy_(torch.randn(model.score.weight.shape, generator=generator) * 0.02)
    if model.score.bias is not None:
        model.score.bias.zero_()
    return model, layout


def load_trunk(checkpoint: Checkpoint) -> CausalLM:
    """The float32 Llama that a new reward model starts from: a Llama, or another reward model without its head.

    Raises UserError when it is neither, or its files are damaged or incomplete.
    """
    named = checkpoint.config.get("architectures") or [""]
    if named[0] not in KINDS:
        return load_model(checkpoint.name)
    files = open_weights(checkpoint)
    with torch.device("meta"):
        model, layout = build(KINDS[named[0]], checkpoint.config, files.shapes.keys())
    allocate(model, torch.float32, torch.device("cpu"))
    fill(model, files, layout)
    return model.trunk


def reward_config(kind: RewardKind, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a reward model that was made from a Llama with this config.json."""
    architecture = next(name for name, one in KINDS.items() if one == kind)
    made = {key: value for key, value in config.items() if key not in ("mamba_config", "num_labels")}
    return made | {
        "architectures": [architecture],
        "id2label": {str(number): label for number, label in enumerate(LABELS[kind])},
        "label2id": {label: number for number, label in enumerate(LABELS[kind])},
        "classifier_dropout": 0.0,
        "tie_word_embeddings": True,
    }


def save(
    folder: Path, model: RewardTrunk, layout: Layout, config: Mapping[str, Any], tokenizer: Any, dtype: torch.dtype
) -> None:
    """Write a checkpoint that `load` and transformers read: config.json, model.safetensors and the tokenizer's files.

    `config` is the trunk's config.json; the weights are stored in `dtype`. A folder that is there is replaced.
    """
    written = reward_config(model.kind, config) | {"dtype": str(dtype).removeprefix("torch.")}
    save_checkpoint(folder, model, layout, written, tokenizer=tokenizer, dtype=dtype)


def reward_loss(kind: RewardKind, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, float32, over the labelled tokens of a batch, of which there must be one.

    Binary of an ORM's logits (b, L), and over two classes of a PRM's (b, L, 2), against soft labels (b, L): the
    probability of "correct" or "good". A negative label marks a token without one.
    """
    labelled = labels >= 0
    good = labels[labelled].float()
    if kind == "orm":
        return binary_cross_entropy_with_logits(logits[labelled].float(), good)
    return cross_entropy(logits[labelled].float(), torch.stack((1 - good, good), dim=-1))


def make_reward_objective(stage: "Stage", model: nn.Module) -> Objective:
    """The loss of a training stage of kind "orm" or "prm".

    Args:
        stage: only its `kind` is read.
        model: a `RewardTrunk` of that kind, or a wrapper with the same forward.

    Returns:
        A function of a `RewardBatch` that gives `loss`, differentiable, and for the log `accuracy`: the share of scores
        on the same side of 1/2 as their labels, of those labels that are not 1/2.

    Raises UserError for a stage of another kind.
    """
    if stage.kind not in LABELS:
        raise UserError(f"a reward model is trained by stages of kind {choices(list(LABELS))}, got '{stage.kind}'")
    kind: RewardKind = "orm" if stage.kind == "orm" else "prm"

    def objective(batch: "RewardBatch") -> dict[str, Tensor]:
        logits = model(batch.token_ids, batch.lengths)
        loss = reward_loss(kind, logits, batch.labels)
        return {"loss": loss, "accuracy": accuracy(probabilities(kind, logits.detach()), batch.labels)}

    return objective


def accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    """Share of scores on the side of 1/2 that their label is on; labels that are negative or 1/2 have no side."""
    sided = (labels >= 0) & (labels != 0.5)
    right = (scores > 0.5) == (labels > 0.5)
    return (right & sided).sum() / sided.sum().clamp(min=1)
