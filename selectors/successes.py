"""How many of a random k-subset are correct: what G-Pass@k, mG-Pass@k and pass^k are made of."""

from typing import TYPE_CHECKING

from .subsets import hypergeometric

if TYPE_CHECKING:
    import numpy as np


def at_least(n: int, correct: int, k: int) -> "np.ndarray":
    """(k + 2,) P(at least m of a random k-subset are correct) for m = 0 .. k + 1: hypergeometric upper tails."""
    import numpy as np

    chances = np.zeros(k + 2)
    drawn = hypergeometric(n, correct, k)
    chances[: len(drawn)] = drawn
    return np.minimum(np.cumsum(chances[::-1])[::-1], 1.0)
