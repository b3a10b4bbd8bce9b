"""`coverage`: is there a correct answer among the candidates? An upper bound for every selector (pass@k)."""

from harness.nouns import Graded, Selector


def coverage() -> Selector:
    """The unbiased pass@k: the share of k-subsets that hold at least one correct candidate."""
    return Selector("coverage", expected=pass_at_k)


def pass_at_k(graded: Graded, k: int) -> float:
    """1 - C(n - c, k) / C(n, k) for c correct of n, as a product that never overflows (Chen et al., arXiv 2107.03374).

    Raises ValueError when `k` is not between 1 and n.
    """
    n, c = len(graded.correct), sum(graded.correct)
    if not 1 <= k <= n:
        raise ValueError(f"pass@k wants 1 <= k <= {n}, got {k}")
    missed = 1.0
    for i in range(n - c + 1, n + 1):
        missed *= max(0.0, 1 - k / i)
    return 1.0 - missed
