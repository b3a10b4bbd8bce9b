"""A run as statistics see it: per problem the candidates, their verdicts, and where each lies on every axis."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

from harness.analysis.columns import Columns, StepScores
from harness.analysis.positions import Positions, charged_positions, generation_positions
from harness.analysis.recorded import Recorded, read_recorded
from harness.nouns import Candidate, Graded
from harness.storage.records import COMPLETIONS, VERDICTS, read_parts
from harness.storage.runs import Run

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Item:
    """One problem of a run.

    `graded` holds one entry for each sample that was asked for, in order of sample index; `positions[axis][i]` is what
    generation had spent on the axis when candidate i finished: infinite when the deadline cut it, NaN when it is not
    recorded. For each reward model, `scores` holds what it said and `charged` the positions at which a candidate is
    available to its selectors, the model's own time and FLOPs counted. `shared_clock` says that all problems of the run
    were in flight at once, on one clock.
    """

    problem_id: str
    prompt: str
    graded: Graded
    positions: Positions
    charged: Mapping[str, Positions] = field(default_factory=dict)
    scores: Mapping[str, StepScores] = field(default_factory=dict)
    shared_clock: bool = False

    def seen_by(self, reward_model: str, charged: bool = True) -> "Item":
        """The item as a score-reading selector sees it: with this reward model's scores, its cost counted or not."""
        scores = self.scores[reward_model]
        columns = replace(self.graded.columns, scores=scores)
        graded = Graded(Scored(self.graded.candidates, scores), self.graded.correct, columns)
        return replace(self, graded=graded, positions=self.charged[reward_model] if charged else self.positions)


@dataclass(frozen=True, slots=True, eq=False)
class Scored(Sequence[Candidate]):
    """Candidates with the scores of one reward model put in when they are looked at."""

    source: Sequence[Candidate]
    scores: StepScores

    def __len__(self) -> int:
        return len(self.source)

    @overload
    def __getitem__(self, place: int) -> Candidate: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, place: int | slice) -> Candidate | Sequence[Candidate]:
        if isinstance(place, slice):
            return [self[i] for i in range(len(self))[place]]
        return replace(self.source[place], scores=self.scores.row(place), scores_are_logits=self.scores.logits)


class Texts:
    """The texts and answers of a run, read when a selector first asks for a candidate, kept as Arrow columns."""

    def __init__(self, run: Run, recorded: Recorded) -> None:
        self.run, self.recorded = run, recorded
        self.tables: tuple[pa.Table, pa.Table] | None = None
        self.latest: tuple[int, tuple[Candidate, ...]] = (-1, ())

    def candidates(self, problem: int) -> tuple[Candidate, ...]:
        """The candidates of one problem; those of the problem asked for last stay in memory."""
        if self.latest[0] != problem:
            self.latest = (problem, tuple(self.read(problem)))
        return self.latest[1]

    def read(self, problem: int) -> Iterator[Candidate]:
        """Build the candidates of one problem; a sample that never started has no text and no answer."""
        if self.tables is None:
            self.tables = (
                read_parts(self.run.path / "completions", COMPLETIONS, ["text", "logprob"]),
                read_parts(self.run.path / "verdicts", VERDICTS, ["answer"]),
            )
        own = self.recorded
        rows = slice(own.starts[problem], own.starts[problem + 1])
        texts = values_at(self.tables[0], "text", own.completion_row[rows])
        logprobs = values_at(self.tables[0], "logprob", own.completion_row[rows])
        answers = values_at(self.tables[1], "answer", own.verdict_row[rows])
        columns = columns_in(own, rows)
        for i, (text, answer, logprob) in enumerate(zip(texts, answers, logprobs, strict=True)):
            answer_class = None if columns.classes[i] < 0 else int(columns.classes[i])
            yield Candidate(
                int(columns.sample_index[i]), text or "", answer, answer_class, int(columns.completion_tokens[i]),
                float(columns.finished_s[i]), logprob,
            )  # fmt: skip


