"""Scores for a run that is stored already, and what a bench needs before it can score."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness import plugins
from harness.budgets import Clock, monotonic
from harness.errors import UserError
from harness.foreign import code_of_task
from harness.nouns import Problem, Prompt
from harness.progress import ShowProgress
from harness.running.scopes import Scope
from harness.running.scoring import FINISHED, Asked, Judge, Judging, Row
from harness.storage.locking import writing
from harness.storage.runs import Run, take_over

STORED_AT_ONCE = 256
"""Scored completions that may wait in memory, which is what a kill loses."""
READ_AT_ONCE = 16384
"""Completions whose texts are read from disk at once."""
WARM_UP_TEXT = "First, 2 + 2 = 4.\n\nThen, 4 + 3 = 7.\n\nThe answer is 7."
"""What a reward model scores before the clock counts."""
WARM_UP_TOKENS = 24
OWED_COLUMNS = ("problem_id", "sample_index", "finish_reason", "text", "completion_tokens")
Key = tuple[str, int]


def load_judges(references: Sequence[str], options: Sequence[str], clock: Clock = monotonic) -> list[Judge]:
    """Load reward models, each option for those that take it. Raises UserError."""
    return [load_judge(name, pairs, clock) for name, pairs in plugins.reward_options(references, options).items()]


def load_judge(reference: str, pairs: Sequence[str], clock: Clock = monotonic) -> Judge:
    """Load one reward model. Raises UserError."""
    began = clock()
    judge = Judge(reference, pairs, plugins.load_reward_model(reference, pairs), clock)
    judge.load_s = clock() - began
    return judge


def warm_up_judges(judges: Sequence[Judge], prompt: Prompt) -> None:
    """Have every reward model score a batch once, outside every budget."""
    for judge in judges:
        batch = [Asked("", index, prompt, WARM_UP_TEXT, WARM_UP_TOKENS) for index in range(judge.max_batch_size)]
        judge.warm_up(batch)


def judging_of(
    run: Run, judges: Sequence[Judge], problems: Sequence[Problem], scopes: Sequence[Scope]
) -> tuple[Judging, list[Scope]]:
    """What a sitting scores with, and its scopes (see `unscored_of`)."""
    left, charged = unscored_of(run, [judge.name for judge in judges], problems, scopes)
    return Judging(judges, {problem.id: problem.prompt for problem in problems}, left), charged


def unscored_of(
    run: Run, judges: Sequence[str], problems: Sequence[Problem], scopes: Sequence[Scope]
) -> tuple[dict[str | None, list[Asked]], list[Scope]]:
    """What earlier sittings left unscored, by scope, and the scopes.

    An interrupted one goes on after what scoring has cost it so far. `judges` are the reward models' names.
    """
    prompts = {problem.id: problem.prompt for problem in problems}
    begun = [scope.problem_id for scope in scopes if not scope.fresh]
    if not judges or not begun:
        return {}, list(scopes)
    wanted = list(prompts) if None in begun else [name for name in begun if name is not None]
    left: dict[str | None, list[Asked]] = {}
    for one in owed(run, set.intersection(*(run.scored(name) for name in judges)), prompts, wanted):
        left.setdefault(None if None in begun else one.problem_id, []).append(one)
    return left, charge_scored(scopes, run.scores())


def charge_scored(scopes: Sequence[Scope], scores: Sequence[Mapping[str, Any]]) -> list[Scope]:
    """Scopes whose clocks and FLOPs go on after what earlier sittings spent on scoring."""
    inside = [row for row in scores if row["scored_s"] is not None]
    charged = []
    for scope in scopes:
        own = [row for row in inside if scope.problem_id in (None, row["problem_id"])]
        used_s = max([scope.used_s, *(row["scored_s"] for row in own)])
        used_flops = scope.used_flops + sum(row["reward_flops"] for row in own)
        charged.append(replace(scope, used_s=used_s, used_flops=used_flops))
    return charged


def owed(run: Run, seen: Collection[Key], prompts: Mapping[str, Prompt], problem_ids: Sequence[str]) -> list[Asked]:
    """The finished completions of these problems that are not among those a reward model has seen."""
    return [
        Asked(row["problem_id"], row["sample_index"], prompts[row["problem_id"]], row["text"], row["completion_tokens"])
        for rows in run.rows_of("completions", problem_ids, OWED_COLUMNS)
        for row in rows
        if row["finish_reason"] in FINISHED and (row["problem_id"], row["sample_index"]) not in seen
    ]


def prompts_of(run: Run, named: str | None = None) -> tuple[dict[str, Prompt], str]:
    """What was asked, by problem id, and where it was taken from.

    The task gives the prompts as it gave them to the model; a run whose task is gone, or has other problems, such as
    one of recorded completions, has only the texts that the model read. So has one whose task is a file or a module of
    somebody's, unless the user has `named` it, and one whose task has an option that has code run: a run that comes
    from elsewhere must not say what runs here.
    """
    stored: dict[str, Prompt] = {row["problem_id"]: row["prompt"] for row in run.problems()}
    spec = run.spec if named is None else {**run.spec, "task_plugin": named}
    if (spec["engine"] == "recorded" and named is None) or code_of_task(spec) not in (None, named):
        return stored, "stored"
    try:
        task = plugins.load_task(spec["task_plugin"], spec["task_options"], spec["data"])
    except UserError:
        return stored, "stored"
    known = {problem.id: problem.prompt for problem in task.problems if problem.id in stored}
    return (stored, "stored") if len(known) < len(stored) else (known, "task")


def note_judges(run: Run, judges: Sequence[Judge], **more: Any) -> None:
    """Put the facts of each reward model into the manifest: one entry per reward model, in it one for each use."""
    note_uses(run, [judge.facts() for judge in judges], **more)


def note_uses(run: Run, uses: Sequence[dict[str, Any]], **more: Any) -> None:
    """`note_judges` from the facts alone, which `Judge.facts` gives."""
    entries: list[dict[str, Any]] = run.manifest.setdefault("reward_models", []) if uses else []
    for facts in uses:
        head = {name: facts.pop(name) for name in ("name", "options", "model")}
        before = [entry for entry in entries if entry["name"] == head["name"]]
        entries[:] = [entry for entry in entries if entry["name"] != head["name"]]
        entries.append({**head, "uses": [*(use for entry in before for use in entry["uses"]), {**more, **facts}]})


def check_options(run: Run, reference: str, pairs: Sequence[str]) -> None:
    """Refuse scores of one name made with two sets of options. Raises UserError."""
    for entry in run.manifest.get("reward_models", []):
        if entry["name"] == reference and entry["options"] != list(pairs):
            raise UserError(
                f"'{run.path}' has scores of {reference} made with the options {entry['options']}, not {list(pairs)}; "
                "repeat those, or score a copy of the run"
            )


def score_runs(
    runs: Sequence[Run], references: Sequence[str], options: Sequence[str], show: ShowProgress,
    clock: Clock = monotonic, task: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Score runs with reward models, each loaded once and only if it has something to score. Returns what was done.

    `task` names the task plug-in that the prompts are taken from, see `prompts_of`.

    Raises UserError.
    """
    told = []
    for reference, pairs in plugins.reward_options(references, options).items():
        for run in runs:
            check_options(run, reference, pairs)
        judge = None
        for run in runs:
            if not count_left(run, reference):
                told.append(report(run, reference, len(run.scored(reference))))
                continue
            if judge is None:
                judge = load_judge(reference, pairs, clock)
                warm_up_judges([judge], next(iter(prompts_of(run, task)[0].values())))
            told.append(score_run(run, judge, show, task))
            judge = judge.again()
        if judge is not None:
            judge.close()
    return told


