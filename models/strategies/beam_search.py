r"""`beam_search`: many continuations of each step, of which a process reward model keeps the best.

As in huggingface/search-and-learn (Beeching et al., "Scaling test-time compute with open models"; Snell et al., arXiv
2408.03314): n beams, of which after every step the best n / width each get `width` continuations. A reply that is
finished is a candidate at once and makes the beam narrower, so that no more than the candidates asked for are written.
"""

from collections.abc import Iterator
from typing import Literal

from harness.running.drafts import Draft
from harness.running.strategies import Search, Strategy

from .guiding import OVER, Guide, check_at_least_one, guide_of, spread


def beam_search(
    *,
    width: int = 4,
    separator: str = "\\n",
    aggregate: Literal["last", "min", "prod", "mean"] = "last",
    early_tokens: int = 0,
    deduplicate: bool = True,
) -> Strategy:
    r"""Beam search over steps, guided by a process reward model.

    Args:
        width: continuations of each beam; the samples asked for over this are the beams that are kept.
        separator: where a step ends, `\n` and `\n\n` as typed.
        aggregate: what is made of the scores of a reply's steps.
        early_tokens: reject after so many tokens of a step instead of at its end; 0 does not.
        deduplicate: let equal beams count once.

    Raises UserError for an option that means nothing.
    """
    check_at_least_one(width=width)
    guide = guide_of(separator, aggregate, early_tokens, deduplicate)

    def search_beams(search: Search) -> Iterator[Draft]:
        return search_with(search, guide, width)

    return Strategy("beam_search", search_beams, reads_scores=True)


def search_with(search: Search, guide: Guide, width: int) -> Iterator[Draft]:
    """Write, score and keep until as many replies as are asked for have ended."""
    beams, left = [search.begin()], search.samples
    while left and beams and not search.deadline.expired:
        going = []
        for draft in guide.write(search, spread(beams, left)):
            if draft.ending in OVER:
                left -= 1
                yield draft
            elif draft.ending is None:
                going.append(draft)
        if not going or not left or search.deadline.expired:
            return
        beams = []
        for draft in guide.complete(search, guide.best(search, going, max(1, left // width))):
            if draft.ending is None:
                beams.append(draft)
            elif draft.ending in OVER:
                left -= 1
                yield draft
