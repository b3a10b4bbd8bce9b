"""`majority`: the commonest answer wins (self-consistency, Wang et al., arXiv 2203.11171)."""

from collections import Counter
from collections.abc import Sequence

from harness.nouns import Candidate, Choice, Prompt


def majority(prompt: Prompt, candidates: Sequence[Candidate]) -> Choice | None:
    """One vote per candidate with an answer; equivalent answers are one class, classes that tie share the value."""
    first = {one.answer_class: one for one in reversed(candidates) if one.answer_class is not None}
    votes = Counter(one.answer_class for one in candidates if one.answer_class is not None)
    if not votes:
        return None
    most = max(votes.values())
    return Choice(tuple(first[answer_class] for answer_class, count in votes.items() if count == most))
