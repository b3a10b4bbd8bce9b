"""What the fuzz tests share: hostile JSON, mangled bytes, and how many of them.

`TTC_FUZZ_EXAMPLES=20000 pytest tests/test_fuzzing*.py` runs longer than the few hundred examples of every day.
"""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from harness.errors import UserError

EXAMPLES = int(os.environ.get("TTC_FUZZ_EXAMPLES", "200"))
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without shrinking, which takes minutes where an example takes a tenth of a second."""
many = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES,
    derandomize="TTC_FUZZ_EXAMPLES" not in os.environ,  # so that the same tree always passes or always fails
)  # fmt: skip
few = settings(many, max_examples=max(1, EXAMPLES // 5))
"""For what takes long."""

LETTERS = st.characters(exclude_categories=())
TEXTS = st.text(LETTERS, max_size=12) | st.sampled_from(
    ["", "\0", "\x1b[31m", "\u202e", "\ud800", "../../x", "{" * 400, "nan", "1e999", "-1", "[{", '[{"x":', "stop"]
)  # fmt: skip
NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.integers(-2, 3)
SIMPLE = st.none() | st.booleans() | NUMBERS | TEXTS


def values(names: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """Any JSON value, with these names of fields more often than others."""
    keys = st.sampled_from(names) | TEXTS if names else TEXTS
    return st.recursive(
        SIMPLE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6), max_leaves=12
    )


@st.composite
def changed(draw: Callable[[st.SearchStrategy[Any]], Any], whole: Any, names: tuple[str, ...] = ()) -> Any:
    """A JSON value in which some places, however deep, are replaced by something else or taken away."""
    if isinstance(whole, dict) and whole and draw(st.integers(0, 5)):
        name = draw(st.sampled_from(sorted(whole)))
        rest = {key: value for key, value in whole.items() if key != name}
        if draw(st.integers(0, 4)) == 0:
            return rest
        return rest | {name: draw(changed(whole[name], names))}
    if isinstance(whole, list) and whole and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(whole) - 1))
        return [*whole[:place], draw(changed(whole[place], names)), *whole[place + 1 :]]
    return draw(values(names))


@st.composite
def mangled(draw: Callable[[st.SearchStrategy[Any]], Any], whole: bytes) -> bytes:
    """Bytes of which some are cut out, put in or overwritten."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(whole)))
        stop = min(len(whole), start + draw(st.integers(0, 16) | st.integers(0, len(whole))))
        whole = whole[:start] + draw(st.binary(max_size=16)) + whole[stop:]
    return whole


def told(action: Callable[..., Any], *arguments: Any) -> Any:
    """What an action gives, or None where it ends in a sentence; every other exception goes on."""
    try:
        return action(*arguments)
    except UserError:
        return None
