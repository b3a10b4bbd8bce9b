"""`self_consistency`: independent samples and a vote, given up as soon as the vote is settled.

Self-consistency is Wang et al., arXiv 2203.11171; stopping early is Aggarwal et al., arXiv 2305.11860.
"""

from collections.abc import Iterator

from harness.errors import UserError
from harness.running.drafts import Draft
from harness.running.strategies import Search, Strategy

from .voting import is_settled


def self_consistency(*, confidence: float = 0.95, at_once: int = 0) -> Strategy:
    """Independent samples until their majority is settled.

    Args:
        confidence: how sure the majority must be; 1 waits until it cannot change.
        at_once: samples in flight, the next begun when one ends; 0 begins all at once.

    Raises UserError for an option that means nothing.
    """
    if not 0.5 < confidence <= 1:
        raise UserError(f"confidence must lie above 0.5 and at most 1, got {confidence:g}")
    if at_once < 0:
        raise UserError(f"at_once must not be negative, got {at_once}; 0 begins all samples at once")

    def vote(search: Search) -> Iterator[Draft]:
        return vote_until_settled(search, confidence, at_once or search.samples)

    return Strategy("self_consistency", vote)


def vote_until_settled(search: Search, confidence: float, at_once: int) -> Iterator[Draft]:
    """Yield samples as they end; what is still being written when the vote is settled is given up."""
    begun = min(at_once, search.samples)
    samples = search.extend([search.begin()] * begun)
    ended: list[Draft] = []
    for draft in samples:
        yield draft
        ended.append(draft)
        if is_settled(search.classes(ended), search.samples - len(ended), confidence):
            return
        if begun < search.samples:
            samples.add(search.begin(), begun)
            begun += 1
