"""The texts that reward models read, and labelled batches of them.

A text is a rendered prompt with a completion. This module says where a completion's steps end, for training and scoring
alike, and knows no model.
"""

import math
import random
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from harness.errors import UserError, choices
from harness.inert import read_json
from harness.lines import open_lines
from harness.models import text
from harness.nouns import Message, Prompt
from harness.storage.runs import open_run

from .rewards import RewardKind

if TYPE_CHECKING:
    from .recipes import Stage

IGNORED = -100.0
"""The label of a token without one."""

PROBE = "reply"
FORMS = {
    "likelihood": {"run": "run:DIR", "file": "file:PATH.jsonl"},
    "orm": {"run": "run:DIR"},
    "prm": {"run": "run:DIR", "file": "file:PATH.jsonl"},
}
"""Where each kind of stage learns from, and how it is written."""


class ScoredText(NamedTuple):
    """Token ids of a text, and the places among them where scores are read: one per step, or the last for an ORM."""

    token_ids: tuple[int, ...]
    places: tuple[int, ...]


class Example(NamedTuple):
    """A text with labels in 0..1 of some of its tokens."""

    token_ids: tuple[int, ...]
    places: tuple[int, ...]
    labels: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RewardBatch:
    """Rows padded on the right.

    `token_ids` (b, L) int64; `lengths` (b,) int64; `labels` (b, L) float32, P(correct) or P(good) where an example has
    a label and `IGNORED` elsewhere.
    """

    token_ids: Tensor
    lengths: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> "RewardBatch":
        """The same batch on a device."""
        return RewardBatch(self.token_ids.to(device), self.lengths.to(device), self.labels.to(device))


@dataclass(frozen=True, slots=True)
class RewardBatches:
    """Batches without end from a list of examples; an example returns only when all others have been seen.

    `too_long` counts the texts that were left out because the context does not hold them.
    """

    examples: Sequence[Example]
    rows: int
    seed: int
    too_long: int = 0

    def batch(self, step: int) -> RewardBatch:
        """Batch number `step`, the same whenever it is asked for; process r of n takes numbers r, r + n, ..."""
        count = len(self.examples)
        chosen = []
        for place in range(step * self.rows, (step + 1) * self.rows):
            epoch, index = divmod(place, count)
            chosen.append(self.examples[shuffled(count, f"{self.seed}/{epoch}")[index]])
        return make_batch(chosen)


@lru_cache(maxsize=4)
def shuffled(count: int, seed: str) -> tuple[int, ...]:
    """0..count-1 in a seeded order."""
    return tuple(random.Random(seed).sample(range(count), count))


def split_steps(completion: str) -> list[str]:
    """The steps of a completion; joined they are the completion again. The one place that says what a step is.

    A step is a line that is not blank, with the newline that ends it. Blank lines begin no step: they belong to the
    step before them, and at the very start to the first. The last step ends with the text. A blank text has no steps.
    """
    steps: list[str] = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", completion):
        if steps and not (line.strip() and steps[-1].strip()):
            steps[-1] += line
        else:
            steps.append(line)
    return steps if completion.strip() else []


def closing(tokenizer: Any) -> str:
    """What the chat template writes after a finished reply, `<|eot_id|>` of a Llama 3; empty without a template."""
    if not tokenizer.chat_template:
        return ""
    messages = [Message("user", "question")._asdict(), Message("assistant", PROBE)._asdict()]
    whole = str(tokenizer.apply_chat_template(messages, tokenize=False, date_string=text.TEMPLATE_DATE))
    return whole.rpartition(PROBE)[2]


