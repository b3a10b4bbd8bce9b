"""A run in the terminal: what it is, its problems, one problem with its completions. Model text is shown inert."""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import UserError
from harness.inert import inert, inert_line
from harness.running.overshoot import compliance_lines
from harness.storage.runs import Run

PIPE_WIDTH = 140
STYLES = {"VALID": "bold green", "INVALID": "bold red"}
OUTCOME_STYLES = {"correct": "green", "wrong": "red"}
SHOWN_CHARACTERS = 1200
"""A completion's text beyond this is folded away in the terminal."""


def show_run(run: Run, json_: bool) -> None:
    """Print the manifest's gist and a line per problem, or both as JSON."""
    rows = problem_rows(run)
    if json_:
        print(json.dumps({"run": run.name, "manifest": run.manifest, "problems": rows}, default=str))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    for line in gist(run):
        console.print(Text(inert_line(line), style=STYLES.get(line.split(maxsplit=1)[-1], "")))
    table = Table("problem", "gold", "samples", "correct", "answers", box=None, pad_edge=False)
    for row in rows:
        cells = (row["problem_id"], row["gold"], str(row["samples"]), str(row["correct"]), row["answers"])
        table.add_row(*(Text(inert_line(cell)) for cell in cells))
    console.print(table)


def gist(run: Run) -> list[str]:
    """The facts that a person looks for first."""
    spec, validity = run.spec, run.manifest["validity"]
    engine = ", ".join(f"{k} {v}" for k, v in run.manifest["engine"].items() if isinstance(v, str | int | float))
    lines = [
        f"run       {run.name}: {spec['model']} on {spec['task']}, {run.manifest['problems']['count']} problems",
        f"asked     {spec['samples']} samples, budget {spec['budget'] or 'none'}, protocol {spec['protocol']}",
        f"sampling  {spell_facts(spec['sampling'] or {}) or 'not recorded'}",
        f"engine    {engine}",
        f"machine   {run.manifest['machine']['cpu']}, {run.manifest['machine']['usable_cores']} cores",
        *(f"          {gpu['name']}" for gpu in run.manifest["machine"]["gpus"]),
        *(f"kept      {line}" for line in compliance_lines(run.manifest)),
        f"sittings  {len(run.manifest['segments'])}; {time_outside(run.manifest['segments'])}",
        f"verdict   {validity['verdict']}",
    ]
    lines += [f"          {reason}: {mend}" for reason, mend in zip(validity["reasons"], validity["mend"], strict=True)]
    return lines + [f"warning   {warning}" for warning in validity.get("warnings", [])]


def spell_facts(facts: Mapping[str, Any]) -> str:
    """`temperature 0.8, top_p 1, stop none`."""
    return ", ".join(f"{name} {value if value not in ([], None) else 'none'}" for name, value in facts.items())


def time_outside(segments: Sequence[Mapping[str, Any]]) -> str:
    """The seconds of loading, warm-up and grading, which are outside every budget, beside those inside."""
    names = {"generate_s": "inside budgets", "load_s": "loading", "warmup_s": "warm-up", "grade_s": "grading"}
    sums = {words: sum(segment.get(key) or 0.0 for segment in segments) for key, words in names.items()}
    return ", ".join(f"{seconds:.3g} s {words}" for words, seconds in sums.items())


def problem_rows(run: Run) -> list[dict[str, Any]]:
    """Per problem: samples, correct ones, and the answers with their counts, commonest first."""
    verdicts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in run.verdicts():
        verdicts[row["problem_id"]].append(row)
    rows = []
    for problem in run.problems():
        judged = verdicts[problem["problem_id"]]
        answers = Counter("–" if row["answer"] is None else row["answer"] for row in judged).most_common(5)
        rows.append(
            {
                "problem_id": problem["problem_id"],
                "gold": problem["gold"],
                "samples": len(judged),
                "correct": sum(row["verdict"] == "correct" for row in judged),
                "answers": ", ".join(f"{answer:.24} ×{count}" for answer, count in answers),
            }
        )
    return rows


def show_problem(run: Run, problem_id: str, json_: bool) -> None:
    """Print one problem: the exact prompt, the gold, each completion judged. Raises UserError on a wrong id."""
    problem = find_problem(run, problem_id)
    judged = judged_completions(run, problem["problem_id"])
    if json_:
        print(json.dumps(problem | {"completions": judged}, default=str))
        return
    from rich.console import Console
    from rich.rule import Rule
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(Rule(Text(inert_line(problem["problem_id"]))))
    console.print(Text(inert(problem["prompt"])))
    console.print(Text(f"gold: {inert(problem['gold'])}", style="bold"))
    for row in judged:
        console.print(
            Rule(Text(inert_line(heading(row)), style=OUTCOME_STYLES.get(row.get("verdict", ""), "")), align="left")
        )
        if row.get("reason"):
            console.print(Text(f"because: {inert_line(row['reason'])}", style="dim"))
        text = inert(row["text"])
        folded = len(text) - SHOWN_CHARACTERS
        console.print(Text(text if folded <= 0 else f"{text[:SHOWN_CHARACTERS]} … {folded} more characters"))


def judged_completions(run: Run, problem_id: str) -> list[dict[str, Any]]:
    """The completions of one problem with their verdicts, and their scores by reward model, by sample index."""
    (rows,), (judged,) = (run.rows_of(kind, [problem_id]) for kind in ("completions", "verdicts"))
    verdicts = {row["sample_index"]: row for row in judged}
    scores: dict[int, dict[str, list[float]]] = defaultdict(dict)
    for row in run.scores():
        if row["problem_id"] == problem_id:
            scores[row["sample_index"]][row["reward_model"]] = row["scores"]
    return [
        row | verdicts.get(row["sample_index"], {}) | {"scores": scores.get(row["sample_index"], {})}
        for row in sorted(rows, key=lambda row: row["sample_index"])
    ]


def heading(row: dict[str, Any]) -> str:
    """A completion's verdict, answer, end and time on one line."""
    answer = "no answer" if row.get("answer") is None else f"answer {row['answer']}"
    spent = f"{row['completion_tokens']} tokens, finished at {row['finished_s']:.3f} s, {row['finish_reason']}"
    scored = "".join(
        f", {model} {' '.join(f'{step:.3g}' for step in steps[-4:]) or 'no score'}"
        for model, steps in row["scores"].items()
    )
    number = "" if row.get("answer_class") is None else f" [class {row['answer_class']}]"
    return f"sample {row['sample_index']}: {row.get('verdict', 'not graded')}, {answer}{number}; {spent}{scored}"


def find_problem(run: Run, problem_id: str) -> dict[str, Any]:
    """The problem with this id, or the only one whose id ends in it. Raises UserError naming some that exist."""
    problems = run.problems()
    matching = [p for p in problems if p["problem_id"] == problem_id] or [
        p for p in problems if p["problem_id"].endswith(f"/{problem_id}")
    ]
    if len(matching) != 1:
        some = ", ".join(problem["problem_id"] for problem in problems[:5])
        raise UserError(f"'{run.path}' has no problem '{problem_id}'; it has {len(problems)}, such as {some}")
    return matching[0]
