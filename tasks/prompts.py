"""How a question becomes the chat messages that a model is asked: one wording for every task.

The instruction is the one that the reports on MATH-style reasoning share (Qwen2.5-Math, DeepSeek-R1, Sober Reasoning).
"""

from collections.abc import Sequence

from harness.nouns import Message

BOXED = r"Please reason step by step, and put your final answer within \boxed{}."


def chat(question: str, examples: Sequence[tuple[str, str]] = (), instruction: str = BOXED) -> tuple[Message, ...]:
    """The messages for one question: worked examples as earlier turns, then the question with the instruction.

    `examples` are (question, solution) pairs; each solution should end in the form that the instruction asks for.
    """
    turns: list[Message] = []
    for asked, solved in examples:
        turns += [Message("user", f"{asked}\n{instruction}"), Message("assistant", solved)]
    return (*turns, Message("user", f"{question}\n{instruction}"))
