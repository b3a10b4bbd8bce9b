r"""`budget_forcing`: think on when the model would stop, and answer when the budget ends.

Muennighoff et al., "s1: Simple test-time scaling" (arXiv 2501.19393): where a model ends its reply, the end is taken
away and "Wait" put in its place; where a thought is at its limit it is closed and the answer asked for.
"""

from collections import Counter
from collections.abc import Iterator

from harness.errors import UserError
from harness.running.drafts import Draft
from harness.running.strategies import Extension, Search, Strategy

from .closing import Closing, closing_of
from .guiding import unescaped


def budget_forcing(
    *,
    waits: int = 1,
    wait: str = "\\nWait",
    think_tokens: int = 0,
    close: str = "\\nThe answer is \\boxed{",
    until: str = "}",
    answer_tokens: int = 16,
    reserve: float = 0.1,
) -> Strategy:
    r"""Let every sample think on a number of times, and force its answer at the end of its tokens or of the budget.

    Args:
        waits: how often a sample that ends is made to go on.
        wait: what is put in the place of its end, `\n` as typed.
        think_tokens: tokens of thought after which the answer is forced; 0 goes by the length limit.
        close: what is put behind a thought that is to answer.
        until: where the answer ends.
        answer_tokens: the longest answer.
        reserve: the share of the budget that is kept for forced answers.

    Raises UserError for an option that means nothing.
    """
    if waits < 0 or think_tokens < 0:
        raise UserError(f"waits and think_tokens must not be negative, got {min(waits, think_tokens)}")
    closing = closing_of(close, until, answer_tokens, reserve)

    def search_on(search: Search) -> Iterator[Draft]:
        return force(search, closing, waits, unescaped(wait), think_tokens)

    return Strategy("budget_forcing", search_on, replays=False)


def force(search: Search, closing: Closing, waits: int, wait: str, think_tokens: int) -> Iterator[Draft]:
    """Every sample on its own stream; a reply that was whole before it was made to go on is kept as long as needed."""
    whole: dict[int, Draft] = {}
    thoughts: dict[int, Draft] = {}
    with search.holding_back(closing.reserve):
        chains = search.extend([search.begin()] * search.samples, max_tokens=think_tokens or None)
        yield from think(chains, whole, thoughts, waits, wait, think_tokens)
    for draft in closing.answers(search, [one for stream, one in thoughts.items() if whole.get(stream) is not one]):
        if draft.ending != "deadline":
            del thoughts[draft.stream]
            yield draft
    yield from (whole[stream] for stream in thoughts if stream in whole)


def think(
    chains: Extension, whole: dict[int, Draft], thoughts: dict[int, Draft], waits: int, wait: str, think_tokens: int
) -> Iterator[Draft]:
    """Replies that have ended as often as they should; others end in `thoughts`, what they had been in `whole`."""
    waited: Counter[int] = Counter()
    for draft in chains:
        stream = draft.stream
        if draft.ending == "stop" and waited[stream] < waits and not 0 < think_tokens <= draft.tokens:
            whole[stream] = thoughts[stream] = draft
            waited[stream] += 1
            chains.add(draft.plus(wait), max_tokens=think_tokens - draft.tokens if think_tokens else None)
        elif draft.ending in ("stop", "error"):
            thoughts.pop(stream, None)
            yield draft
        else:
            thoughts[stream] = draft
