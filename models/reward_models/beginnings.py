"""What has been read of a prompt's texts, for texts that go on from there: a guided search scores every step.

Read anew at every step, a solution of n steps costs about n / 2 times its length; going on from where the last score
was read, it costs its length once.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.models.distillation.reward_data import ScoredText

from .trunks import Prefix, common_length

MOST_BYTES = 2 * 2**30
"""Of keys and values that are kept at most; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What of a text is known: its first tokens as they were read, and the scores at places among them."""

    prefix: Prefix
    scores: Mapping[int, float] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of its keys and values."""
        return sum(tensor.numel() * tensor.element_size() for state in self.prefix.states for tensor in state)

    def of(self, text: ScoredText) -> "Begun":
        """The part that another text begins with alike, to before the first of its scores that is not known."""
        alike = min(common_length(self.prefix.token_ids, text.token_ids), len(text.token_ids) - 1)
        end = next((place for place in text.places if place < alike and place not in self.scores), alike)
        return Begun(self.prefix.cut(end), {place: self.scores[place] for place in text.places if place < end})


class Beginnings:
    """Texts of one prompt that have been read."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self.kept: dict[tuple[int, ...], Begun] = {}
        self.ordered: list[tuple[int, ...]] = []
        """The kept texts as a dictionary has them: beside its place stands the one that a text is most alike."""

    def move_to(self, shared: Sequence[int]) -> None:
        """Forget texts that do not begin with a prompt."""
        begun = [one for ids, one in self.kept.items() if ids[: len(shared)] == tuple(shared)]
        if len(begun) < len(self.kept):
            self.kept, self.ordered, self.bytes = {}, [], 0
            self.add(begun)

    def add(self, begun: Sequence[Begun]) -> None:
        """Keep texts, and drop the oldest when they take up too much."""
        for one in begun:
            ids = one.prefix.token_ids
            if ids not in self.kept:
                self.kept[ids] = one
                self.bytes += one.bytes
        while self.bytes > self.most_bytes:
            self.bytes -= self.kept.pop(next(iter(self.kept))).bytes
        self.ordered = sorted(self.kept)

    def of(self, text: ScoredText, shared: Prefix) -> Begun:
        """Where to go on with a text: after the most of it that is known, or after its prompt."""
        place = bisect_left(self.ordered, text.token_ids)
        found = [self.kept[ids].of(text) for ids in self.ordered[max(0, place - 1) : place + 1]]
        best = max(found, key=lambda one: len(one.prefix.token_ids), default=Begun(shared))
        return best if len(best.prefix.token_ids) > len(shared.token_ids) else Begun(shared)
