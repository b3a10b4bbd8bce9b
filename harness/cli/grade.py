"""`ttc grade`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Quiet, TaskOptions

if TYPE_CHECKING:
    from harness.nouns import Task


def grade(
    gold: Annotated[str, typer.Argument(metavar="GOLD|FILE.jsonl", help="The gold answer, or a file of pairs.")],
    answer: Annotated[str | None, typer.Argument(metavar="[ANSWER]", help="The answer to judge.")] = None,
    task: Annotated[str, typer.Option(metavar="T", help="Whose extraction and rules judge.")] = "math",
    task_arg: TaskOptions = None,
    quiet: Quiet = False,
) -> None:
    """Judge one pair, or every line of a file, and print one JSON verdict per line.

    A line holds gold with pred (an answer) or text (a whole completion).
    """
    from harness import plugins
    from harness.inert import json_line
    from harness.pairs import judge

    judged_by = plugins.load_task(task, task_arg or [])
    if answer is not None:
        print(json_line(judge(judged_by, {"gold": gold, "pred": answer})))
        return
    grade_file(Path(gold), judged_by, quiet)


def grade_file(path: Path, task: "Task", quiet: bool) -> None:
    """Stream a file of pairs to stdout with a bar on stderr. Raises UserError on a bad line."""
    from harness.inert import json_line
    from harness.lines import open_lines
    from harness.pairs import judge_all, read_pairs
    from harness.progress import chooser

    total = path.stat().st_size if path.is_file() and path.suffix != ".gz" else 0
    with open_lines(path) as lines, chooser(quiet)("grading (bytes)", total) as progress:
        read = correct = 0

        def counted() -> Iterator[str]:
            nonlocal read
            for line in lines:
                read += len(line.encode("utf-8", "surrogatepass"))
                yield line

        for number, row in enumerate(judge_all(task, read_pairs(counted(), str(path))), 1):
            correct += row["verdict"] == "correct"
            print(json_line(row))
            if number % 256 == 0:
                progress.update(read, f"{number:,} lines · {correct / number:.1%} correct")


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    # An answer may begin with a minus sign.
    app.command(context_settings={"ignore_unknown_options": True})(grade)
