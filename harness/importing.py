"""Recorded completions become a run. The whole file is read and checked before anything is written.

Our own form is JSON lines, one completion each (DESIGN: interchange): `problem_id`, `gold`, and `text` or `answer`;
optional `sample_index`, `correct`, `reward` (a number or a list of step scores), `completion_tokens`, `prompt_tokens`,
`finished_s`, `finish_reason`, `prompt`. The forms of other tools become such rows in `interchange`.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from harness import plugins
from harness.errors import UserError, choices
from harness.grading import classes_of, verdict_of, verdict_rows
from harness.interchange.forms import read_rows
from harness.nouns import Completion, FinishReason, Task
from harness.storage.locking import writing
from harness.storage.records import parts
from harness.storage.runs import Run, begin_run, make_run

KINDS: dict[str, tuple[type, ...]] = {
    "problem_id": (str,),
    "gold": (str,),
    "text": (str,),
    "answer": (str, type(None)),
    "prompt": (str,),
    "sample_index": (int,),
    "correct": (bool,),
    "reward": (int, float, list),
    "completion_tokens": (int,),
    "prompt_tokens": (int,),
    "finished_s": (int, float),
    "finish_reason": (str,),
}

RECORDED = "recorded"
"""What stands for the reward model of scores that came with their completions."""


def checked_rows(file: Path, form: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where a row stands, and the row. Raises UserError naming the line or sample that is malformed."""
    for where, row in read_rows(file, form):
        yield where, check_row(where, row)


def check_row(where: str, row: dict[str, Any]) -> dict[str, Any]:
    """Check one row. Raises UserError with where it stands and what is wrong with it."""
    for name in ("problem_id", "gold"):
        if name not in row or row[name] == "":
            raise UserError(f"{where}: {name} is missing or empty; the line has {', '.join(sorted(row)) or 'none'}")
    if "text" not in row and "answer" not in row:
        raise UserError(f"{where}: has neither text nor answer; the line has {', '.join(sorted(row))}")
    for name, kinds in KINDS.items():
        if name in row and (not isinstance(row[name], kinds) or (isinstance(row[name], bool) and bool not in kinds)):
            raise UserError(f"{where}: {name} wants {' or '.join(k.__name__ for k in kinds)}, got {row[name]!r:.60}")
    known = list(get_args(FinishReason))
    if row.get("finish_reason", "stop") not in known:
        raise UserError(f"{where}: finish_reason wants one of {choices(known)}, got {row['finish_reason']!r:.60}")
    return check_numbers(where, row)


def check_numbers(where: str, row: dict[str, Any]) -> dict[str, Any]:
    """Refuse numbers no recording can have: negative counts and times, infinities, scores that are not numbers."""
    for name in ("sample_index", "completion_tokens", "prompt_tokens", "finished_s"):
        if name in row and not (0 <= row[name] < 2**31):
            raise UserError(f"{where}: {name} wants a number from 0, got {row[name]!r}")
    scores = reward_of(row)
    if any(isinstance(s, bool) or not isinstance(s, int | float) or not math.isfinite(s) for s in scores):
        raise UserError(f"{where}: reward wants a finite number or a list of them, got {row['reward']!r:.60}")
    return row


def reward_of(row: Mapping[str, Any]) -> list[Any]:
    """The step scores of a row: an outcome score is a list of one."""
    reward = row.get("reward", [])
    return reward if isinstance(reward, list) else [reward]


