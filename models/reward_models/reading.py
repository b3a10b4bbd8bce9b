"""Scoring with a loaded reward model: texts of like length together, a common beginning read once, all work counted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.architectures.passes import LayerState
from harness.models.distillation.reward_data import ScoredText, pad
from harness.nouns import Facts, Prompt

from .beginnings import Beginnings, Begun
from .forms import FORMS
from .heads import head_flops
from .trunks import NativeTrunk, Prefix, Trunk, common_length, device_of, extend, forward_flops, join, past_of

LEAST_SHARED = 8
"""A common beginning shorter than this is not worth a pass of its own."""

Asked = tuple[Prompt, str]
"""A prompt and one completion of it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user may choose of a reward model, and its context: the tokens that it can read, None for any."""

    form: str
    separator: str
    system: str
    context: int | None
    max_batch_size: int


class TrainedRewardModel:
    """A `harness.nouns.RewardModel` around a trunk, a head and their tokenizer.

    A completion that with its prompt is longer than the context is not cut: it has no score, and `too_long` counts it.
    A blank completion has no step for a process model to score; `blank` counts those.

    `flops` counts the work of all scoring so far, so that its growth over a call is what the call costs: every weight
    of a matrix product once per token read as a multiply and an add, attention over the causal context, the head where
    a score is read. What the completions of one prompt share is read once and counted once; padding is not counted.
    """

    def __init__(self, name: str, settings: Settings, trunk: Trunk, head: nn.Module, tokenizer: Any) -> None:
        self.name, self.settings, self.form = name, settings, FORMS[settings.form]
        self.trunk, self.head, self.tokenizer = trunk, head, tokenizer
        self.flops, self.too_long, self.blank = 0.0, 0, 0
        self.prefix = Prefix()
        self.beginnings: Beginnings | None = None

    def keep_beginnings(self) -> None:
        """From now on keep what is read of a prompt's texts: those that go on from them are read from there.

        What is kept takes memory, 2 GiB at most, and pays where texts grow from call to call, as in a search.
        """
        self.beginnings = self.beginnings or Beginnings()

    @property
    def max_batch_size(self) -> int:
        """Texts that are read at once at most."""
        return self.settings.max_batch_size

    @property
    def facts(self) -> Facts:
        """What the manifest records of this reward model."""
        weight = next(self.head.parameters())
        return {
            "format": self.settings.form,
            "separator": self.settings.separator,
            "system": self.settings.system,
            "trunk": "native" if isinstance(self.trunk, NativeTrunk) else type(self.trunk.module).__name__,
            "dtype": str(weight.dtype).removeprefix("torch."),
            "device": weight.device.type,
            "max_batch_size": self.max_batch_size,
            "context": self.settings.context,
            "too_long": self.too_long,
            "blank": self.blank,
            "parameters": sum(one.numel() for part in (self.trunk.module, self.head) for one in part.parameters()),
        }

    def score(self, prompt: Prompt, completions: Sequence[str]) -> list[list[float]]:
        """Per-step scores, one list per completion; of an outcome model each has one, of what has no score none."""
        return self.score_all([(prompt, completion) for completion in completions])

    def score_all(self, asked: Sequence[Asked]) -> list[list[float]]:
        """The same for completions of any prompts: those of a prompt share its reading, single ones share batches."""
        scores: list[list[float]] = [[] for _ in asked]
        with torch.inference_mode():
            for prefix, indices, texts in self.groups(asked):
                begun = {index: self.begin(texts[index], prefix) for index in indices if self.can_read(texts[index])}
                left = {index: len(texts[index].token_ids) - len(one.prefix.token_ids) for index, one in begun.items()}
                for batch in by_length(left, self.max_batch_size):
                    found = self.read([texts[index] for index in batch], [begun[index] for index in batch])
                    for index, one in zip(batch, found, strict=True):
                        scores[index] = one
        return scores

    def groups(self, asked: Sequence[Asked]) -> Iterator[tuple[Prefix, list[int], dict[int, ScoredText]]]:
        """Completions that are read after one prefix, with that prefix; the last group has none."""
        by_prompt: dict[Prompt, list[int]] = {}
        for index, (prompt, _) in enumerate(asked):
            by_prompt.setdefault(prompt, []).append(index)
        alone: dict[int, ScoredText] = {}
        for prompt, indices in by_prompt.items():
            # An empty completion shows where the prompt ends, also when there is only one real completion.
            *read, empty = self.write(prompt, [*(asked[index][1] for index in indices), ""])
            texts = dict(zip(indices, read, strict=True))
            shared = common_beginning(read, empty)
            kept = common_length(shared, self.prefix.token_ids)
            is_single = len(indices) == 1 and self.beginnings is None
            if len(shared) < LEAST_SHARED or (is_single and 2 * kept < len(shared)):
                alone |= texts
                continue
            yield self.move_prefix(shared), indices, texts
        if alone:
            yield Prefix(), list(alone), alone

    def write(self, prompt: Prompt, completions: Sequence[str]) -> list[ScoredText]:
        """What is read of each completion."""
        return self.form.read(self.tokenizer, prompt, completions, self.settings.separator, self.settings.system)

    def can_read(self, text: ScoredText) -> bool:
        """Whether a text fits the context and has a score; counts those that do not."""
        fits = self.settings.context is None or len(text.token_ids) <= self.settings.context
        self.too_long += not fits
        self.blank += fits and not text.places
        return fits and bool(text.places)

    def move_prefix(self, shared: Sequence[int]) -> Prefix:
        """Keep `shared` as the prefix; of the one that was kept so far, what is the same is not read again."""
        kept = common_length(shared, self.prefix.token_ids)
        self.flops += forward_flops(self.trunk, len(shared) - kept, kept)
        self.prefix = extend(self.trunk, self.prefix.cut(kept), tuple(shared[kept:]))
        if self.beginnings:
            self.beginnings.move_to(shared)
        return self.prefix

    def begin(self, text: ScoredText, prefix: Prefix) -> Begun:
        """What need not be read again of a text that begins with the prefix."""
        return self.beginnings.of(text, prefix) if self.beginnings and prefix.token_ids else Begun(prefix)

    def read(self, texts: Sequence[ScoredText], begun: Sequence[Begun]) -> list[list[float]]:
        """The scores of one batch of texts, each read from where it goes on."""
        befores = [len(one.prefix.token_ids) for one in begun]
        rows = [text.token_ids[before:] for text, before in zip(texts, befores, strict=True)]
        token_ids, lengths = (tensor.to(device_of(self.trunk)) for tensor in pad(rows))
        h, states = self.trunk.read(token_ids, lengths, past_of([one.prefix for one in begun]))
        left = [
            (row, place)
            for row, (text, one) in enumerate(zip(texts, begun, strict=True))
            for place in text.places
            if place not in one.scores
        ]
        places = [(row, place - befores[row]) for row, place in left]
        at = torch.tensor(places, dtype=torch.long, device=h.device).reshape(-1, 2)
        logits = self.head(h[at[:, 0], at[:, 1]])
        self.flops += sum(forward_flops(self.trunk, *each) for each in zip(map(len, rows), befores, strict=True))
        self.flops += head_flops(self.head) * len(left)
        known = [dict(one.scores) for one in begun]
        for (row, place), score in zip(left, self.as_scores(logits).tolist(), strict=True):
            known[row][place] = score
        if self.beginnings and befores[0]:
            rows_of = enumerate(zip(texts, begun, known, strict=True))
            self.beginnings.add([whole(row, *each, states) for row, each in rows_of])
        return [[known[row][place] for place in text.places] for row, text in enumerate(texts)]

    def as_scores(self, logits: Tensor) -> Tensor:
        """Scores (n,) float32 of the head's outputs (n, labels)."""
        logits = logits.float().cpu()
        if self.form.output == "softmax":
            return logits.softmax(-1)[:, self.form.good]
        return logits[:, 0].sigmoid() if self.form.output == "sigmoid" else logits[:, 0]

    def close(self) -> None:
        """Free the model's memory; it cannot score afterwards."""
        del self.trunk, self.head
        self.prefix, self.beginnings = Prefix(), None


