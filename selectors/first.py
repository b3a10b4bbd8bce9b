"""`first`: what one sample is worth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.nouns import Candidate, Graded, Prompt, Selector

if TYPE_CHECKING:
    import numpy as np


def first() -> Selector:
    """The candidate with the lowest sample index; at k its expectation is plain accuracy (pass@1), whatever k is."""
    return Selector("first", select=lowest_index, expected=accuracy, value=value_of_lowest)


def lowest_index(prompt: Prompt, candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate that was asked for first, whether or not it has an answer."""
    return min(candidates, key=lambda one: one.sample_index, default=None)


def accuracy(graded: Graded, ks: Sequence[int]) -> "np.ndarray":
    """The share of correct candidates: any of them may have been asked for first."""
    import numpy as np

    return np.full(len(ks), graded.correct.mean())


def value_of_lowest(graded: Graded) -> float:
    """Whether the one that was asked for first is correct."""
    return float(graded.correct[graded.sample_index.argmin()])
