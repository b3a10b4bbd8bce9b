"""Who finished when, as ranks: what first-finish and last-finish search choose by."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.nouns import Candidate, Choice, Graded, Prompt

if TYPE_CHECKING:
    import numpy as np


def finish_ranks(graded: Graded, latest: bool) -> "np.ndarray":
    """(n,) greater for what is preferred; NaN for what never finished, equal for times that were not recorded."""
    import numpy as np

    times = np.nan_to_num(graded.finished_s, nan=0.0, posinf=np.inf)
    return np.where(np.isinf(times), np.nan, times if latest else -times)


def everyone(prompt: Prompt, candidates: Sequence[Candidate]) -> Choice | None:
    """All that are given, equally good."""
    return Choice(tuple(candidates)) if candidates else None
