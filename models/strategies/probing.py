r"""`probing`: what would the answer be now? Thoughts that the deadline would cut are closed a little before it.

As hao-ai-lab/Dynasor probes thoughts for their answers, here once: in a slice of the budget that is kept for it.
"""

from collections.abc import Iterator

from harness.running.drafts import Draft
from harness.running.strategies import Search, Strategy

from .budget_forcing import force
from .closing import closing_of


def probing(
    *,
    close: str = "\\nThe answer is \\boxed{",
    until: str = "}",
    answer_tokens: int = 16,
    reserve: float = 0.1,
) -> Strategy:
    r"""Independent samples, of which those that the deadline would cut are asked for their answers before it.

    Args:
        close: what is put behind a thought that is to answer, `\n` as typed.
        until: where the answer ends.
        answer_tokens: the longest answer.
        reserve: the share of the budget that is kept for these answers.

    Raises UserError for an option that means nothing.
    """
    closing = closing_of(close, until, answer_tokens, reserve)

    def probe(search: Search) -> Iterator[Draft]:
        return force(search, closing, 0, "", 0)

    return Strategy("probing", probe, replays=False)
