"""The standing of a vote while its candidates come in."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Standing(NamedTuple):
    """After `seen` candidates, with or without an answer: the votes of the leading answer and of the next one."""

    seen: int
    leader: int
    runner_up: int


def standings(classes: "np.ndarray") -> Iterator[Standing]:
    """The standing after each candidate; `classes` are their answers in order of finishing, -1 for no answer."""
    votes: dict[int, int] = {}
    leading: int | None = None
    runner_up = 0
    for seen, answer in enumerate(classes.tolist(), 1):
        if answer >= 0:
            votes[answer] = votes.get(answer, 0) + 1
            if leading is None or answer == leading:
                leading = answer
            elif votes[answer] > votes[leading]:
                # Only one vote was gained, so the answer overtaken is now next.
                leading, runner_up = answer, votes[leading]
            else:
                runner_up = max(runner_up, votes[answer])
        yield Standing(seen, votes[leading] if leading is not None else 0, runner_up)
