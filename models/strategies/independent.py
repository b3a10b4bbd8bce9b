"""`independent`: samples that know nothing of one another, as without any strategy."""

from collections.abc import Iterator

from harness.running.drafts import Draft
from harness.running.strategies import Search


def independent(search: Search) -> Iterator[Draft]:
    """Every sample by itself, as without a strategy; to compare with, and to begin one's own from."""
    yield from search.extend([search.begin()] * search.samples)
