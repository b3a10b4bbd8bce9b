"""From a prompt to token ids and from ids back to text: chat template, plain form, stop strings.

Works on any transformers tokenizer and knows no model.
"""

from collections.abc import Sequence
from typing import Any

from harness.nouns import Message, Prompt

TEMPLATE_DATE = "26 Jul 2024"
"""Llama 3's chat template prints today's date unless it is told one; this is the template's own fallback."""

REPLACEMENT = "\ufffd"
"""What decoding puts in place of bytes that are no complete character."""


def render(tokenizer: Any, prompt: Prompt) -> str:
    """The exact text that the model reads.

    A string stays as it is. Chat messages go through the tokenizer's chat template, opened for the assistant's turn, or
    through `plain` when it has none.
    """
    if isinstance(prompt, str):
        return prompt
    if not tokenizer.chat_template:
        return plain(prompt)
    messages = [message._asdict() for message in prompt]
    return str(
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, date_string=TEMPLATE_DATE)
    )


def plain(messages: Sequence[Message]) -> str:
    """Messages as text for a base model: paragraphs separated by blank lines, open where the model goes on.

    A system message is a paragraph of its own; a user's turn reads `Question: ...` and the assistant's reply follows on
    the next line as `Answer: ...`. After a last question stands `Answer:`, without the space that tokenizers join to
    the next word.
    """
    text = ""
    for message in messages:
        if message.role == "assistant":
            text += f"\nAnswer: {message.content}"
        else:
            text += "\n\n" + (f"Question: {message.content}" if message.role == "user" else message.content)
    is_open = bool(messages) and messages[-1].role == "user"
    return text.strip("\n") + ("\nAnswer:" if is_open else "")


def encode(tokenizer: Any, prompt: Prompt) -> tuple[int, ...]:
    """Token ids of a prompt, begun with at most one begin-of-text token.

    The tokenizer adds its special tokens to plain text only: a chat template has written them already, and so has the
    author of a string that starts with one.
    """
    text = render(tokenizer, prompt)
    templated = bool(tokenizer.chat_template) and not isinstance(prompt, str)
    begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    return tuple(tokenizer(text, add_special_tokens=not (templated or begun))["input_ids"])


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of generated ids, without special tokens and with every space as the model wrote it."""
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def find_stop(text: str, stop: Sequence[str]) -> int:
    """Where the first stop string begins, or -1."""
    return min((place for place in map(text.find, stop) if place >= 0), default=-1)


def tail_length(stop: Sequence[str]) -> int:
    """How many tokens from the end surely hold a stop string that has just been completed.

    A character is at most 4 bytes and a token at least one; the margin is for special tokens in between.
    """
    return 4 * max(map(len, stop), default=0) + 8


def may_complete(tokenizer: Any, stop: Sequence[str], vocab_size: int) -> list[bool]:
    """For each token id, whether it can be the one that completes a stop string.

    It can when its text holds the last character of one, or is no complete character by itself. A last space makes
    every token a suspect, because some tokenizers show a leading space only in context.
    """
    if not stop:
        return [False] * vocab_size
    last = {string[-1] for string in stop}
    if " " in last:
        return [True] * vocab_size
    last.add(REPLACEMENT)
    texts = tokenizer.batch_decode(
        [[token] for token in range(len(tokenizer))], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    suspects = [not last.isdisjoint(text) for text in texts]
    return (suspects + [False] * vocab_size)[:vocab_size]


def is_stopped(tokenizer: Any, ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether generated ids hold a stop string, given that the ids before the last did not."""
    if not stop or find_stop(decode(tokenizer, ids[-tail_length(stop) :]), stop) < 0:
        return False
    # A tail may decode differently from the whole, so the whole decides.
    return find_stop(decode(tokenizer, ids), stop) >= 0


def finished_text(tokenizer: Any, ids: Sequence[int], stop: Sequence[str], *, cut: bool) -> str:
    """The text of generated ids up to the first stop string; at a cut, without half a character."""
    whole = decode(tokenizer, ids)
    place = find_stop(whole, stop)
    if place >= 0:
        return whole[:place]
    return whole.rstrip(REPLACEMENT) if cut else whole
