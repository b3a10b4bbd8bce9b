"""A run whose every text and time is known beforehand, to break and to go on with; no model, no clock that runs.

`Script` answers from each request's own seed and moves the clock to a completion's time before it gives it, so that a
run that was interrupted anywhere has, when it is whole, the same rows as one that was not.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes import FakeClock, last_word, same

from harness.budgets import Deadline
from harness.nouns import Completion, Problem, Request, Sampling, Task, stream_seed
from harness.progress import chooser
from harness.running.bench import Arm, Plan, bench_arm
from harness.storage.integrity import examine_run
from harness.storage.runs import Run, open_run

PROBLEMS, SAMPLES = 3, 5
SCORE_S = 1 / 64
"""Less than a fifteenth of a second, so that no completion is late because others were scored."""
STORING = ("open", "write", "fsync", "replace", "mkdir", "unlink")
"""The functions of `os` through which everything a run keeps is stored."""
CURVES = "curves-along-k"
Tell = Callable[[str], None]
"""Is told of every step of a run before it is done, by its stage."""


def quiet(stage: str) -> None:
    """Nobody listens."""


@dataclass
class Script:
    """Sample i of a problem ends at 1 + i seconds of its scope; odd seeds are right, even ones wrong."""

    clock: FakeClock
    tell: Tell = quiet
    name: str = "script"
    scored_at_once: int = 32

    @property
    def facts(self) -> dict[str, object]:
        return {"engine": "script"}

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        for request in requests:
            self.tell("sampling")
            finished_s = 1.0 + request.sample_index
            self.clock.sleep(max(0.0, finished_s - deadline.elapsed_s))
            deadline.charge(tokens=5, flops=50.0)
            yield completion_of(request, finished_s)


def completion_of(request: Request, finished_s: float) -> Completion:
    tokens = 3 + request.seed % 50
    return Completion(
        request.problem_id, request.sample_index, text_of(request.problem_id, request.sample_index), "stop", 2, tokens,
        request.seed, 0.0, 0.0, 0.5, finished_s, 1.0, 2.0, 10.0 * tokens,
    )  # fmt: skip


def text_of(problem_id: str, sample_index: int) -> str:
    """What is answered, from the stream's seed alone."""
    seed = stream_seed(0, problem_id, sample_index)
    return f"step {seed} so {4 if seed % 2 else 5 + seed % 3}"


def task_of(tell: Tell) -> Task:
    def grade(gold: str, answer: str) -> Any:
        tell("grading")
        return same(gold, answer)

    problems = [Problem(f"p/{i}", f"What is 2 + 2, for the {i}th time?", "4") for i in range(PROBLEMS)]
    return Task("script", problems, last_word, grade)


@dataclass(frozen=True)
class ScriptJudge:
    """Scores a completion by its text, in `SCORE_S` seconds; alone in the latency protocol, in batches in the other."""

    script: Script
    tell: Tell
    max_batch_size: int
    name: str = "judge"

    def score(self, prompt: object, completions: Sequence[str]) -> list[float]:
        self.tell("scoring")
        self.script.clock.sleep(SCORE_S * len(completions))
        return [1 / (1 + int(text.split()[1]) % 7) for text in completions]


