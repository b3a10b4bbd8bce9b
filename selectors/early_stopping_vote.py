"""`early_stopping_vote`: stop when the candidates yet to come cannot, or are unlikely to, change the vote."""

import functools
from typing import TYPE_CHECKING

from harness.nouns import Selector

from .majority import commonest, expected_majority
from .tallies import standings

if TYPE_CHECKING:
    import numpy as np


def early_stopping_vote(risk: float = 0.0) -> Selector:
    """The majority, waiting for no more candidates than it takes; with `risk` 0 its answer is always the majority's.

    With a risk above 0 it stops as soon as a change of the vote is at most that likely.
    """

    def stop(classes: "np.ndarray", asked: int) -> int:
        return waits(classes, asked, risk)

    return Selector("early_stopping_vote", commonest, expected_majority if risk == 0 else None, stop=stop)


def waits(classes: "np.ndarray", asked: int, risk: float) -> int:
    """How many candidates are waited for before the vote is settled."""
    for now in standings(classes):
        left = asked - now.seen
        settled = now.leader - now.runner_up > left
        if settled or (now.leader > now.runner_up and turns(now.leader, now.runner_up, left) <= risk):
            return now.seen
    return asked


@functools.lru_cache(maxsize=65536)
def turns(leader: int, runner_up: int, left: int) -> float:
    """P(the next answer draws level or ahead), were all that is left to vote for one of the two.

    The votes to come follow from those seen, under a uniform prior: they are beta-binomial.
    """
    import numpy as np
    from scipy.special import betaln

    gained = np.arange((left + leader - runner_up + 1) // 2, left + 1)
    choices = -np.log(left + 1) - betaln(gained + 1, left - gained + 1)
    chances = choices + betaln(gained + runner_up + 1, left - gained + leader + 1) - betaln(runner_up + 1, leader + 1)
    return float(np.exp(chances).sum())
