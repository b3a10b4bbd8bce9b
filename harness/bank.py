"""A run as statistics see it: per problem the candidates, their verdicts, and where each lies on every axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.nouns import Candidate, Graded
from harness.runs import Run

Positions = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Item:
    """One problem of a run.

    `graded` holds one entry for each sample that was asked for, in order of sample index; `positions[axis][i]` is what
    had been spent on the axis when candidate i finished: infinite when the deadline cut it, NaN when it is not
    recorded.
    """

    problem_id: str
    prompt: str
    graded: Graded
    positions: Positions


def load_bank(run: Run, reward_model: str | None = None) -> list[Item]:
    """Read a run into items, in task order. Samples that never started stand as candidates without an answer."""
    verdicts = {(row["problem_id"], row["sample_index"]): row for row in run.verdicts()}
    scores = {
        (row["problem_id"], row["sample_index"]): tuple(row["scores"])
        for row in run.scores()
        if reward_model in (None, row["reward_model"])
    }
    problems = run.problems()
    rows_of: dict[str, list[dict[str, Any]]] = {problem["problem_id"]: [] for problem in problems}
    for row in run.completions():
        rows_of[row["problem_id"]].append(row)
    scopes = (
        [[row for rows in rows_of.values() for row in rows]]
        if run.spec.get("protocol") == "throughput"
        else list(rows_of.values())
    )
    spent = {key: place for rows in scopes for key, place in positions_in(rows).items()}
    samples = run.spec["samples"]
    return [item_of(problem, rows_of[problem["problem_id"]], samples, verdicts, scores, spent) for problem in problems]


def item_of(
    problem: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    samples: int,
    verdicts: Mapping[tuple[str, int], Mapping[str, Any]],
    scores: Mapping[tuple[str, int], tuple[float, ...]],
    spent: Mapping[tuple[str, int], tuple[float, float, float]],
) -> Item:
    """Put one problem's rows, verdicts and scores together."""
    by_index = {row["sample_index"]: row for row in rows}
    candidates, correct, places = [], [], []
    for index in range(samples):
        key = (problem["problem_id"], index)
        row, verdict = by_index.get(index), verdicts.get(key)
        candidates.append(candidate_of(index, row, verdict, scores.get(key, ())))
        correct.append(verdict is not None and verdict["verdict"] == "correct")
        places.append(spent.get(key, (math.inf,) * 3))
    seconds, flops, tokens = zip(*places, strict=True)
    positions = {"seconds": seconds, "flops": flops, "tokens": tokens}
    return Item(problem["problem_id"], problem["prompt"], Graded(tuple(candidates), tuple(correct)), positions)


def candidate_of(
    index: int, row: Mapping[str, Any] | None, verdict: Mapping[str, Any] | None, scores: tuple[float, ...]
) -> Candidate:
    """One candidate; a sample that never started has no text and no answer."""
    if row is None:
        return Candidate(index, "", None, None, 0, math.inf)
    answer, answer_class = (verdict["answer"], verdict["answer_class"]) if verdict else (None, None)
    return Candidate(
        index, row["text"], answer, answer_class, row["completion_tokens"], row["finished_s"], row["logprob"], scores
    )


def positions_in(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], tuple[float, float, float]]:
    """Seconds, FLOPs and tokens that one scope had spent when each of its completions finished.

    At the moment a row finishes, the rows decoded beside it have spent work too; a row's decode work is taken to grow
    evenly between its first token and its end, which is exact for rows that step together.
    """
    import numpy as np

    if not rows:
        return {}

    def columns(*names: str) -> list[Any]:
        return [np.array([math.nan if row[name] is None else row[name] for row in rows], float) for name in names]

    started, first, finished, tokens = columns("started_s", "first_token_s", "finished_s", "completion_tokens")
    prefill, decode = columns("prefill_flops", "decode_flops")
    first = np.where(np.isnan(first), finished, first)
    spans = np.maximum(finished - first, 1e-12)
    order = np.argsort(finished, kind="stable")
    spent = np.full((len(rows), 3), np.nan)
    for start in range(0, len(rows), 256):
        some = order[start : start + 256]
        now = finished[some, None]
        share = np.where(now >= finished, 1.0, np.clip((now - first) / spans, 0.0, 1.0))
        spent[some, 0] = finished[some]
        spent[some, 1] = share @ decode + (now >= started) @ prefill
        spent[some, 2] = share @ tokens
    cut = [row["finish_reason"] in ("deadline", "error") for row in rows]
    spent[np.isnan(finished)] = np.nan
    spent[cut] = np.inf
    return {
        (row["problem_id"], row["sample_index"]): (float(place[0]), float(place[1]), float(place[2]))
        for row, place in zip(rows, spent, strict=True)
    }
