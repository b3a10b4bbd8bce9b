"""`ttc doctor`: is this machine, or this run, in order?"""

import importlib.util
import shutil
from pathlib import Path

from harness import plugins
from harness.budgets import Clock, monotonic
from harness.check import Finding
from harness.errors import UserError
from harness.manifest import digest, machine, versions
from harness.records import COMPLETIONS, SCORES, VERDICTS, parts, read_part
from harness.runs import KEY, open_run

FREE_BYTES = 2 * 2**30
CLOCK_STEP_S = 1e-3
OPTIONAL = {"vllm": "vllm", "mamba": "mamba_ssm", "ray": "ray", "openai": "openai"}


def examine_machine(clock: Clock = monotonic) -> list[Finding]:
    """Versions, links, memory, disk, clock, threads and what is optional. Nothing is changed."""
    import torch

    facts = machine()
    free = shutil.disk_usage(Path.cwd()).free
    gpus = ", ".join(gpu["name"] for gpu in facts["gpus"]) or "none"
    threads = torch.get_num_threads()
    missing = [name for name, module in OPTIONAL.items() if importlib.util.find_spec(module) is None]
    rooms: list[plugins.Group] = ["tasks", "models", "selectors", "reports"]
    empty = [room for room in rooms if not plugins.builtins(room)]
    return [
        Finding("versions", True, ", ".join(f"{name} {number}" for name, number in versions().items())),
        Finding(
            "the rooms are found",
            not empty,
            f"no plug-ins in {', '.join(empty)}: were the links lost?" if empty else "",
        ),
        Finding(
            "processor", True, f"{facts['cpu']}, {facts['usable_cores']} cores, {facts['memory_bytes'] / 2**30:.0f} GiB"
        ),
        Finding("GPU", True, gpus),
        Finding("threads", threads <= facts["usable_cores"], f"torch uses {threads} of {facts['usable_cores']} cores"),
        Finding("clock", clock_step_s(clock) <= CLOCK_STEP_S, f"steps of {1e9 * clock_step_s(clock):.0f} ns"),
        Finding("disk", free > FREE_BYTES, f"{free / 2**30:.0f} GiB free here"),
        Finding("optional engines", True, f"not installed: {', '.join(missing)}" if missing else "all installed"),
    ]


def clock_step_s(clock: Clock) -> float:
    """The smallest difference between two readings of the clock that is not zero, over a thousand pairs."""
    steps = (abs(clock() - clock()) for _ in range(1000))
    return min((step for step in steps if step > 0), default=0.0)


def examine_run(path: Path) -> list[Finding]:
    """Are all parts whole, is every completion there once and graded, are the problems those of the manifest?"""
    run = open_run(path)
    kinds = {"completions": COMPLETIONS, "verdicts": VERDICTS, "scores": SCORES}
    damaged = []
    for name, columns in kinds.items():
        for part in parts(path / name):
            try:
                read_part(part, columns)
            except UserError as error:
                damaged.append(str(error))
    findings = [Finding("every part can be read", not damaged, "; ".join(damaged))]
    unfinished = [file.name for file in path.rglob(".*.unfinished")]
    findings.append(Finding("no part was left unfinished", not unfinished, ", ".join(unfinished)))
    if damaged:
        return findings
    keys = [tuple(row[name] for name in KEY) for part in parts(path / "completions") for row in part_keys(part)]
    graded = {tuple(row[name] for name in KEY) for row in run.verdicts()}
    problems = [{k: row[k] for k in ("problem_id", "prompt", "gold")} for row in run.problems()]
    known = {problem["problem_id"] for problem in problems}
    validity = run.manifest["validity"]
    return [
        *findings,
        Finding(
            "no completion is stored twice", len(set(keys)) == len(keys), f"{len(keys)} rows, {len(set(keys))} samples"
        ),
        Finding("every completion is graded", set(keys) <= graded, f"{len(set(keys) - graded)} without a verdict"),
        Finding("every completion has its problem", {key[0] for key in keys} <= known),
        Finding("the problems are the manifest's", stored_digest(path) == run.manifest["problems"]["sha256"]),
        Finding("verdict", validity["verdict"] == "VALID", "; ".join([validity["verdict"], *validity["reasons"]])),
    ]


def part_keys(part: Path) -> list[dict[str, object]]:
    """The identity of each completion of one part."""
    rows: list[dict[str, object]] = read_part(part, COMPLETIONS).select(list(KEY)).to_pylist()
    return rows


def stored_digest(path: Path) -> str:
    """The digest of problems.parquet as the manifest computed it."""
    from harness.records import PROBLEMS

    return digest(read_part(path / "problems.parquet", PROBLEMS).to_pylist())
