"""Reward models: a Llama trunk with a score head, and how they are trained.

Two kinds, both in the formats of Hugging Face transformers:

- ORM (outcome): LlamaForSequenceClassification with one label. One score for a whole text, read at its last token; its
  sigmoid is the probability that the answer is correct.
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
from harness.models.architectures.initial import allocate
from harness.models.architectures.layout import Layout, Place
from harness.models.checkpoints import Checkpoint
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
        """Logits of the scores.

        Args:
            token_ids: (b, L), padded on the right; what stands in the padding does not matter.
            lengths: (b,) true lengths of at least 1.

        Returns:
            ORM: (b,), at the last token of each row. PRM: (b, L, 2), at every token; those of the padding mean nothing.
        """
        h = self.trunk.read(token_ids, lengths)[0]
        if self.kind == "orm":
            h = h[torch.arange(len(h), device=h.device), lengths - 1]
        logits: Tensor = self.score(self.trunk.norm(h))
        return logits.squeeze(-1) if self.kind == "orm" else logits


def probabilities(kind: RewardKind, logits: Tensor) -> Tensor:
    """Scores in 0..1, float32, from `RewardTrunk.forward`: (b,) P(correct), or (b, L) P(good)."""
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

    `config` is the teacher's config.json; it and the weights stay as they are. Raises UserError when it is no Llama.
    """
    with torch.device("meta"):
        model, layout = build(kind, config)
    allocate(model, torch.float32, teacher.embedding.weight.device)
    for name, parameter in model.trunk.named_parameters():
        parameter.copy_(teacher.get_parameter(name))
    generator = torch.Generator().manual_seed(seed)
    model.score.weight.copy_(torch.randn(model.score.weight.shape, generator=generator) * 0.02)
    if model.score.bias is not None:
        model.score.bias.zero_()
    return model, layout


def kind_of(checkpoint: Checkpoint) -> RewardKind:
    """Which kind of reward model a checkpoint is. Raises UserError when it is none of them."""
    named = checkpoint.config.get("architectures") or ["nothing"]
    kind = KINDS.get(named[0]) if checkpoint.family == "llama" else None
    if kind is None:
        raise UserError(
            f"'{checkpoint.name}' is no reward model: its config.json names {named[0]} ({checkpoint.family}) and a "
            f"reward model is one of {choices(list(KINDS))}"
        )
    labels = checkpoint.config.get("id2label") or LABELS[kind]
    if len(labels) != len(LABELS[kind]):
        raise UserError(
            f"the {named[0]} '{checkpoint.name}' has {len(labels)} labels and a reward model of this form has "
            f"{len(LABELS[kind])}; name another checkpoint"
        )
    return kind


def load(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> RewardTrunk:
    """A reward model in evaluation mode.

    Raises UserError when the checkpoint is no reward model of these forms, or its files are damaged or incomplete.
    """
    kind, files = kind_of(checkpoint), open_weights(checkpoint)
    try:
        with torch.device("meta"):
            model, layout = build(kind, checkpoint.config, files.shapes.keys())
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the config of '{checkpoint.name}' is not that of a llama ({type(error).__name__}: {error}); download it "
            "again"
        ) from error
    allocate(model, dtype, device)
    fill(model, files, layout)
    return model.eval()


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


def orm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy, float32, of logits (b,) against labels (b,), 1 correct and 0 not."""
    return binary_cross_entropy_with_logits(logits.float(), labels.float())


def prm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, float32, over the step ends of a batch.

    `logits` (b, L, 2) against soft labels (b, L), the probability that the step ending there is good; a negative label
    marks a token where no step ends. There must be at least one step.
    """
    ends = labels >= 0
    good = labels[ends].float()
    return cross_entropy(logits[ends].float(), torch.stack((1 - good, good), dim=-1))


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
        loss = orm_loss(logits, batch.labels) if kind == "orm" else prm_loss(logits, batch.labels)
        return {"loss": loss, "accuracy": accuracy(probabilities(kind, logits.detach()), batch.labels)}

    return objective


def accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    """Share of scores on the side of 1/2 that their label is on; labels that are negative or 1/2 have no side."""
    sided = (labels >= 0) & (labels != 0.5)
    right = (scores > 0.5) == (labels > 0.5)
    return (right & sided).sum() / sided.sum().clamp(min=1)