def grouped(file: Path, form: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """All rows by problem, sample indices filled in by order of appearance.

    Raises UserError when a problem has two golds or prompts, or one sample twice.
    """
    problems: dict[str, list[dict[str, Any]]] = {}
    seen: set[tuple[str, int]] = set()
    for where, row in checked_rows(file, form):
        rows = problems.setdefault(row["problem_id"], [])
        row.setdefault("sample_index", len(rows))
        for name in ("gold", "prompt"):
            if rows and rows[0].get(name) != row.get(name):
                raise UserError(f"{where}: {name} of problem '{row['problem_id']}' differs from its earlier lines")
        if (row["problem_id"], row["sample_index"]) in seen:
            raise UserError(f"{where}: problem '{row['problem_id']}' has sample_index {row['sample_index']} twice")
        seen.add((row["problem_id"], row["sample_index"]))
        rows.append(row)
    if not problems:
        raise UserError(f"'{file}' holds no completions")
    return problems


def completion_of(row: Mapping[str, Any]) -> Completion:
    """A recorded row as a completion; what was not recorded is NaN or 0. A row without text stands for its answer."""
    finished = float(row.get("finished_s", math.nan))
    return Completion(
        problem_id=row["problem_id"],
        sample_index=row["sample_index"],
        text=row.get("text", row.get("answer") or ""),
        finish_reason=row.get("finish_reason", "stop"),
        prompt_tokens=row.get("prompt_tokens", 0),
        completion_tokens=row.get("completion_tokens", 0),
        seed=0,
        submitted_s=0.0,
        started_s=0.0,
        first_token_s=None,
        finished_s=finished,
        batch_size=math.nan,
    )


def score_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded reward of a row; what it cost is not known and counts as nothing."""
    scores = [float(score) for score in reward_of(row)]
    key = {name: row[name] for name in ("problem_id", "sample_index")}
    costs = {"scored_s": None, "reward_s": 0.0, "reward_flops": 0.0}
    return {**key, "reward_model": RECORDED, "scores": scores, **costs}


def graded_rows(task: Task, rows: Sequence[Mapping[str, Any]], regrade: bool) -> list[dict[str, Any]]:
    """Verdict rows of one problem: the task's, on the recorded answer where there is one; a given `correct` stands."""
    as_rows = [
        {
            "problem_id": r["problem_id"],
            "sample_index": r["sample_index"],
            "text": r.get("text", ""),
            "finish_reason": r.get("finish_reason", "stop"),
        }
        for r in rows
    ]
    given = {row["sample_index"]: row["answer"] for row in rows if "answer" in row}
    judge = task
    verdicts = verdict_rows(judge, rows[0]["gold"], as_rows)
    for row, verdict in zip(rows, verdicts, strict=True):
        if row["sample_index"] in given:
            verdict |= judge_answer(task, rows[0]["gold"], given[row["sample_index"]])
        if "correct" in row and not regrade:
            verdict |= {"verdict": "correct" if row["correct"] else "wrong", "reason": "as recorded"}
    for verdict, number in zip(verdicts, classes_of(task, [v["answer"] for v in verdicts]), strict=True):
        verdict["answer_class"] = number
    return verdicts


def judge_answer(task: Task, gold: str, answer: str | None) -> dict[str, Any]:
    """The verdict on an answer that was recorded already extracted."""
    if answer is None:
        return {"answer": None, "verdict": "no_answer", "reason": "recorded without an answer"}
    verdict = verdict_of(task, gold, answer)
    return {"answer": answer, "verdict": verdict.outcome, "reason": verdict.reason}


def check_same(run: Run, completions: Sequence[Completion]) -> None:
    """Refuse to go on with the import of another recording. Raises UserError."""
    stored = run.completion_columns("problem_id", "sample_index", "text").to_pylist()
    fresh = [{"problem_id": row.problem_id, "sample_index": row.sample_index, "text": row.text} for row in completions]
    if stored and stored != fresh:
        raise UserError(f"'{run.path}' holds the beginning of another import; choose another --out or remove it")


def import_file(
    file: Path, task_name: str, task_options: Sequence[str], data: str | None, out: Path, model: str, regrade: bool,
    form: str | None = None,
) -> tuple[Run, dict[str, int]]:  # fmt: skip
    """Make the run at `out`; returns it with the counts of its verdicts.

    The task only grades here: its problems are not looked at. An import that was killed is gone on with; until it is
    whole its run is INVALID. Raises UserError.
    """
    problems = grouped(file, form)
    task = plugins.load_task(task_name, task_options, data)
    samples = min(len(rows) for rows in problems.values())
    spec = {
        "model": model, "engine": "recorded", "model_options": [], "task": task.name, "task_plugin": task_name,
        "task_options": list(task_options), "data": data, "limit": None, "protocol": "latency", "budget": None,
        "samples": samples, "sampling": None, "imported_from": file.name, "regrade": regrade,
    }  # fmt: skip
    verdicts = [verdict for rows in problems.values() for verdict in graded_rows(task, rows, regrade)]
    with writing(out):
        begun = begin_run(out, spec)
        if begun is not None and begun.manifest["validity"]["verdict"] == "VALID":
            raise UserError(f"'{out}' already holds this import; choose another --out or remove it")
        completions = [completion_of(row) for rows in problems.values() for row in rows]
        scores = [score_row(r) for rows in problems.values() for r in rows if reward_of(r)]
        heads = [
            {"problem_id": name, "prompt": rows[0].get("prompt", ""), "gold": rows[0]["gold"], "meta": {}}
            for name, rows in problems.items()
        ]
        run = begun or make_run(out, spec, heads)
        check_same(run, completions)
        # Each is one part, which is whole or not there.
        if not parts(out / "completions"):
            run.add_completions(completions)
        if not parts(out / "verdicts"):
            run.add_verdicts(verdicts)
        if not parts(out / "scores"):
            run.add_scores(scores)
        run.manifest |= {"engine": {"engine": "recorded"}, "validity": {"verdict": "VALID", "reasons": [], "mend": []}}
        run.save()
    return run, dict(Counter(verdict["verdict"] for verdict in verdicts))
