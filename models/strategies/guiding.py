r"""What the searches that a process reward model guides have in common: they write a step, score it and keep the best.

A step ends at a separator. One that is rejected early (arXiv 2508.01969) is scored after its first tokens, and only
those that are kept are written to their end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.errors import UserError
from harness.running.drafts import Draft
from harness.running.strategies import Extension, Search

OVER = ("stop", "length", "error")
"""How a reply ends that no deadline cut."""


def unescaped(text: str) -> str:
    r"""A text as it is typed on a command line, where `\n` stands for a newline."""
    return text.replace("\\n", "\n")


@dataclass(frozen=True, slots=True)
class Guide:
    """How steps are written and compared.

    Attributes:
        separator: where a step ends.
        aggregate: what is made of the scores of a reply's steps, see `Search.score`.
        early_tokens: score a step after so many tokens; 0 waits for its end.
        deduplicate: of drafts with one text, only the first competes.
    """

    separator: str
    aggregate: str
    early_tokens: int
    deduplicate: bool

    def write(self, search: Search, drafts: Sequence[Draft]) -> Extension:
        """One step more of every draft, or its beginning, as they come; streams are the places in `drafts`."""
        return search.extend(drafts, stop=(self.separator,), max_tokens=self.early_tokens or None)

    def scores(self, search: Search, drafts: Sequence[Draft]) -> list[float]:
        """One number for each; a text that several have is scored once. Raises OutOfTime."""
        distinct = list({draft.text: draft for draft in drafts}.values())
        found = dict(zip((one.text for one in distinct), search.score(distinct, self.aggregate), strict=True))
        return [found[draft.text] for draft in drafts]

    def competing(self, drafts: Sequence[Draft]) -> list[Draft]:
        """The drafts that compete: of those with one text the first, unless doubles are wanted."""
        first: dict[str, Draft] = {}
        return [draft for draft in drafts if first.setdefault(draft.text, draft) is draft or not self.deduplicate]

    def best(self, search: Search, drafts: Sequence[Draft], count: int) -> list[Draft]:
        """The `count` best, the best one first; of equals that of the lower stream."""
        competing = self.competing(in_order(drafts))
        scores = self.scores(search, competing)
        order = sorted(range(len(competing)), key=lambda place: -scores[place])
        return [competing[place] for place in order[:count]]

    def is_begun(self, draft: Draft) -> bool:
        """Whether only the beginning of its last step has been written."""
        piece = draft.pieces[-1]
        return draft.ending is None and self.separator not in piece.text

    def complete(self, search: Search, drafts: Sequence[Draft]) -> list[Draft]:
        """The drafts with their last steps written to the end; those that were whole first."""
        begun = [draft for draft in drafts if self.is_begun(draft)]
        whole = [draft for draft in drafts if not self.is_begun(draft)]
        if not begun or search.deadline.expired:
            return list(drafts)
        rest = search.extend(begun, stop=(self.separator,), streams=[draft.stream for draft in begun])
        return whole + in_order(rest)


def in_order(drafts: Iterable[Draft]) -> list[Draft]:
    """Drafts by their streams, in whatever order they came."""
    return sorted(drafts, key=lambda draft: draft.stream)


def guide_of(separator: str, aggregate: str, early_tokens: int, deduplicate: bool) -> Guide:
    """A guide from options. Raises UserError for those that mean nothing."""
    if not separator:
        raise UserError(r"the separator of steps must not be empty; write for example separator=\n")
    if aggregate not in ("last", "min", "prod", "mean"):
        raise UserError(f"aggregate is last, min, prod or mean, not '{aggregate}'")
    if early_tokens < 0:
        raise UserError(f"early_tokens must not be negative, got {early_tokens}; 0 scores whole steps")
    return Guide(unescaped(separator), aggregate, early_tokens, deduplicate)


def check_at_least_one(**options: int) -> None:
    """Raises UserError for a number below 1."""
    for name, value in options.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")


def spread(beams: Sequence[Draft], count: int) -> list[Draft]:
    """So many continuations shared out among the beams in turn, the best beams first."""
    return [beams[place % len(beams)] for place in range(count)]
