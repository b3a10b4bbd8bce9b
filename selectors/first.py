"""`first`: what one sample is worth."""

from collections.abc import Sequence

from harness.nouns import Candidate, Graded, Prompt, Selector


def first() -> Selector:
    """The candidate with the lowest sample index; at k its expectation is plain accuracy (pass@1), whatever k is."""
    return Selector("first", select=lowest_index, expected=accuracy)


def lowest_index(prompt: Prompt, candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate that was asked for first, whether or not it has an answer."""
    return min(candidates, key=lambda one: one.sample_index, default=None)


def accuracy(graded: Graded, k: int) -> float:
    """The share of correct candidates."""
    return sum(graded.correct) / len(graded.correct)
