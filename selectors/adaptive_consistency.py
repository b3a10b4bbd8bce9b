"""`adaptive_consistency`: vote until the leading answer is likely to be the majority (Aggarwal et al., 2305.11860)."""

import functools
from typing import TYPE_CHECKING

from harness.nouns import Selector

from .majority import commonest
from .tallies import standings

if TYPE_CHECKING:
    import numpy as np


def adaptive_consistency(confidence: float = 0.95) -> Selector:
    """Stop when the leading answer is commoner than the next one with this probability, under a uniform prior."""

    def stop(classes: "np.ndarray", asked: int) -> int:
        return waits(classes, asked, confidence)

    return Selector("adaptive_consistency", commonest, stop=stop)


def waits(classes: "np.ndarray", asked: int, confidence: float) -> int:
    """How many candidates are waited for: all that were asked for when the vote stays close."""
    for now in standings(classes):
        if now.leader > now.runner_up and leads(now.leader, now.runner_up) >= confidence:
            return now.seen
    return asked


@functools.lru_cache(maxsize=65536)
def leads(leader: int, runner_up: int) -> float:
    """P(p > 1/2) for p ~ Beta(leader + 1, runner_up + 1): the leader is really the commoner of the two."""
    from scipy.special import betainc

    return float(betainc(runner_up + 1, leader + 1, 0.5))
