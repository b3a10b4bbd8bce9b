r"""`rebase`: reward-balanced search, a tree in which every node has as many children as its reward deserves.

Wu et al., "Inference scaling laws" (arXiv 2408.00724; thu-wyz/rebase). Of the B replies that are still to be written,
node j of the present depth gets B exp(r_j / T) / sum_k exp(r_k / T) continuations; they are shared out by largest
remainder, so that they are B in all, where the paper rounds.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from harness.errors import UserError
from harness.running.drafts import Draft
from harness.running.strategies import Search, Strategy

from .guiding import OVER, Guide, guide_of, in_order


def rebase(
    *,
    balance: float = 0.2,
    separator: str = "\\n",
    aggregate: Literal["last", "min", "prod", "mean"] = "last",
    deduplicate: bool = True,
) -> Strategy:
    r"""Tree search that shares out continuations by a process reward model's scores.

    Args:
        balance: T, how evenly: a small one gives all to the best node.
        separator: where a step ends, `\n` and `\n\n` as typed.
        aggregate: what is made of the scores of a reply's steps.
        deduplicate: let equal nodes count once.

    Raises UserError for an option that means nothing.
    """
    if not (math.isfinite(balance) and balance > 0):
        raise UserError(f"balance must be positive, got {balance:g}; 0.2 is usual")
    guide = guide_of(separator, aggregate, 0, deduplicate)

    def search_tree(search: Search) -> Iterator[Draft]:
        return search_with(search, guide, balance)

    return Strategy("rebase", search_tree, reads_scores=True)


def search_with(search: Search, guide: Guide, balance: float) -> Iterator[Draft]:
    """Write all nodes of a depth, score them, and share out the next depth."""
    left = search.samples
    nodes = [search.begin()] * left
    while nodes and not search.deadline.expired:
        going = []
        for draft in guide.write(search, nodes):
            if draft.ending in OVER:
                left -= 1
                yield draft
            elif draft.ending is None:
                going.append(draft)
        if not going or search.deadline.expired:
            return
        going = guide.competing(in_order(going))
        counts = shared_out(guide.scores(search, going), left, balance)
        nodes = [draft for draft, count in zip(going, counts, strict=True) for _ in range(count)]


def shared_out(scores: Sequence[float], total: int, balance: float) -> list[int]:
    """Whole numbers that sum to `total`, nearest to the softmax of scores / balance; without any score, even ones."""
    highest = max(scores)
    if highest == -math.inf:
        weights = [1.0] * len(scores)
    else:
        weights = [math.exp((score - highest) / balance) for score in scores]
    shares = [total * weight / sum(weights) for weight in weights]
    counts = [math.floor(share) for share in shares]
    most_missing = sorted(range(len(shares)), key=lambda place: (counts[place] - shares[place], place))
    for place in most_missing[: total - sum(counts)]:
        counts[place] += 1
    return counts
