"""`cascade`: a fast model first, and the model of the bench where the fast one's vote is unsure.

As in language-model cascades by the consistency of answers (Yue et al., arXiv 2310.03094).
"""

from collections.abc import Iterator

from harness import plugins
from harness.errors import UserError
from harness.nouns import Model
from harness.running.drafts import Draft
from harness.running.strategies import Search, Strategy

from .guiding import check_at_least_one
from .voting import standing


def cascade(
    *, fast: str, engine: str = "", fast_samples: int = 8, agreement: float = 0.6, slow_samples: int = 0
) -> Strategy:
    """Ask a fast model; where too few of its samples agree, ask the model of the bench, whose samples then count alone.

    Args:
        fast: the fast model, as MODEL is written.
        engine: its engine; the default is chosen from the checkpoint.
        fast_samples: samples of the fast model, at most as many as are asked for.
        agreement: the share of them that must have one answer for it to stand.
        slow_samples: samples of the model of the bench; 0 takes as many as are asked for.

    Raises UserError for an option that means nothing, or when there is no such model.
    """
    check_at_least_one(fast_samples=fast_samples)
    if not 0 < agreement <= 1:
        raise UserError(f"agreement must lie above 0 and at most 1, got {agreement:g}")
    if slow_samples < 0:
        raise UserError(f"slow_samples must not be negative, got {slow_samples}; 0 takes as many as are asked for")
    own = not plugins.names_checkpoint(fast)
    model = plugins.load_model(fast, "" if own else engine or plugins.default_engine(fast))

    def ask_both(search: Search) -> Iterator[Draft]:
        return ask(search, model, fast_samples, agreement, slow_samples or search.samples)

    return Strategy("cascade", ask_both, replays=False, models=(model,))


def ask(search: Search, fast: Model, fast_samples: int, agreement: float, slow_samples: int) -> Iterator[Draft]:
    """The samples of one of the two; the fast one's too where the deadline leaves the other none."""
    quick = search.on(fast)
    count = min(fast_samples, search.samples)
    first = [draft for draft in quick.extend([quick.begin()] * count) if draft.ending != "deadline"]
    votes, _ = standing(search.classes(first))
    if votes >= agreement * count or search.deadline.expired:
        yield from first
        return
    found = 0
    for draft in search.extend([search.begin()] * min(slow_samples, search.samples)):
        if draft.ending != "deadline":
            found += 1
            yield draft
    if not found:
        yield from first
