"""Runs whose every verdict and finish time a test chooses, made by way of the recorded completions' format."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.importing import import_file
from harness.storage.runs import Run, open_run

TASK = '''
from harness.nouns import Problem, Task, Verdict


def plain() -> Task:
    """Answers are compared as they are written."""
    grade = lambda gold, answer: Verdict("correct" if gold == answer else "wrong")
    return Task("plain", [Problem("0", "?", "4")], lambda text: text, grade)
'''


def write_run(
    folder: Path, name: str, correct: np.ndarray, seconds: np.ndarray | None = None, *, model: str = "",
    problems: Sequence[str] = (), gold: str = "4", rewards: np.ndarray | None = None, **spec: Any,
) -> Run:  # fmt: skip
    """A run of correct[p, i] and seconds[p, i] (None: not recorded); `spec` replaces entries of the manifest's spec.

    A right sample answers `gold`, a wrong one 5, 6 or 7 in turn.
    """
    folder.mkdir(exist_ok=True)
    task = folder / "plain.py"
    task.write_text(TASK)
    lines = []
    for p, row in enumerate(np.asarray(correct)):
        for i, right in enumerate(row):
            line: dict[str, Any] = {"problem_id": problems[p] if problems else f"p{p:03d}", "gold": gold}
            line |= {"answer": gold if right else "567"[i % 3], "prompt": "What is 2 + 2?", "completion_tokens": 10}
            line |= {} if seconds is None else {"finished_s": float(seconds[p, i])}
            line |= {} if rewards is None else {"reward": float(rewards[p, i])}
            lines.append(json.dumps(line))
    source = folder / f"{name}.jsonl"
    source.write_text("\n".join(lines))
    import_file(source, f"{task}:plain", [], None, folder / name, model or name, False)
    run = open_run(folder / name)
    run.manifest["spec"] |= spec
    run.save()
    return open_run(folder / name)
