r"""`dvts`: diverse verifier tree search, several small beam searches that never compete with one another.

As in huggingface/search-and-learn (Beeching et al., "Scaling test-time compute with open models"): n / width trees,
each of which goes on with the best of `width` continuations at every step.
"""

from collections.abc import Iterator
from typing import Literal

from harness.running.drafts import Draft
from harness.running.strategies import OutOfTime, Search, Strategy

from .guiding import OVER, Guide, check_at_least_one, guide_of, in_order


def dvts(
    *,
    width: int = 4,
    separator: str = "\\n",
    aggregate: Literal["last", "min", "prod", "mean"] = "last",
) -> Strategy:
    r"""Diverse verifier tree search: independent trees, each greedy by a process reward model.

    Args:
        width: continuations of each tree's step; the samples asked for over this are the trees.
        separator: where a step ends, `\n` and `\n\n` as typed.
        aggregate: what is made of the scores of a reply's steps.

    Raises UserError for an option that means nothing.
    """
    check_at_least_one(width=width)
    guide = guide_of(separator, aggregate, 0, False)

    def search_trees(search: Search) -> Iterator[Draft]:
        return search_with(search, guide, width)

    return Strategy("dvts", search_trees, reads_scores=True)


def search_with(search: Search, guide: Guide, width: int) -> Iterator[Draft]:
    """Grow every tree step by step. A tree ends with the reply that its best continuation is, and its equals.

    One that the deadline cuts has what it passed over: the last reply of it that had ended without being the best.
    """
    width = min(width, search.samples)
    trees = dict.fromkeys(range(search.samples // width), search.begin())
    passed_over: dict[int, Draft] = {}
    try:
        while trees and not search.deadline.expired:
            drafts = in_order(guide.write(search, [trees[tree] for tree in trees for _ in range(width)]))
            families = families_of(drafts, list(trees), width)
            whole = {tree: family for tree, family in families.items() if is_whole(family, width)}
            for tree, family in families.items():
                passed_over.update((tree, draft) for draft in family if draft.ending in OVER)
            everyone = [draft for family in whole.values() for draft in family]
            scores = dict(zip(everyone, guide.scores(search, everyone), strict=True))
            for tree, family in whole.items():
                best = trees[tree] = max(family, key=scores.__getitem__)
                if best.ending is not None:
                    del trees[tree]
                    passed_over.pop(tree, None)
                    yield best
                    yield from (one for one in family if one.ending in OVER and one is not best)
            if len(whole) < len(families):
                break
    except OutOfTime:
        yield from passed_over.values()
        raise
    yield from passed_over.values()


def families_of(drafts: list[Draft], trees: list[int], width: int) -> dict[int, list[Draft]]:
    """The continuations of each tree; the place of a draft's stream says whose it is."""
    families: dict[int, list[Draft]] = {tree: [] for tree in trees}
    for draft in drafts:
        families[trees[draft.stream // width]].append(draft)
    return families


def is_whole(family: list[Draft], width: int) -> bool:
    """Whether no deadline cut a continuation."""
    return len(family) == width and all(draft.ending != "deadline" for draft in family)