class Told:
    """Stands for the module `os` in the storing layer and tells of every call that stores."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in STORING:
            return function

        def told(*given: Any, **more: Any) -> Any:
            self.tell(f"storing: {name}")
            return function(*given, **more)

        return told


def hasten(patch: Callable[[str, object], None], tell: Tell, script: Script) -> None:
    """Have a bench use the script, store often, and leave out what takes long: probes, git, figures."""
    patch("harness.plugins.load_model", lambda *_: script)
    patch("harness.plugins.load_reward_model", lambda *_: ScriptJudge(script, tell, script.scored_at_once))
    patch("harness.running.runner.FLUSH_ROWS", 2)
    patch("harness.running.runner.MOST_WAITING", 1)
    patch("harness.running.runner.VERDICTS_AT_ONCE", 4)
    patch("harness.storage.manifest.git_commit", lambda: None)
    patch("harness.storage.manifest.versions", lambda: {"ttc": "0", "python": "3"})
    patch("harness.running.probe.REPEATS", 1)
    patch("harness.running.rescoring.STORED_AT_ONCE", 2)


def bench(path: Path, script: Script, protocol: str, judges: tuple[str, ...] = ()) -> Run:
    asked = Plan("script", (), None, None, protocol, None, SAMPLES, Sampling(), judges, ())
    arm = Arm("script", "plug-in", (), path)
    return bench_arm(arm, asked, task_of(script.tell), chooser(True), script.clock)


def tables(run: Run, out: Path, judges: bool, tell: Tell = quiet) -> dict[str, bytes]:
    """The final tables of a run, by file.

    With a reward model the curves along k stand apart too: when a completion was scored, which the others show, depends
    on an interruption, in truth.
    """
    from harness import plugins
    from harness.analysis.summarise import summarise_all
    from harness.analysis.summary import as_document
    from harness.reporting import write_reports

    names = ("coverage", "majority", "best_of_n") if judges else ("coverage", "majority", "first_finish")
    (summary,) = summarise_all([run], plugins.load_selectors(names, []))
    curves = [curve for one in as_document([summary])["runs"] for curve in one["curves"] if curve["axis"] == "k"]
    tell("reporting")
    written = write_reports([summary], out)
    tell("reporting")
    return {path.name: path.read_bytes() for path in written} | {CURVES: json.dumps(curves).encode()}


def scored_when(run: Run) -> dict[str, list[Any]]:
    """Of each completion that the reward model has seen: when, what that took, and the scores."""
    rows = sorted(run.scores(), key=lambda row: (row["problem_id"], row["sample_index"]))
    return {
        f"{row['problem_id']} {row['sample_index']}": [row["scored_s"], row["reward_s"], row["scores"]] for row in rows
    }


def problems_with(run: Run, judges: bool) -> list[str]:
    """What a finished run lacks, has twice or has changed; nothing when it is as it must be."""
    rows = run.completion_columns("problem_id", "sample_index", "text", "seed", "finished_s").to_pylist()
    wanted = {(f"p/{i}", j) for i in range(PROBLEMS) for j in range(SAMPLES)}
    keys = [(row["problem_id"], row["sample_index"]) for row in rows]
    verdicts = {(row["problem_id"], row["sample_index"]): row["verdict"] for row in run.verdicts()}
    wrong = []
    if set(keys) != wanted:
        wrong.append(f"lost {sorted(wanted - set(keys))}")
    if len(set(keys)) != len(keys):
        wrong.append("doubled")
    if any(
        row["text"] != text_of(*key) or row["seed"] != stream_seed(0, *key) for key, row in zip(keys, rows, strict=True)
    ):
        wrong.append("another random stream")
    if verdicts != {key: "correct" if stream_seed(0, *key) % 2 else "wrong" for key in wanted}:
        wrong.append("verdicts")
    if judges and run.scored("judge") != wanted:
        wrong.append(f"{len(wanted - run.scored('judge'))} unscored")
    if any(row["finished_s"] != 1.0 + row["sample_index"] for row in rows):
        wrong.append("an outage was charged")
    if run.manifest["validity"]["verdict"] != "VALID":
        wrong.append(str(run.manifest["validity"]["reasons"]))
    return wrong


def again(path: Path, script: Script, protocol: str, judges: tuple[str, ...]) -> Run:
    """Go on with a run as another process would, an hour later."""
    script.clock.sleep(3600)
    return bench(path, script, protocol, judges)


def stored(path: Path) -> set[tuple[Any, ...]]:
    """Every completion that a run has, with all its columns; none where there is no run."""
    if not (path / "manifest.json").exists():
        return set()
    return {tuple(row.values()) for row in open_run(path).completions()}


def failed(path: Path) -> list[str]:
    """What the doctor finds wrong with a run."""
    return [finding.what for finding in examine_run(path) if not finding.ok]
