"""A run problem by problem: each with its completions, their verdicts and their scores; few are in memory at once."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from harness.storage.runs import Run

AT_ONCE = 131072
"""Completions that are read from disk at once; only one problem's become Python objects."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion: its stored row, its verdict (None: not graded), and the step scores by reward model."""

    row: Mapping[str, Any]
    verdict: Mapping[str, Any] | None
    scores: Mapping[str, Sequence[float]]

    @property
    def is_correct(self) -> bool:
        """Whether the grader said correct."""
        return self.outcome == "correct"

    @property
    def outcome(self) -> str | None:
        """What the grader said."""
        return None if self.verdict is None else str(self.verdict["verdict"])

    @property
    def answer(self) -> str | None:
        """The extracted answer."""
        return None if self.verdict is None else self.verdict["answer"]

    @property
    def as_recorded(self) -> dict[str, Any]:
        """What `ttc import` reads back: a row of our own form, less what is the problem's."""
        own = {name: self.row[name] for name in ("sample_index", "finish_reason", "prompt_tokens", "completion_tokens")}
        if math.isfinite(self.row["finished_s"]):
            own["finished_s"] = self.row["finished_s"]
        if self.verdict is not None:
            own["answer"] = self.answer
        if self.outcome in ("correct", "wrong"):
            own["correct"] = self.is_correct
        if len(self.scores) == 1:
            own["reward"] = list(next(iter(self.scores.values())))
        return own


def each_problem(run: Run) -> Iterator[tuple[dict[str, Any], list[Sample]]]:
    """Every problem in task order with its completions in order of their samples; a problem may have none."""
    problems = run.problems()
    scores: dict[tuple[str, int], dict[str, Sequence[float]]] = {}
    for row in run.scores():
        if row["scores"]:
            scores.setdefault((row["problem_id"], row["sample_index"]), {})[row["reward_model"]] = row["scores"]
    at_once = max(1, AT_ONCE // max(1, int(run.spec["samples"])))
    for some in batches(problems, at_once):
        ids = [problem["problem_id"] for problem in some]
        completions, verdicts = run.rows_of("completions", ids), run.rows_of("verdicts", ids)
        for problem, rows, graded in zip(some, completions, verdicts, strict=True):
            by_index = {row["sample_index"]: row for row in graded}
            ordered = sorted(rows, key=lambda row: row["sample_index"])
            name = problem["problem_id"]
            pairs = [(row, row["sample_index"]) for row in ordered]
            yield problem, [Sample(row, by_index.get(n), scores.get((name, n), {})) for row, n in pairs]


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Consecutive items, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean over problems and its standard error, None where there are not two."""
    if not values:
        return 0.0, None
    return fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def moment(unix_s: float) -> str:
    """A time as ISO 8601 in UTC to the microsecond, without a zone."""
    import numpy as np

    return str(np.datetime64(round(unix_s * 1e6), "us"))


def plain_json(value: Any) -> str:
    """JSON on one line; what JSON does not know is written as text."""
    return json.dumps(value, ensure_ascii=False, default=str)