def whole(row: int, text: ScoredText, begun: Begun, scores: Mapping[int, float], states: Sequence[LayerState]) -> Begun:
    """All of a text that is a row of a batch, to go on from later."""
    new = len(text.token_ids) - len(begun.prefix.token_ids)
    own: list[LayerState] = [tuple(tensor[row : row + 1, :, :new] for tensor in state) for state in states]
    if begun.prefix.states:
        own = [join(old, state) for old, state in zip(begun.prefix.states, own, strict=True)]
    return Begun(Prefix(text.token_ids, own), scores)


def common_beginning(texts: Sequence[ScoredText], empty: ScoredText) -> Sequence[int]:
    """The tokens that the texts and the empty one begin with, to before the first score; each text has some left."""
    rows = [text.token_ids for text in (*texts, empty)]
    low, high = min(rows), max(rows)
    limit = min(min((len(text.token_ids) - 1, *text.places)) for text in texts)
    return low[: min(common_length(low, high), max(limit, 0))]


def by_length(lengths: Mapping[int, int], rows: int) -> Iterator[list[int]]:
    """Batches of at most `rows` texts of like length, the longest first."""
    order = sorted(lengths, key=lambda index: -lengths[index])
    for start in range(0, len(order), rows):
        yield order[start : start + rows]
