"""The problems of a run as the page shows them: prompt, gold, and every completion with its verdict, time and scores.

One problem is in memory at a time; what is not shown of a large run is counted, so that the page can say so.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.storage.records import COMPLETIONS, SCORES, VERDICTS, read_parts
from harness.storage.runs import KEY, Run

LONGEST_TEXT = 20_000
"""Characters of a completion that the page holds; of a longer one the beginning and the end."""

FOLDED_AT = 700
"""About so many characters of a text are seen before the rest is unfolded."""

OUTCOMES = ("correct", "wrong", "unparsed", "no_answer", "timeout")


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion. `text` is None where the page leaves it out."""

    index: int
    verdict: str
    reason: str
    answer: str | None
    answer_class: int | None
    tokens: int
    finished_s: float | None
    finish_reason: str
    scores: Mapping[str, Sequence[float]]
    text: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A class of equivalent answers: its number, first spelling, verdict, and how often it was given."""

    number: int
    text: str
    correct: bool
    count: int


@dataclass(frozen=True, slots=True)
class ArmView:
    """What one run did with a problem."""

    name: str
    samples: Sequence[Sample]
    outcomes: Mapping[str, int]
    answers: Sequence[Answer]
    left_out: int

    @property
    def correct(self) -> int:
        """How many completions are correct."""
        return self.outcomes.get("correct", 0)


@dataclass(frozen=True, slots=True)
class ProblemView:
    """A problem with what every run of the group did with it, and the words a filter finds it by."""

    problem_id: str
    prompt: str
    gold: str
    arms: Sequence[ArmView]
    tags: Sequence[str] = field(default=())


def characters(runs: Sequence[Run]) -> int:
    """How many characters of model text the runs hold, about 300 more for each completion."""
    import pyarrow.compute as pc

    total = 0
    for run in runs:
        table = run.completion_columns("text")
        if len(table):
            total += int(pc.sum(pc.binary_length(table["text"])).as_py() or 0) + 300 * len(table)
    return total


def views(runs: Sequence[Run], names: Sequence[str], texts: int | None = None) -> Iterator[ProblemView]:
    """Yield the problems of runs that share them, in the first run's order.

    `texts` bounds the completions of a problem and run whose texts are kept: each answer's first, then the next of
    each.
    """
    readers = [Reader(run) for run in runs]
    for problem in runs[0].problems() if runs else []:
        arms = [
            arm_view(name, reader.rows(problem["problem_id"]), texts)
            for name, reader in zip(names, readers, strict=True)
        ]
        yield ProblemView(problem["problem_id"], problem["prompt"], problem["gold"], arms, tags_of(arms))


class Reader:
    """Reads the rows of one problem after another from a run's parts."""

    def __init__(self, run: Run) -> None:
        columns = {
            "completions": (COMPLETIONS, [*KEY, "text", "finish_reason", "completion_tokens", "finished_s"]),
            "verdicts": (VERDICTS, [*KEY, "verdict", "reason", "answer", "answer_class"]),
            "scores": (SCORES, [*KEY, "reward_model", "scores"]),
        }
        self.parts = {
            name: by_problem(read_parts(run.path / name, schema, wanted)) for name, (schema, wanted) in columns.items()
        }

    def part(self, name: str, problem_id: str) -> list[dict[str, Any]]:
        """The rows of one problem in one table, in the order of storing."""
        found = self.parts[name].get(problem_id)
        rows: list[dict[str, Any]] = [] if found is None else found.to_pylist()
        return rows

    def rows(self, problem_id: str) -> list[dict[str, Any]]:
        """One row for each completion with its latest verdict and scores, in order of sample index."""
        verdicts = {row["sample_index"]: row for row in self.part("verdicts", problem_id)}
        scores: dict[int, dict[str, list[float]]] = {}
        for row in self.part("scores", problem_id):
            scores.setdefault(row["sample_index"], {})[row["reward_model"]] = row["scores"]
        rows = {row["sample_index"]: row for row in self.part("completions", problem_id)}
        return [rows[index] | verdicts.get(index, {}) | {"scores": scores.get(index, {})} for index in sorted(rows)]


