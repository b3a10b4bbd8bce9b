r"""How each published reward model wants a question and its solution written, and where its scores are read.

A function per format: it takes a fast tokenizer, a prompt, completions, the step separator and a system message, and
gives token ids with the places of the scores. Steps that are blank are no steps. What was checked where:

- `turns`, `tags`: huggingface/search-and-learn `src/sal/models/reward_models.py`, RLHFlow/RLHF-Reward-Modeling
  `math-rm/prm_evaluate.py`, the data card of peiyi9979/Math-Shepherd. That the tagged steps are joined by one newline
  is the data card's; search-and-learn keeps blank lines between them.
- `separators`: the model cards of Qwen2.5-Math-PRM-7B and -72B.
- `values`: SkyworkAI/skywork-o1-prm-inference `model_utils/io_utils.py` as search-and-learn carries it.
- `outcome`: transformers' own rule for sequence classification, the last token; the chat form is that of the model card
  of Skywork-Reward-Llama-3.1-8B (unverified: the card was not at hand in full; and so the pooling of Qwen2.5-Math-RM).
- `classes`: TRL's PRMTrainer (unverified: its source was not at hand).
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from harness.models import text
from harness.models.distillation.reward_data import ScoredText, read_texts
from harness.nouns import Message, Prompt

Read = Callable[[Any, Prompt, Sequence[str], str, str], list[ScoredText]]
"""(tokenizer, prompt, completions, separator, system) to what is read."""

MARK = "\ue0f0\ue0f1"
"""Stands for a verdict or a separator until its place is known; from the private use area, as no solution has it."""
GOOD, BAD = "+", "-"
TAG = "ки"
"""Math-Shepherd's sign of a step's end."""
EXTRA = "<extra_0>"
"""Qwen2.5-Math-PRM's."""


class Marked(NamedTuple):
    """A text, and the characters at which its scores are read."""

    text: str
    marks: tuple[int, ...]


def question_of(prompt: Prompt) -> str:
    """What is asked: the prompt, or the last thing that a user says in a chat."""
    if isinstance(prompt, str):
        return prompt
    return next((message.content for message in reversed(prompt) if message.role == "user"), "")


def steps_of(completion: str, separator: str) -> list[str]:
    """The steps of a completion, without blanks around them."""
    return [step.strip() for step in clean(completion).split(separator) if step.strip()]


def clean(completion: str) -> str:
    """The completion without characters and tokens that would be taken for a mark."""
    return completion.replace(MARK, "").replace(EXTRA, "")


def system_turn(system: str) -> list[Message]:
    """The system message as a turn, if there is one."""
    return [Message("system", system)] if system else []


def fill_marks(marked: str, filling: str) -> Marked:
    """Put `filling` in the place of every mark, where the last of its characters is what counts."""
    pieces, places, length = marked.split(MARK), [], 0
    for piece in pieces[:-1]:
        length += len(piece) + len(filling)
        places.append(length - 1)
    return Marked(filling.join(pieces), tuple(places))


def render(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The chat as the tokenizer's template writes it; nothing is opened for a next turn."""
    turns = [message._asdict() for message in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, date_string=text.TEMPLATE_DATE))


def encode(tokenizer: Any, texts: Sequence[Marked], *, special: bool, offset: int) -> list[ScoredText]:
    """Token ids; scores are read at the token that holds a mark's character, or `offset` tokens from it."""
    encoded = tokenizer([one.text for one in texts], add_special_tokens=special, return_offsets_mapping=True)
    read = []
    for one, ids, spans in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        # Special tokens that the tokenizer puts around the text have the empty span (0, 0).
        ends = list(accumulate((end for _, end in spans), max))
        places = tuple(bisect_right(ends, mark) + offset for mark in one.marks)
        read.append(ScoredText(tuple(ids), places))
    return read


def read_turns(
    tokenizer: Any, prompt: Prompt, completions: Sequence[str], separator: str, system: str
) -> list[ScoredText]:
    """RLHFlow: a chat in which every step is a user's turn and the answer to it `+` or `-`, predicted before it."""
    texts = []
    for completion in completions:
        first, *rest = steps_of(completion, separator) or [""]
        turns = system_turn(system)
        for step in (f"{question_of(prompt)} {first}", *rest):
            turns += [Message("user", step), Message("assistant", MARK)]
        marked = fill_marks(render(tokenizer, turns), GOOD)
        texts.append(marked if first else Marked(marked.text, ()))
    return encode(tokenizer, texts, special=False, offset=-1)


