"""Step labels by Monte-Carlo roll-outs (Math-Shepherd, arXiv 2312.08935), the training data of a PRM.

The text up to the end of a step is continued several times; the step's label is the share of continuations that end in
a correct answer. The last step's label is the verdict on the completion itself, 0 or 1. Or only the first bad step is
looked for, by halving (OmegaPRM, arXiv 2406.06592): for the same roll-outs several times as many completions.

    task = load_task("arithmetic", ["split=train"])
    label_steps(native("zoo/teacher"), task, finished_completions(Path("results/train"), 4), Path("steps.jsonl"))
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.budgets import Deadline
from harness.errors import UserError, choices
from harness.grading import answer_of
from harness.models import text
from harness.nouns import Model, Problem, Request, Sampling, Task
from harness.progress import ShowProgress, chooser
from harness.running.runner import render
from harness.storage.runs import open_run

from .reward_data import split_steps

Labels = Mapping["Solution", list[float]]
"""A label for every step."""
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Solution:
    """A completion that ended by itself, as its steps."""

    problem_id: str
    sample_index: int
    steps: tuple[str, ...]

    @property
    def prefixes(self) -> list[str]:
        """The text up to the end of every step but the last."""
        return ["".join(self.steps[:end]) for end in range(1, len(self.steps))]


def finished_completions(run: Path, samples: int) -> list[Mapping[str, Any]]:
    """The completions of a run that ended by themselves, of each problem the first `samples`.

    Rows with problem_id, sample_index and text. Raises UserError when there is no run.
    """
    stored = sorted(open_run(run).completions(), key=lambda row: row["sample_index"])
    taken: Counter[str] = Counter()
    rows: list[Mapping[str, Any]] = []
    for row in stored:
        if row["finish_reason"] == "stop" and row["text"].strip() and taken[row["problem_id"]] < samples:
            taken[row["problem_id"]] += 1
            rows.append(row)
    return rows


def label_steps(
    model: Model,
    task: Task,
    completions: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    continuations: int = 8,
    halving: bool = False,
    sampling: Sampling | None = None,
    problems_at_once: int = 8,
    show_progress: ShowProgress | None = None,
) -> None:
    """Write a line of step labels for each completion; a file that is there already is gone on with.

    A line is `{problem_id, sample_index, prompt, steps, labels, continuations, halving}`, `prompt` being the rendered
    text and the steps joined the completion. The lines of a problem are written when all its roll-outs are done, and a
    file that was left halfway loses its unfinished problem and no other. A continuation's random stream depends on the
    sampling seed, the problem, the text that it continues and its number, so neither order nor interruption changes a
    label.

    Args:
        model: continues the texts; any engine that reads a plain string as it stands.
        task: has the problems of the completions, and judges.
        completions: rows with problem_id, sample_index and text, of completions that ended by themselves.
        out: the JSON lines.
        continuations: of each prefix, M in the paper.
        halving: label the steps before the first bad one 1 and the others 0, and a correct completion's all 1.
        sampling: of the continuations; None for temperature 0.8 and 2048 tokens.
        problems_at_once: whose roll-outs go to the model in one call.
        show_progress: None for a bar or lines on stderr.

    Raises UserError when a completion is of no problem of the task, the file holds something else, the model reads the
    rendered prompt as other tokens than the chat, or a continuation fails.
    """
    sampling, show_progress = sampling or Sampling(), show_progress or chooser(quiet=False)
    if continuations < 1 or problems_at_once < 1:
        raise UserError(
            f"continuations and problems_at_once must be at least 1, got {continuations} and {problems_at_once}"
        )
    problems = {problem.id: problem for problem in task.problems}
    solutions = group(completions, problems, task.name)
    for problem_id in list(solutions)[:1]:
        check_rendering(model, problems[problem_id])
    done, make_labels = resume(out, solutions, continuations, halving), first_errors if halving else shares_correct
    todo = [problem_id for problem_id in solutions if problem_id not in done]
    with show_progress("roll-outs", len(solutions)) as progress, out.open("a", encoding="utf-8") as file:
        for start in range(0, len(todo), problems_at_once):
            block = [(problems[problem_id], solutions[problem_id]) for problem_id in todo[start:][:problems_at_once]]
            for line in label_block(RollOuts(model, Judge(task), continuations, sampling), block, make_labels):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            progress.update(len(done) + start + len(block), "problems")


def group(
    completions: Sequence[Mapping[str, Any]], problems: Mapping[str, Problem], task: str
) -> dict[str, list[Solution]]:
    """Solutions by problem. Raises UserError for a problem that the task does not have, or a blank completion."""
    solutions: dict[str, list[Solution]] = {}
    for row in completions:
        problem_id, steps = row["problem_id"], tuple(split_steps(row["text"]))
        if problem_id not in problems:
            raise UserError(
                f"the task {task} has no problem '{problem_id}' that a completion is of; it has "
                f"{choices(list(problems)[:3])}, ...; give the task the options that the completions were made with"
            )
        if not steps:
            raise UserError(f"sample {row['sample_index']} of '{problem_id}' is blank and has no steps; leave it out")
        solutions.setdefault(problem_id, []).append(Solution(problem_id, row["sample_index"], steps))
    return solutions


def check_rendering(model: Model, problem: Problem) -> None:
    """Raises UserError when an engine of ours reads the rendered prompt as other tokens than the messages."""
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return
    whole, messages = text.encode(tokenizer, render(model, problem)), text.encode(tokenizer, problem.prompt)
    if whole != messages:
        raise UserError(
            f"the tokenizer of '{model.name}' reads the rendered prompt of '{problem.id}' as {len(whole)} tokens and "
            f"its messages as {len(messages)}; use a chat template that begins with the begin-of-text token"
        )


def resume(out: Path, solutions: Mapping[str, Sequence[Solution]], continuations: int, halving: bool) -> set[str]:
    """The problems that a file has whole; the lines of others are taken out of it. A missing file has none.

    Raises UserError when the file holds something else, or labels made in another way.
    """
    lines: dict[str, dict[int, str]] = {}
    for line in out.read_text(encoding="utf-8").splitlines(keepends=True) if out.is_file() else []:
        if line.endswith("\n"):  # the last line of a killed process may be half a line
            row = read_labels(line, out, continuations, halving)
            lines.setdefault(row["problem_id"], {})[row["sample_index"]] = line
    wanted = {problem_id: {one.sample_index for one in group} for problem_id, group in solutions.items()}
    done = {problem_id for problem_id, there in lines.items() if wanted.get(problem_id, there.keys()) <= there.keys()}
    unfinished = out.with_name(f".{out.name}.unfinished")
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = [line for problem_id in lines if problem_id in done for line in lines[problem_id].values()]
    unfinished.write_text("".join(kept), encoding="utf-8")
    os.replace(unfinished, out)
    return done & wanted.keys()


def read_labels(line: str, out: Path, continuations: int, halving: bool) -> dict[str, Any]:
    """One line of an earlier sitting. Raises UserError when it is not one, or was made with other settings."""
    try:
        row: dict[str, Any] = json.loads(line)
        made_with = row["problem_id"], row["sample_index"], row["continuations"]
    except (ValueError, TypeError, LookupError):
        raise UserError(f"'{out}' holds something else than step labels; choose another file") from None
    if row.get("halving", False) != halving:
        raise UserError(f"'{out}' has labels made {'without' if halving else 'by'} halving; choose another file")
    if made_with[2] != continuations:
        raise UserError(
            f"'{out}' has labels from {made_with[2]} continuations, not {continuations}; choose another file or go on "
            f"with {made_with[2]}"
        )
    return row


Block = Sequence[tuple[Problem, Sequence[Solution]]]


def label_block(rolls: "RollOuts", block: Block, make_labels: Callable[["RollOuts", Block], Labels]) -> list[Line]:
    """The lines of several problems. Raises UserError when a continuation fails."""
    made = make_labels(rolls, block)
    return [
        {
            "problem_id": problem.id,
            "sample_index": solution.sample_index,
            "prompt": render(rolls.model, problem),
            "steps": list(solution.steps),
            "labels": made[solution],
            "continuations": rolls.continuations,
            "halving": make_labels is first_errors,
        }
        for problem, solutions in block
        for solution in solutions
    ]


def shares_correct(rolls: "RollOuts", block: Block) -> Labels:
    """For every step the share of correct continuations; a prefix that solutions share is rolled out once."""
    shares = rolls.shares([(problem, prefix) for problem, group in block for one in group for prefix in one.prefixes])
    return {
        solution: [*(shares[problem.id, prefix] for prefix in solution.prefixes), rolls.verdict(problem, solution)]
        for problem, solutions in block
        for solution in solutions
    }


def first_errors(rolls: "RollOuts", block: Block) -> Labels:
    """1 for the steps before the first from which no continuation is correct and 0 from there, found by halving.

    A correct completion's steps are all 1. A wrong one's last is 0.
    """
    problems = {solution: problem for problem, solutions in block for solution in solutions}
    right = {solution: rolls.verdict(problem, solution) == 1 for solution, problem in problems.items()}
    bounds = {solution: (len(solution.steps) if right[solution] else 0, len(solution.steps)) for solution in problems}
    while halves := {one: (good + bad) // 2 for one, (good, bad) in bounds.items() if bad - good > 1}:
        asked = {one: (problems[one], one.prefixes[middle - 1]) for one, middle in halves.items()}
        shares = rolls.shares(list(asked.values()))
        for one, middle in halves.items():
            good, bad = bounds[one]
            problem, prefix = asked[one]
            bounds[one] = (middle, bad) if shares[problem.id, prefix] > 0 else (good, middle)
    return {one: [1.0] * good + [0.0] * (len(one.steps) - good) for one, (good, _) in bounds.items()}


@dataclass(frozen=True, slots=True)
class RollOuts:
    """A model that continues texts so many times, and who judges what comes of it."""

    model: Model
    judge: "Judge"
    continuations: int
    sampling: Sampling

    def verdict(self, problem: Problem, solution: Solution) -> float:
        """1 when the completion itself is correct and 0 when not."""
        return float(self.judge.is_correct(problem, "".join(solution.steps), "stop"))

    def shares(self, prefixes: Sequence[tuple[Problem, str]]) -> dict[tuple[str, str], float]:
        """By problem id and prefix the share of correct continuations, all made in one call of the model.

        Raises UserError when a continuation fails.
        """
        origins = {stream_name(problem, prefix): (problem, prefix) for problem, prefix in prefixes}
        requests = [
            Request(name, number, render(self.model, problem) + prefix, self.sampling)
            for name, (problem, prefix) in origins.items()
            for number in range(self.continuations)
        ]
        correct: Counter[str] = Counter()
        for one in self.model.generate(requests, Deadline(None)) if requests else []:
            problem, prefix = origins[one.problem_id]
            if one.finish_reason == "error":
                raise UserError(f"a continuation of '{problem.id}' by {self.model.name} failed: {one.error}")
            correct[one.problem_id] += self.judge.is_correct(problem, prefix + one.text, one.finish_reason)
        return {(problem.id, prefix): correct[name] / self.continuations for name, (problem, prefix) in origins.items()}


class Judge:
    """A task's verdicts on whole texts, each answer of a problem graded once."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.known: dict[tuple[str, str], bool] = {}

    def is_correct(self, problem: Problem, completion: str, finish_reason: str) -> bool:
        """Whether the completion's answer is the problem's."""
        answer, _ = answer_of(self.task, completion, finish_reason)
        if answer is None:
            return False
        key = problem.id, answer
        if key not in self.known:
            self.known[key] = self.task.grade(problem.gold, answer).outcome == "correct"
        return self.known[key]


def stream_name(problem: Problem, prefix: str) -> str:
    """What the random streams of a prefix's continuations are keyed by."""
    return f"{problem.id}#{hashlib.sha256(prefix.encode()).hexdigest()[:16]}"
