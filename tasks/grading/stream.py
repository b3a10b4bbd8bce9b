"""The tokens of a formula, how far reading has come, and how deep it is nested."""

from collections.abc import Callable

from .nodes import Node, Unreadable
from .tokens import END, Token

DEEPEST = 60


class Stream:
    """The tokens, how far reading has come, and how deep it is nested."""

    __slots__ = ("at", "atom", "bars", "depth", "tokens")

    def __init__(self, tokens: list[Token], atom: "Callable[[Stream], Node]") -> None:
        self.tokens = tokens
        self.atom = atom
        self.at = 0
        self.depth = 0
        self.bars = 0

    def peek(self, ahead: int = 0) -> Token:
        """The token to come."""
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else END

    def take(self) -> Token:
        """The next token, consumed."""
        token = self.peek()
        self.at += 1
        return token

    def accept(self, text: str) -> bool:
        """Consume the token if it reads so."""
        if self.peek().text == text and self.peek().kind != "text":
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        """Consume a token that must read so. Raises Unreadable."""
        if not self.accept(text):
            raise Unreadable(f"expected {text} before {self.peek().text or 'the end'}")

    def nested(self, read: Callable[["Stream"], Node]) -> Node:
        """Read one level deeper. Raises Unreadable beyond the deepest level."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable(f"nested deeper than {DEEPEST}")
        node = read(self)
        self.depth -= 1
        return node
