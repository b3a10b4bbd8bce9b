"""`majority`: the commonest answer wins (self-consistency, Wang et al., arXiv 2203.11171)."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.nouns import Candidate, Choice, Graded, Prompt, Selector

from .votes import expected_vote

if TYPE_CHECKING:
    import numpy as np


def majority() -> Selector:
    """One vote per candidate with an answer; equivalent answers are one class, classes that tie share the value."""
    return Selector("majority", select=commonest, expected=expected_majority)


def commonest(prompt: Prompt, candidates: Sequence[Candidate]) -> Choice | None:
    """Everyone who gave the commonest answer, or one of the commonest."""
    votes = Counter(one.answer_class for one in candidates if one.answer_class is not None)
    if not votes:
        return None
    most = max(votes.values())
    return Choice(tuple(one for one in candidates if one.answer_class is not None and votes[one.answer_class] == most))


def expected_majority(graded: Graded, ks: Sequence[int]) -> "np.ndarray":
    """Exact over all subsets of each size; a class is worth the share of its members that are correct."""
    counts, quality = votes_of(graded)
    return expected_vote(counts, quality, len(graded), ks)


def votes_of(graded: Graded) -> "tuple[np.ndarray, np.ndarray]":
    """How many candidates gave each answer, and which share of them is correct."""
    import numpy as np

    voted = graded.classes >= 0
    _, place, counts = np.unique(graded.classes[voted], return_inverse=True, return_counts=True)
    return counts, np.bincount(place, weights=graded.correct[voted], minlength=len(counts)) / counts