def values_at(table: "pa.Table", name: str, rows: "np.ndarray") -> list[Any]:
    """The column's values at these rows, None where the row is -1."""
    import pyarrow as pa

    values: list[Any] = table[name].take(pa.array(rows, mask=rows < 0)).to_pylist()
    return values


@dataclass(frozen=True, slots=True, eq=False)
class StoredCandidates(Sequence[Candidate]):
    """The candidates of one problem, read from disk when one is looked at."""

    texts: Texts
    problem: int
    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, place: int) -> Candidate: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Candidate, ...]: ...
    def __getitem__(self, place: int | slice) -> Candidate | tuple[Candidate, ...]:
        return self.texts.candidates(self.problem)[place]


def columns_in(recorded: Recorded, rows: slice, scores: StepScores | None = None) -> Columns:
    """The columns of some rows; what was cut, failed or never begun never finishes."""
    import numpy as np

    there = recorded.there[rows]
    return Columns(
        recorded.sample_index[rows],
        recorded.classes[rows],
        np.where(there, np.nan_to_num(recorded.numbers["completion_tokens"][rows]), 0).astype(int),
        np.where(recorded.cut[rows], np.inf, recorded.numbers["finished_s"][rows]),
        scores,
    )


def load_bank(run: Run) -> list[Item]:
    """Read a run into items, in task order. Samples that never started stand as candidates without an answer.

    A run with exactly one reward model shows its scores to every selector; with several only `Item.seen_by` does.

    Raises UserError when the run has no completions yet.
    """
    return items_of(run, read_recorded(run))


def items_of(run: Run, recorded: Recorded) -> list[Item]:
    """The items of a run that was read."""
    shared = run.spec.get("protocol") == "throughput"
    positions, charged = all_positions(recorded, shared)
    texts = Texts(run, recorded)
    prompts = {row["problem_id"]: row["prompt"] for row in run.problems()}
    items = []
    for i, name in enumerate(recorded.problem_ids):
        rows = slice(recorded.starts[i], recorded.starts[i + 1])
        scores = {key: part_of(rewards.scores, rows) for key, rewards in recorded.rewards.items()}
        only = next(iter(scores.values())) if len(scores) == 1 else None
        candidates: Sequence[Candidate] = StoredCandidates(texts, i, rows.stop - rows.start)
        graded = Graded(
            Scored(candidates, only) if only else candidates, recorded.correct[rows], columns_in(recorded, rows, only)
        )
        own = {axis: places[rows] for axis, places in positions.items()}
        by_model = {key: {axis: places[rows] for axis, places in every.items()} for key, every in charged.items()}
        items.append(Item(name, prompts[name], graded, own, by_model, scores, shared))
    return items


def part_of(scores: StepScores, rows: slice) -> StepScores:
    """The scores of consecutive rows."""
    starts = scores.starts[rows.start : rows.stop + 1]
    return StepScores(scores.values[starts[0] : starts[-1]], starts - starts[0], scores.logits)


def all_positions(
    recorded: Recorded, shared_clock: bool
) -> "tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]":
    """The positions of all rows, by generation and charged by each reward model; each scope has its own clock."""
    import numpy as np

    n = len(recorded.sample_index)
    bounds = [0, n] if shared_clock else recorded.starts
    generated = {axis: np.full(n, np.inf) for axis in ("seconds", "flops", "tokens")}
    charged = {name: {axis: np.full(n, np.inf) for axis in generated} for name in recorded.rewards}
    for start, stop in itertools.pairwise(bounds):
        some = np.arange(start, stop)
        own = generation_positions(recorded, some)
        for axis, places in own.items():
            generated[axis][some] = places
        for name, rewards in recorded.rewards.items():
            for axis, places in charged_positions(own, rewards, some).items():
                charged[name][axis][some] = places
    return generated, charged
