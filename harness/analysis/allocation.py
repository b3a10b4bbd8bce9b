"""More samples for harder problems: how many for each bin of difficulty, chosen on one half and judged on the other.

With the same mean spent per problem, is it better to give every problem k samples or to let k depend on how hard the
problem looks? What each bin is given is chosen by its accuracy on half of the problems and evaluated on the other half,
and the other way round (two-fold cross-validation, Snell et al., arXiv 2408.03314): nothing is chosen on the problems
that it is evaluated on.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.nouns import Graded

if TYPE_CHECKING:
    import numpy as np

BINS = 5
MOST = 2_000_000
"""Ways of giving out samples that are looked at: all of them, as long as they are no more."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """One budget: `k` for every problem, or per bin, with at most the same mean spent on the half it is chosen on.

    `fixed` and `binned` are mean accuracies on problems that had no part in the choice; `spent` is the mean number of
    samples that the bins really took there. `chosen` holds the k of each bin, easiest first, once per fold.
    """

    k: int
    fixed: float
    binned: float
    spent: float
    chosen: tuple[tuple[int, ...], ...]


def agreement(graded: Graded) -> float:
    """How easy a problem looks without its gold: the share of the candidates that gave the commonest answer."""
    import numpy as np

    voted = graded.classes[graded.classes >= 0]
    return float(np.bincount(voted).max()) / len(graded) if len(voted) else 0.0


def allocate(
    values: "np.ndarray", ks: Sequence[int], ease: "np.ndarray", bins: int = BINS, seed: int = 0
) -> tuple[Allocation, ...]:
    """Compare a fixed k with a k per bin of difficulty, for each k of the grid as the mean that may be spent.

    Args:
        values: (problems, len(ks)) each problem's expected accuracy at each k (`curves.values_at_k`).
        ks: The numbers of samples a bin may be given, rising.
        ease: (problems,) greater for easier problems: pass@1 for oracle bins, `agreement` or a mean reward for bins
            that can be known beforehand.
        bins: Quantiles of difficulty.
        seed: Of the split into halves.

    Raises:
        ValueError: when there are fewer than two problems for each bin.
    """
    import numpy as np

    n, sizes = len(values), np.asarray(ks)
    if n < 2 * bins:
        raise ValueError(f"{bins} bins want at least {2 * bins} problems, got {n}")
    # Of equally easy problems chance decides, so that bins are equally large.
    rng = np.random.default_rng(seed)
    rank = np.empty(n, int)
    rank[np.lexsort((rng.random(n), -np.asarray(ease)))] = np.arange(n)
    bin_of = rank * bins // n
    fold_of = np.empty(n, int)
    for number in range(bins):
        members = rng.permutation(np.flatnonzero(bin_of == number))
        fold_of[members] = (np.arange(len(members)) + number) % 2
    ways = ways_of(len(sizes), bins)
    return tuple(one_budget(values, sizes, k, bin_of, fold_of, ways) for k in range(len(sizes)))


def ways_of(sizes: int, bins: int) -> "np.ndarray":
    """(ways, bins) every way to give each bin one of the sizes. Raises ValueError when they are too many."""
    import numpy as np

    if sizes**bins > MOST:
        raise ValueError(
            f"{sizes} sizes for {bins} bins are {sizes**bins} ways, more than {MOST}; take fewer of either"
        )
    return np.array(list(itertools.product(range(sizes), repeat=bins)), np.int16)


def one_budget(
    values: "np.ndarray", sizes: "np.ndarray", budget: int, bin_of: "np.ndarray", fold_of: "np.ndarray",
    ways: "np.ndarray",
) -> Allocation:  # fmt: skip
    """Choose on each fold in turn, evaluate on the other."""
    import numpy as np

    binned = np.empty(len(values))
    spent = np.empty(len(values))
    chosen = []
    for fold in (0, 1):
        best = best_way(values[fold_of == fold], sizes, budget, bin_of[fold_of == fold], ways)
        others = np.flatnonzero(fold_of != fold)
        given = best[bin_of[others]]
        binned[others] = values[others, given]
        spent[others] = sizes[given]
        chosen.append(tuple(int(k) for k in sizes[best]))
    return Allocation(
        int(sizes[budget]), float(values[:, budget].mean()), float(binned.mean()), float(spent.mean()), tuple(chosen)
    )


def best_way(
    values: "np.ndarray", sizes: "np.ndarray", budget: int, bin_of: "np.ndarray", ways: "np.ndarray"
) -> "np.ndarray":
    """The way of the highest accuracy here that spends no more than `budget` would; of equals the cheapest."""
    import numpy as np

    bins = np.arange(ways.shape[1])
    share = np.array([(bin_of == number).mean() for number in bins])
    gains = np.array([values[bin_of == number].mean(axis=0) for number in bins]) * share[:, None]
    costs = (sizes[ways] * share).sum(axis=1)
    accuracy = gains[bins, ways].sum(axis=1)
    affordable = costs <= sizes[budget] * (1 + 1e-9)
    best = np.lexsort((costs, -np.round(accuracy, 12), ~affordable))[0]
    way: np.ndarray = ways[best]
    return way