def by_problem(table: Any) -> dict[str, Any]:
    """The rows of each problem as a slice of one sorted table, in the order of storing; no text is copied twice."""
    if not len(table):
        return {}
    encoded = table["problem_id"].combine_chunks().dictionary_encode()
    numbers = encoded.indices.to_numpy()
    sorted_table = table.take(np.argsort(numbers, kind="stable"))
    ends = np.cumsum(np.bincount(numbers, minlength=len(encoded.dictionary)))
    starts = [0, *ends[:-1].tolist()]
    return {
        name: sorted_table.slice(start, end - start)
        for name, start, end in zip(encoded.dictionary.to_pylist(), starts, ends.tolist(), strict=True)
    }


def arm_view(name: str, rows: Sequence[Mapping[str, Any]], texts: int | None) -> ArmView:
    """One run's view of a problem."""
    kept = {row["sample_index"] for row in (rows if texts is None else spread(rows, texts))}
    samples = [sample_of(row, row["sample_index"] in kept) for row in rows]
    outcomes = Counter(sample.verdict for sample in samples)
    return ArmView(name, samples, outcomes, answers_of(samples), len(rows) - len(kept))


def spread(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """The first `count` rows when each answer class gives its first, then each its second, and so on."""
    seen: Counter[Any] = Counter()
    turns = []
    for row in rows:
        turns.append(seen[row.get("answer_class")])
        seen[row.get("answer_class")] += 1
    return [rows[place] for place in sorted(range(len(rows)), key=lambda place: (turns[place], place))[:count]]


def sample_of(row: Mapping[str, Any], with_text: bool) -> Sample:
    """One row as the page shows it."""
    finished = row["finished_s"]
    return Sample(
        index=row["sample_index"],
        verdict=row.get("verdict") or "not graded",
        reason=row.get("reason") or "",
        answer=row.get("answer"),
        answer_class=row.get("answer_class"),
        tokens=row["completion_tokens"],
        finished_s=finished if finished is not None and np.isfinite(finished) else None,
        finish_reason=row["finish_reason"],
        scores=row["scores"],
        text=shortened(row["text"]) if with_text else None,
    )


def shortened(text: str) -> str:
    """The text, or its two ends and how much is missing between them."""
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters are left out here …]\n{text[-half:]}"


def answers_of(samples: Sequence[Sample]) -> list[Answer]:
    """The classes of answers, the commonest first."""
    classes: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.answer is not None and sample.answer_class is not None:
            classes.setdefault(sample.answer_class, []).append(sample)
    found = [
        Answer(number, members[0].answer or "", any(one.verdict == "correct" for one in members), len(members))
        for number, members in classes.items()
    ]
    return sorted(found, key=lambda answer: -answer.count)


def tags_of(arms: Sequence[ArmView]) -> list[str]:
    """What a filter may ask of a problem: how many are right, whether the commonest answer is, what else occurs."""
    solved = [arm.correct for arm in arms]
    total = sum(len(arm.samples) for arm in arms)
    tags = ["none" if not sum(solved) else "all" if sum(solved) == total else "some"]
    tags += sorted({"majority-right" if arm.answers and arm.answers[0].correct else "majority-wrong" for arm in arms})
    tags += ["models-differ"] if len(arms) > 1 and min(solved) == 0 < max(solved) else []
    return tags + [name for name in OUTCOMES if any(arm.outcomes.get(name) for arm in arms)]


def folded(text: str) -> tuple[str, str]:
    """What is seen of a text at once, and the rest; cut at the end of a line or a sentence where there is one."""
    if len(text) <= FOLDED_AT + 200:
        return text, ""
    places = [text.rfind(sign, FOLDED_AT // 2, FOLDED_AT) for sign in ("\n", ". ")]
    cut = max(places) + 1 if max(places) > 0 else FOLDED_AT
    return text[:cut], text[cut:]