def report(run: Run, reference: str, already: int, judge: Judge | None = None) -> dict[str, Any]:
    """What was done to a run: counts and cost, as JSON."""
    facts = judge.facts() if judge else {"errors": {}}
    own = {name: facts.get(name, 0) for name in ("scored", "unscored", "failed", "score_s", "flops", "errors")}
    return {"run": str(run.path), "reward_model": reference, "already": already, **own}


def count_left(run: Run, reward_model: str) -> int:
    """How many completions a reward model has still to see."""
    reasons = run.completion_columns("finish_reason")["finish_reason"].to_pylist()
    return max(0, sum(reason in FINISHED for reason in reasons) - len(run.scored(reward_model)))


def score_run(run: Run, judge: Judge, show: ShowProgress, task: str | None = None) -> dict[str, Any]:
    """Score what a reward model has not seen of a run; what is there stays. Returns the counts and the cost.

    Parts are stored as it goes on, so that a kill keeps whole parts and the same command goes on after them. Raises
    UserError when another process writes the run.
    """
    with writing(run.path):
        take_over(run)
        prompts, source = prompts_of(run, task)
        seen = run.scored(judge.name)
        waiting: list[Row] = []
        try:
            with show(f"scoring {run.name}", count_left(run, judge.name)) as progress:
                for rows in scored_batches(run, judge, seen, prompts):
                    waiting += rows
                    if len(waiting) >= STORED_AT_ONCE:
                        stored, waiting = waiting, []
                        run.add_scores(stored)
                    progress.update(judge.scored + judge.unscored + judge.failed, judge.name)
        finally:
            run.add_scores(waiting)
            note_judges(run, [judge], sitting="afterwards", prompts=source)
            run.save()
    return report(run, judge.name, len(seen), judge)


def scored_batches(
    run: Run, judge: Judge, seen: Collection[Key], prompts: Mapping[str, Prompt]
) -> Iterator[Sequence[Row]]:
    """Rows of scores, a batch at a time; completions of one problem are scored side by side."""
    ids, at_once = list(prompts), max(1, READ_AT_ONCE // max(1, run.spec["samples"]))
    for first in range(0, len(ids), at_once):
        waiting = owed(run, seen, prompts, ids[first : first + at_once])
        for start in range(0, len(waiting), judge.max_batch_size):
            yield judge.score(waiting[start : start + judge.max_batch_size])
