"""Trained reward models: an ORM or a PRM checkpoint becomes a `harness.nouns.RewardModel`.

`distillation.rewards` has the module and its formats, `distillation.reward_data` says what it reads and where a
completion's steps end.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.models.checkpoints import find_checkpoint
from harness.models.devices import Device, Dtype, check_settings, pick_device
from harness.models.tokenizers_ import load_tokenizer
from harness.nouns import Facts, Prompt, RewardModel

if TYPE_CHECKING:
    from harness.models.distillation.reward_data import ScoredText
    from harness.models.distillation.rewards import RewardTrunk

NEUTRAL = 0.5
"""The one score of a completion that cannot be scored: for probabilities, the value that says nothing."""


def reward(checkpoint: str, *, dtype: Dtype = "auto", device: Device = "auto", max_batch_size: int = 32) -> RewardModel:
    """Load a trained outcome or process reward model, a Llama with a score head.

    Args:
        checkpoint: a hub id, a local folder, or `zoo/NAME`; a LlamaForSequenceClassification with one label (ORM) or a
            LlamaForTokenClassification with two (PRM; label 1 is good).
        dtype: of the weights; `auto` is float32 on a CPU and bfloat16 on a GPU.
        device: `auto` takes the GPU when there is one.
        max_batch_size: texts that are read at once at most.

    Raises UserError when there is no such checkpoint, it is no reward model, its files are damaged or incomplete, or a
    setting has no such value.
    """
    check_settings(dtype, device, max_batch_size)
    import torch

    from harness.models.distillation.rewards import load

    place = torch.device(pick_device(device))
    found = find_checkpoint(checkpoint)
    name = {"cpu": "float32", "cuda": "bfloat16"}[place.type] if dtype == "auto" else dtype
    model = load(found, getattr(torch, name), place)
    tokenizer = load_tokenizer(found)
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of '{checkpoint}' has no tokenizer.json, which tells where steps end; add one")
    context = found.config.get("max_position_embeddings")
    return TrainedRewardModel(checkpoint, model, tokenizer, context, max_batch_size)


class TrainedRewardModel:
    """A `harness.nouns.RewardModel` around a `RewardTrunk` and its tokenizer.

    Scores are probabilities: an ORM's that the answer is correct, a PRM's of each step (see
    `distillation.reward_data.split_steps`) that it is good. A completion that with its prompt is longer than the
    context is not cut: it has the single score `NEUTRAL`, and `too_long` counts it. A blank completion, which has no
    step for a PRM to score, has `NEUTRAL` too.

    `flops` counts the FLOPs of all scoring so far, so that its growth over a call of `score` is what the call costs:
    every weight of a matrix product once per token as a multiply and an add, attention over the causal context, the
    prompt once per completion; padding is not counted.
    """

    def __init__(
        self, name: str, model: "RewardTrunk", tokenizer: Any, context: int | None, max_batch_size: int
    ) -> None:
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.context, self.max_batch_size = context, max_batch_size
        self.flops, self.too_long = 0.0, 0

    @property
    def facts(self) -> Facts:
        """What the manifest records of this reward model."""
        weight = self.model.score.weight
        return {
            "kind": self.model.kind,
            "dtype": str(weight.dtype).removeprefix("torch."),
            "device": weight.device.type,
            "max_batch_size": self.max_batch_size,
            "context": self.context,
            "too_long": self.too_long,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
        }

    def score(self, prompt: Prompt, completions: Sequence[str]) -> list[list[float]]:
        """Per-step probabilities in 0..1, one list per completion; of an ORM each has one."""
        from harness.models.distillation.reward_data import read_texts

        if not completions:
            return []
        texts = read_texts(self.model.kind, self.tokenizer, prompt, completions)
        scores: list[list[float]] = [[NEUTRAL] for _ in texts]
        for batch in self.batches(texts):
            for index, found in zip(batch, self.read([texts[index] for index in batch]), strict=True):
                scores[index] = found
        return scores

    def batches(self, texts: Sequence["ScoredText"]) -> Iterator[list[int]]:
        """The texts that can be scored, those of like length together, the longest first."""
        fits = [self.context is None or len(text.token_ids) <= self.context for text in texts]
        self.too_long += fits.count(False)
        fitting = [index for index, text in enumerate(texts) if fits[index] and text.places]
        fitting.sort(key=lambda index: -len(texts[index].token_ids))
        for start in range(0, len(fitting), self.max_batch_size):
            yield fitting[start : start + self.max_batch_size]

    def read(self, texts: Sequence["ScoredText"]) -> list[list[float]]:
        """The scores of one batch."""
        import torch

        from harness.models.distillation.reward_data import pad
        from harness.models.distillation.rewards import probabilities

        token_ids, lengths = (tensor.to(self.model.score.weight.device) for tensor in pad([t.token_ids for t in texts]))
        with torch.inference_mode():
            scores = probabilities(self.model.kind, self.model(token_ids, lengths)).cpu()
        self.flops += sum(self.flops_of(len(text.token_ids)) for text in texts)
        if self.model.kind == "orm":
            return [[score] for score in scores.tolist()]
        return [row[list(text.places)].tolist() for row, text in zip(scores, texts, strict=True)]

    def flops_of(self, tokens: int) -> float:
        """FLOPs of scoring one text of so many tokens; a PRM's head reads every token, an ORM's the last."""
        from harness.models.flops import count_native_flops

        trunk, head = count_native_flops(self.model.trunk), self.model.score.weight.numel()
        scored = tokens if self.model.kind == "prm" else 1
        return trunk.prefill(tokens) - 2 * trunk.head + 2 * head * scored

    def close(self) -> None:
        """Free the model's memory; it cannot score afterwards."""
        del self.model
