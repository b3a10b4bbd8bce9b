"""Rows that run to their limit whatever they say: what timing a given length needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.models.endings import Endings


@contextmanager
def endless(engine: Any) -> Iterator[None]:
    """Make an engine ignore end tokens inside the block.

    An engine says that it can by an attribute `ignores_ends`, which is set; those with a `harness.models.endings` of
    their own have it replaced. Any other goes on as it is, and its rows may end early.
    """
    endings = getattr(engine, "endings", None)
    if hasattr(engine, "ignores_ends"):
        before, engine.ignores_ends = engine.ignores_ends, True
        try:
            yield
        finally:
            engine.ignores_ends = before
    elif isinstance(endings, Endings):
        engine.endings = Endings(endings.tokenizer, frozenset(), endings.vocab_size, endings.device)
        forget_slots(engine)
        try:
            yield
        finally:
            engine.endings = endings
            forget_slots(engine)
    else:
        yield


def forget_slots(engine: Any) -> None:
    """The native engine's slots hold the old end tokens."""
    if hasattr(engine, "slots"):
        engine.slots = None