def read_tags(
    tokenizer: Any, prompt: Prompt, completions: Sequence[str], separator: str, system: str
) -> list[ScoredText]:
    """Math-Shepherd: question and steps in one text, each step ended by the tag, at which `+` or `-` is predicted."""
    begun = (f"{system}\n" if system else "") + question_of(prompt)
    texts = []
    for completion in completions:
        steps = steps_of(completion, separator)
        texts.append(fill_marks(f"{begun} " + "\n".join(f"{step} {MARK}" for step in steps), TAG))
    return encode(tokenizer, texts, special=True, offset=0)


def read_separators(
    tokenizer: Any, prompt: Prompt, completions: Sequence[str], separator: str, system: str
) -> list[ScoredText]:
    """Qwen2.5-Math-PRM: system, question, and a reply with a separator token after every step, classified there."""
    asked = [*system_turn(system), Message("user", question_of(prompt))]
    texts = []
    for completion in completions:
        reply = "".join(step + MARK for step in steps_of(completion, separator))
        texts.append(fill_marks(render(tokenizer, [*asked, Message("assistant", reply)]), EXTRA))
    return encode(tokenizer, texts, special=False, offset=0)


def read_values(
    tokenizer: Any, prompt: Prompt, completions: Sequence[str], separator: str, system: str
) -> list[ScoredText]:
    """Skywork-o1-Open-PRM: question, newline, steps, each encoded alone and ended by the separator's last token."""
    begun = f"{tokenizer.bos_token or ''}{system}{question_of(prompt)}\n"
    return read_apart(tokenizer, begun, completions, separator, encode_alone(tokenizer, separator)[-1:])


def read_classes(
    tokenizer: Any, prompt: Prompt, completions: Sequence[str], separator: str, system: str
) -> list[ScoredText]:
    """TRL's PRMTrainer: question, steps; each step encoded alone and ended by the separator's tokens."""
    begun = f"{tokenizer.bos_token or ''}{system}{question_of(prompt)}"
    return read_apart(tokenizer, begun, completions, separator, encode_alone(tokenizer, separator))


def encode_alone(tokenizer: Any, one: str) -> list[int]:
    """Token ids of a piece of text."""
    ids: list[int] = tokenizer(one, add_special_tokens=False)["input_ids"]
    return ids


def read_apart(
    tokenizer: Any, begun: str, completions: Sequence[str], separator: str, ending: Sequence[int]
) -> list[ScoredText]:
    """Steps encoded one by one, each read at the last token of its ending. Blank ones are read but not scored."""
    question = encode_alone(tokenizer, begun)
    read = []
    for completion in completions:
        ids, places = list(question), []
        for step in clean(completion).strip().split(separator) if completion.strip() else []:
            ids += [*(encode_alone(tokenizer, step) if step else []), *ending]
            places += [len(ids) - 1] if step.strip() else []
        read.append(ScoredText(tuple(ids), tuple(places)))
    return read


def read_outcome(
    tokenizer: Any, prompt: Prompt, completions: Sequence[str], separator: str, system: str
) -> list[ScoredText]:
    """Sequence classification: the whole chat, or plain text without a template, read at its last token."""
    if not tokenizer.chat_template:
        return read_texts("orm", tokenizer, prompt, completions)
    asked = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
    begun = [*system_turn(system), *asked]
    chats = [Marked(render(tokenizer, [*begun, Message("assistant", one)]), ()) for one in completions]
    return [ScoredText(ids, (len(ids) - 1,)) for ids, _ in encode(tokenizer, chats, special=False, offset=0)]


def read_orm(
    tokenizer: Any, prompt: Prompt, completions: Sequence[str], separator: str, system: str
) -> list[ScoredText]:
    """Our own outcome models, as `distillation.reward_data` trains them."""
    return read_texts("orm", tokenizer, prompt, completions)


def read_prm(
    tokenizer: Any, prompt: Prompt, completions: Sequence[str], separator: str, system: str
) -> list[ScoredText]:
    """Our own process models; their steps are the lines that are not blank."""
    return read_texts("prm", tokenizer, prompt, completions)
