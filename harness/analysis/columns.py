"""What statistics read of a problem's candidates, as numpy columns: no Python object per sample."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, overload

if TYPE_CHECKING:
    import numpy as np

    from harness.nouns import Candidate

Aggregation = Literal["last", "min", "prod", "mean"]
"""How the step scores of one completion become one number."""


@dataclass(frozen=True, slots=True, eq=False)
class StepScores:
    """Step scores of n candidates end to end: those of candidate i are `values[starts[i] : starts[i + 1]]`.

    A candidate without a score has none. `logits` is set when some score of the reward model in the run is negative:
    then they are no weights and no probabilities, and want a sigmoid before they are summed or multiplied.
    """

    values: "np.ndarray"
    starts: "np.ndarray"
    logits: bool = False

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]], logits: bool = False) -> Self:
        """The scores of each candidate, one sequence per candidate."""
        import numpy as np

        starts = np.cumsum([0, *map(len, rows)])
        return cls(np.array([score for row in rows for score in row], float), starts, logits)

    def take(self, places: "np.ndarray") -> "StepScores":
        """The scores of the candidates at these places, in this order."""
        import numpy as np

        lengths = np.diff(self.starts)[places]
        starts = np.concatenate(([0], np.cumsum(lengths)))
        inside = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        return StepScores(self.values[np.repeat(self.starts[places], lengths) + inside], starts, self.logits)

    def row(self, place: int) -> tuple[float, ...]:
        """The step scores of one candidate."""
        return tuple(self.values[self.starts[place] : self.starts[place + 1]].tolist())

    def ranks(self, how: Aggregation) -> "np.ndarray":
        """One number per candidate to choose the largest of: (n,), NaN without a score.

        A product of logits has no meaning, so `prod` multiplies their sigmoids; the others leave them raw.
        """
        return aggregated(self.values if how != "prod" else self.positive(), self.starts, how)

    def weights(self, how: Aggregation) -> "np.ndarray":
        """One positive number per candidate to sum: (n,), NaN without a score. Logits pass through a sigmoid."""
        return aggregated(self.positive(), self.starts, how)

    def positive(self) -> "np.ndarray":
        """The step scores as they are, or their sigmoids when they are logits."""
        from scipy.special import expit

        return expit(self.values) if self.logits else self.values


def aggregated(values: "np.ndarray", starts: "np.ndarray", how: Aggregation) -> "np.ndarray":
    """The last, least, product or mean of each run of `values` between consecutive `starts`; NaN for an empty one."""
    import numpy as np

    lengths = np.diff(starts)
    out = np.full(len(lengths), np.nan)
    some = lengths > 0
    begins = starts[:-1][some]
    if not len(begins):
        return out
    if how == "last":
        out[some] = values[starts[1:][some] - 1]
    else:
        combine = {"min": np.minimum, "prod": np.multiply, "mean": np.add}[how]
        # Empty runs take no room between the others, so the runs that are there lie end to end.
        out[some] = combine.reduceat(values, begins) / (lengths[some] if how == "mean" else 1)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Columns over the candidates of one problem, each (n,).

    `classes` numbers the classes of equivalent answers, -1 for no answer; `finished_s` is infinite or NaN where a
    candidate never finished or the time was not recorded.
    """

    sample_index: "np.ndarray"
    classes: "np.ndarray"
    completion_tokens: "np.ndarray"
    finished_s: "np.ndarray"
    scores: StepScores | None = None

    def take(self, places: "np.ndarray") -> "Columns":
        """The rows at these places."""
        return Columns(
            self.sample_index[places],
            self.classes[places],
            self.completion_tokens[places],
            self.finished_s[places],
            self.scores and self.scores.take(places),
        )


def columns_of(candidates: "Sequence[Candidate]") -> Columns:
    """The columns of candidates that are there as objects."""
    import numpy as np

    scored = any(one.scores for one in candidates)
    logits = any(one.scores_are_logits for one in candidates)
    return Columns(
        np.array([one.sample_index for one in candidates], int),
        np.array([-1 if one.answer_class is None else one.answer_class for one in candidates], int),
        np.array([one.completion_tokens for one in candidates], int),
        np.array([one.finished_s for one in candidates], float),
        StepScores.of([one.scores for one in candidates], logits) if scored else None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Picked(Sequence["Candidate"]):
    """Some of a sequence of candidates, looked up only when they are asked for."""

    source: "Sequence[Candidate]"
    places: "np.ndarray"

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> "Candidate": ...
    @overload
    def __getitem__(self, place: slice) -> "Picked": ...
    def __getitem__(self, place: int | slice) -> "Candidate | Picked":
        if isinstance(place, slice):
            return Picked(self.source, self.places[place])
        return self.source[int(self.places[place])]

    def __iter__(self) -> "Iterator[Candidate]":
        return (self.source[int(place)] for place in self.places)