def read_texts(kind: RewardKind, tokenizer: Any, prompt: Prompt, completions: Sequence[str]) -> list[ScoredText]:
    """Token ids of each completion after its prompt, and where its scores are read.

    An ORM reads the reply closed as the chat template closes it, and scores its last token. A PRM scores each step at
    the token that holds its last character that is not blank, so that a step scores alike whatever comes after it; a
    blank completion has no place. The tokenizer must be a fast one.
    """
    begun = text.encode(tokenizer, prompt)
    encoded = tokenizer(list(completions), add_special_tokens=False, return_offsets_mapping=True)
    closed = tuple(tokenizer(closing(tokenizer), add_special_tokens=False)["input_ids"]) if kind == "orm" else ()
    read = []
    for completion, ids, spans in zip(completions, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        token_ids = (*begun, *ids, *closed)
        starts = [start for start, _ in spans]
        ends = [len(begun) + bisect_right(starts, place) - 1 for place in last_characters(completion)]
        read.append(ScoredText(token_ids, (len(token_ids) - 1,) if kind == "orm" else tuple(ends)))
    return read


def last_characters(completion: str) -> Iterator[int]:
    """Where in the completion the last character of each step stands that is not blank."""
    begun = 0
    for step in split_steps(completion):
        yield begun + len(step.rstrip()) - 1
        begun += len(step)


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids (b, L) padded with 0 on the right, and lengths (b,); int64 on the CPU."""
    lengths = [len(row) for row in rows]
    padded = [[*row, *[0] * (max(lengths) - len(row))] for row in rows]
    return torch.tensor(padded), torch.tensor(lengths)


def make_batch(examples: Sequence[Example]) -> RewardBatch:
    """One batch of these examples, on the CPU."""
    token_ids, lengths = pad([example.token_ids for example in examples])
    labels = torch.full(token_ids.shape, IGNORED)
    for row, example in zip(labels, examples, strict=True):
        row[list(example.places)] = torch.tensor(example.labels)
    return RewardBatch(token_ids, lengths, labels)


def reward_batches(stage: "Stage", tokenizer: Any, seed: int) -> RewardBatches:
    """The batches of a reward model's training stage, from its rows, context and data, all sources in one heap.

    Of `run:DIR`, the completions and verdicts of a stored run: an ORM learns the verdict at the last token, or at every
    token of the completion where `loss_on` is that; a PRM learns it at the end of every step, for a completion is one
    roll-out from each of its steps. Of `file:PATH.jsonl`, which `rollouts` writes, a PRM learns the shares of several.
    A stage of kind "likelihood" has a label at every token of the completions of either, for its teacher to say.
    Texts of more than `context` tokens are left out and counted.

    Raises UserError when the source is of another form or cannot be read, or no text of it fits.
    """
    examples = [
        example
        for source in (stage.data.source, *stage.data.mixed_with)
        for example in examples_of(stage, source, tokenizer)
    ]
    fitting = [example for example in examples if len(example.token_ids) <= stage.context]
    if not fitting:
        raise UserError(
            f"'{stage.data.source}' has {len(examples)} labelled texts and none fits a context of {stage.context} "
            "tokens; write a longer context or name other data"
        )
    return RewardBatches(fitting, stage.rows, seed, len(examples) - len(fitting))


def examples_of(stage: "Stage", source: str, tokenizer: Any) -> Iterator[Example]:
    """What a stage learns from one source. Raises UserError when it is of another form or cannot be read."""
    kind: RewardKind = "orm" if stage.kind == "orm" else "prm"
    form, _, place = source.partition(":")
    if form not in FORMS[stage.kind]:
        known = choices(list(FORMS[stage.kind].values()))
        raise UserError(f"data.source of a stage of kind {stage.kind} is one of {known}, got '{source}'")
    path = Path(place).expanduser()
    everywhere = stage.kind == "likelihood"
    if form == "run":
        return run_examples(kind, path, tokenizer, everywhere=everywhere or stage.data.loss_on == "completion")
    return step_examples(path, tokenizer, everywhere=everywhere)


def run_examples(kind: RewardKind, run: Path, tokenizer: Any, *, everywhere: bool = False) -> Iterator[Example]:
    """The graded completions of a stored run, labelled 1 where the verdict is correct and else 0.

    The label stands where scores are read, or `everywhere` in the completion. Left out are completions that a deadline
    cut or an error ended, that the grader had no time to judge, or that no score is read from. Raises UserError when
    there is no run.
    """
    stored = open_run(run)
    verdicts = {(row["problem_id"], row["sample_index"]): row["verdict"] for row in stored.verdicts()}
    replies: dict[str, list[tuple[str, float]]] = {}
    for row in stored.completions():
        verdict = verdicts.get((row["problem_id"], row["sample_index"]), "timeout")
        if verdict != "timeout" and row["finish_reason"] in ("stop", "length"):
            replies.setdefault(row["problem_id"], []).append((row["text"], float(verdict == "correct")))
    for problem in stored.problems():
        labelled = replies.get(problem["problem_id"], [])
        if not labelled:
            continue
        begun = len(text.encode(tokenizer, problem["prompt"]))
        read = read_texts(kind, tokenizer, problem["prompt"], [reply for reply, _ in labelled])
        for (token_ids, ends), (_, label) in zip(read, labelled, strict=True):
            places = tuple(range(begun, ends[-1] + 1)) if everywhere and ends else ends
            if places:
                yield Example(token_ids, places, (label,) * len(places))


def step_examples(path: Path, tokenizer: Any, *, everywhere: bool = False) -> Iterator[Example]:
    """The labelled steps of a file that `rollouts` wrote.

    With `everywhere` each token of the completion has a label, the first step's. Raises UserError naming a line that is
    none of it.
    """
    with open_lines(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                prompt, steps, labels = read_line(line, f"line {number} of '{path}'")
                ((token_ids, ends),) = read_texts("prm", tokenizer, prompt, ["".join(steps)])
                if everywhere:
                    begun = len(text.encode(tokenizer, prompt))
                    ends = tuple(range(begun, ends[-1] + 1))
                    labels = labels[:1] * len(ends)
                yield Example(token_ids, ends, labels)


def read_line(line: str, where: str) -> tuple[str, tuple[str, ...], tuple[float, ...]]:
    """Prompt, steps and labels of one line. Raises UserError when it is not of that form."""
    try:
        row: Mapping[str, Any] = read_json(line)
        prompt, steps, labels = row["prompt"], tuple(row["steps"]), tuple(map(float, row["labels"]))
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(
            f"{where} is no JSON object with prompt, steps and labels ({type(error).__name__}: {error})"
        ) from None
    if not steps or len(labels) != len(steps) or not all(math.isfinite(one) and 0 <= one <= 1 for one in labels):
        raise UserError(f"{where} wants one label in 0..1 for each step, got {len(steps)} steps and {labels}")
    are_texts = all(isinstance(one, str) for one in (prompt, *steps))
    if not are_texts or split_steps("".join(steps)) != list(steps):
        raise UserError(f"{where} has steps that are not lines of a text after a prompt; write it with rollouts")
    return prompt, steps, labels
