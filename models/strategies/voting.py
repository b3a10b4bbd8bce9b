"""Votes as they come in: when does the majority stand?"""

from collections import Counter
from collections.abc import Sequence


def standing(classes: Sequence[int | None]) -> tuple[int, int]:
    """How many votes the leading answer has and how many the next; who has no answer has no vote."""
    votes = Counter(one for one in classes if one is not None)
    first, second, *_ = [*(count for _, count in votes.most_common(2)), 0, 0]
    return first, second


def is_settled(classes: Sequence[int | None], left: int, confidence: float) -> bool:
    """Whether the `left` votes to come cannot change the majority, or are held unlikely to.

    The probability that the leading answer is more frequent than the next, given their votes and a uniform prior, is
    that of a beta distribution (Aggarwal et al., "Let's sample step by step", arXiv 2305.11860); a confidence of 1 goes
    by certainty alone.
    """
    first, second = standing(classes)
    if first - second > left:
        return True
    if confidence >= 1 or first == second:
        return False
    from scipy.special import betainc

    return float(betainc(second + 1, first + 1, 0.5)) >= confidence
