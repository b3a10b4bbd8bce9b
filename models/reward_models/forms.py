"""Which kind of reward model a checkpoint is, told from its config, its head's keys and its tokenizer's tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import UserError, choices
from harness.models.checkpoints import Checkpoint
from harness.models.weights import WeightFiles

from . import texts
from .heads import count_labels, head_of

FormName = Literal["auto", "outcome", "orm", "prm", "turns", "tags", "separators", "values", "classes"]
Output = Literal["raw", "sigmoid", "softmax"]

BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
"""The system message of the model card of Qwen2.5-Math-PRM."""


@dataclass(frozen=True, slots=True)
class Form:
    """A format: how a solution is written, what the head gives and what is made of it.

    `output` is what a score is of the head's outputs: the only one as it is, its sigmoid, or the softmax's share of
    output number `good`. `separator` parts the steps when the user says nothing; an empty one has no meaning.
    """

    read: texts.Read
    labels: int
    output: Output
    good: int = 0
    separator: str = ""
    system: str = ""


FORMS: Mapping[str, Form] = {
    "outcome": Form(texts.read_outcome, 1, "raw"),
    "orm": Form(texts.read_orm, 1, "sigmoid"),
    "prm": Form(texts.read_prm, 2, "softmax", good=1),
    "turns": Form(texts.read_turns, 2, "softmax", separator="\n\n"),
    "tags": Form(texts.read_tags, 2, "softmax", separator="\n\n"),
    "separators": Form(texts.read_separators, 2, "softmax", good=1, separator="\n\n", system=BOXED),
    "values": Form(texts.read_values, 1, "sigmoid", separator="\n"),
    "classes": Form(texts.read_classes, 2, "softmax", good=1, separator="\n"),
}
BY_TOKENS = ("turns", "tags")
"""Formats without a head of their own: two tokens of a language model's are compared."""


def find_form(name: FormName, checkpoint: Checkpoint, files: WeightFiles, tokenizer: Any) -> str:
    """The format of a checkpoint, or the one that was asked for if its head can give it.

    Raises UserError when nothing tells the format, or the head has not the outputs that it needs.
    """
    found = detect(checkpoint, files, tokenizer) if name == "auto" else name
    if found not in FORMS:
        raise UserError(f"there is no format '{found}' of reward models; write format= one of {choices(list(FORMS))}")
    labels, wanted = count_labels(files), FORMS[found].labels
    if found not in BY_TOKENS and labels != wanted:
        has = f"{labels} labels" if labels else "no score head"
        raise UserError(
            f"the {architecture(checkpoint)} '{checkpoint.name}' has {has} and a reward model of this form has "
            f"{wanted} (format {found}); name another checkpoint or write format= one of {choices(list(FORMS))}"
        )
    if found in ("turns", "separators") and not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of '{checkpoint.name}' has no chat template, which the format {found} writes with; take "
            "the tokenizer files of its model page"
        )
    return found


def detect(checkpoint: Checkpoint, files: WeightFiles, tokenizer: Any) -> str:
    """The format that config.json, head and tokenizer tell of. Raises UserError when they tell of none."""
    head, labels = head_of(files.shapes.keys()), count_labels(files)
    trained = sorted((checkpoint.config.get("id2label") or {}).values())
    if head == "v_head.summary.":
        return "values"
    if head and architecture(checkpoint).endswith("ForTokenClassification"):
        return "prm" if trained == ["bad", "good"] else "classes"
    if head and trained == ["correct"]:
        return "orm"
    if head and labels == 2 and texts.EXTRA in tokenizer.get_vocab():
        return "separators"
    if head:
        return "outcome"
    return detect_language_model(checkpoint, tokenizer)


def detect_language_model(checkpoint: Checkpoint, tokenizer: Any) -> str:
    """The format of a process model that is a plain language model; its name has to say that it is one.

    Raises UserError when it does not: any language model would give numbers, and they would mean nothing.
    """
    names = f"{checkpoint.name} {checkpoint.config.get('_name_or_path', '')}".lower()
    if "prm" not in names and "shepherd" not in names:
        raise UserError(
            f"'{checkpoint.name}' is no reward model: its config.json names {architecture(checkpoint)} "
            f"({checkpoint.family}) and its weights have no score head; if it judges steps by the tokens + and -, "
            "write format=turns (a chat, RLHFlow) or format=tags (Math-Shepherd)"
        )
    return "turns" if tokenizer.chat_template and "shepherd" not in names else "tags"


def architecture(checkpoint: Checkpoint) -> str:
    """The class that config.json names."""
    return str((checkpoint.config.get("architectures") or ["nothing"])[0])


def verdict_tokens(name: str, form: str, tokenizer: Any) -> tuple[int, int]:
    """The ids of `+` and `-` as the format has them: after a blank for tags, at the start of a turn otherwise.

    Raises UserError when they are the same token, so that this tokenizer cannot tell them apart.
    """
    if form == "tags":
        ids = tokenizer(f"{texts.GOOD} {texts.BAD}", add_special_tokens=False)["input_ids"]
    else:
        ids = [texts.encode_alone(tokenizer, sign)[-1] for sign in (texts.GOOD, texts.BAD)]
    good, bad = ids[0], ids[-1]
    if good == bad:
        raise UserError(f"the tokenizer of '{name}' has no tokens of their own for + and -; name another checkpoint")
    return good, bad
