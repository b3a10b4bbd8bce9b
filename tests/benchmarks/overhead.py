"""What the harness itself costs: time per completion, its share of a budget, peak memory, truth of the finish times.

    python tests/benchmarks/overhead.py [--completions 10000,100000,1000000] [--zoo] [--out FOLDER]

Four measurements, each in a process of its own, one after the other, on a machine that does nothing else:

- `scale`: `bench` with the null model that waits for nothing, in the throughput protocol, for each number of
  completions (1000 problems). Per completion: the null model alone, the whole sampling, and everything up to the
  verdict on the run; the peak memory of the process above what it had after its imports; files and bytes of the run.
- `finish`: the null model with a step of 5 ms, 128 rows in flight: how far `finished_s` lies from its place on the
  schedule, (whole steps) x 5 ms.
- `share`: the same run's share of the budget spent outside the model.
- `zoo` (with --zoo): `zoo/teacher` at batch 128 under a budget of 20 s: the share spent outside the model, and the
  overshoot of the deadline.

`probe` repeats the probe of running/probe.py for half a minute and prints how often two probes would be taken for a
drift of the machine. The last line of stdout is one JSON document.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.budgets import Budget, Deadline
from harness.models.null import null
from harness.nouns import Problem, Sampling, Task, Verdict
from harness.progress import chooser
from harness.running.bench import OWN_ENGINE, Arm, Plan, bench_arm
from harness.running.probe import DRIFT, LOST_SHARE, take_probe
from harness.running.scopes import plan
from harness.storage.runs import Run

NULL = "harness.models.null:null"
PROBLEMS = 1000
STEP_S = 0.005


def digits(count: int) -> Task:
    """Problems whose answers are digits, graded by comparing strings: next to no work."""

    def grade(gold: str, answer: str) -> Verdict:
        return Verdict("correct" if gold == answer else "wrong")

    problems = [Problem(f"digits/{i}", f"Name the digit {i % 10}.", str(i % 10)) for i in range(count)]
    return Task(
        "digits", problems, lambda text: text.rstrip(".")[-1:], grade, group=lambda answers: range(len(answers))
    )


def bench_null(folder: Path, problems: int, samples: int, options: tuple[str, ...], budget: Budget | None) -> Run:
    """One run of the null model in the throughput protocol."""
    asked = Plan("digits", (), None, None, "throughput", budget, samples, Sampling(max_tokens=4096))
    return bench_arm(Arm(NULL, OWN_ENGINE, options, folder), asked, digits(problems), chooser(True))


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_scale(folder: Path, completions: int) -> dict[str, Any]:
    """The cost per completion of a run of so many."""
    samples = completions // PROBLEMS
    (scope,) = plan(digits(PROBLEMS).problems, samples, Sampling(max_tokens=4096), "throughput")
    bench_null(folder / "warm", 10, 10, (), None)
    began = time.perf_counter()
    for _ in null().generate(scope.requests, Deadline(None)):
        pass
    alone_s = time.perf_counter() - began
    before = peak_bytes()
    began = time.perf_counter()
    run = bench_null(folder / "run", PROBLEMS, samples, (), None)
    whole_s = time.perf_counter() - began
    (segment,) = run.manifest["segments"]
    files = [file for file in run.path.rglob("*") if file.is_file()]
    return {
        "completions": completions,
        "model_us": 1e6 * alone_s / completions,
        "sampling_us": 1e6 * segment["generate_s"] / completions,
        "outside_us": 1e6 * run.manifest["overhead"]["outside_s"] / completions,
        "whole_us": 1e6 * whole_s / completions,
        "peak_mb": (peak_bytes() - before) / 1e6,
        "files": len(files),
        "run_mb": sum(file.stat().st_size for file in files) / 1e6,
        "verdict": run.manifest["validity"],
    }


class Ticks:
    """A clock that moves on by a hundredth of a step whenever somebody looks."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """The time, after this look."""
        self.now_s += STEP_S / 100
        return self.now_s


def measure_finish(folder: Path) -> dict[str, Any]:
    """How true `finished_s` is on a known schedule, and what share of the budget the harness took."""
    import numpy as np

    budget, sampling = Budget(20.0, scope="run"), Sampling(max_tokens=4096)
    (scope,) = plan(digits(200).problems, 50, sampling, "throughput")
    played = null(seconds_per_step=STEP_S).generate(scope.requests, budget.start(Ticks()))
    true_s = {(row.problem_id, row.sample_index): STEP_S * int(row.finished_s / STEP_S) for row in played}
    run = bench_null(folder / "run", 200, 50, (f"seconds_per_step={STEP_S}",), budget)
    rows = [row for row in run.completions() if row["finish_reason"] == "stop"]
    began = rows[0]["submitted_s"]
    errors_ms = [1e3 * (row["finished_s"] - began - true_s[row["problem_id"], row["sample_index"]]) for row in rows]
    median, p99, worst = np.percentile(errors_ms, [50, 99, 100])
    return {
        "completions": len(rows),
        "error_ms": {"median": median, "p99": p99, "worst": worst},
        "under_1_ms": float(np.mean(np.abs(errors_ms) < 1)),
        "overhead_share": run.manifest["overhead"]["share"],
        "compliance": run.manifest["compliance"],
        "validity": run.manifest["validity"],
    }


def measure_zoo(folder: Path, model: str) -> dict[str, Any]:
    """A zoo model at batch 128: the share of the budget outside the model, and the overshoot."""
    settings = {"--task": "arithmetic", "--limit": "200", "--samples": "64", "--protocol": "throughput"}
    settings |= {"--budget": "20s", "--max-tokens": "400", "--out": str(folder / "run"), "--selector": "coverage"}
    options = [text for pair in settings.items() for text in pair]
    command = [sys.executable, "-m", "harness", "bench", model, *options, "--quiet", "--json"]
    subprocess.run(command, check=True, capture_output=True)
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    return {name: manifest[name] for name in ("overhead", "compliance", "validity")} | {"model": model}


def measure_probe() -> dict[str, Any]:
    """How often two probes of a machine that is left alone differ by more than the bounds."""
    probes = [take_probe() for _ in range(100)]
    found: dict[str, Any] = {}
    for name, factor in DRIFT.items():
        values = [value for one in probes if (value := getattr(one, name)) is not None]
        pairs = list(itertools.combinations(values, 2))
        if pairs:
            alarms = sum(max(pair) / min(pair) > factor for pair in pairs)
            found[name] = {"worst_ratio": max(values) / min(values), "bound": factor, "alarms": alarms / len(pairs)}
    lost = [one.lost_share for one in probes]
    found["lost_share"] = {
        "median": sorted(lost)[len(lost) // 2],
        "worst": max(lost),
        "bound": LOST_SHARE,
        "alarms": sum(value > LOST_SHARE for value in lost) / len(lost),
    }
    return found


def in_a_process(what: str, *arguments: str) -> Any:
    """Run one measurement of this file in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", what, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(what: str, size: int, model: str) -> dict[str, Any]:
    """One measurement in this process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if what == "scale":
            return measure_scale(folder, size)
        if what == "finish":
            return measure_finish(folder)
        return measure_zoo(folder, model) if what == "zoo" else measure_probe()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--completions", default="10000,100000,1000000")
    parser.add_argument("--zoo", action="store_true")
    parser.add_argument("--model", default="zoo/teacher")
    parser.add_argument("--measure", choices=["scale", "finish", "zoo", "probe"])
    parser.add_argument("--size", type=int, default=10000)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure, asked.size, asked.model)))
        return
    found: dict[str, Any] = {"scale": []}
    for size in asked.completions.split(","):
        row = in_a_process("scale", "--size", size)
        found["scale"].append(row)
        print(f"{row['completions']:>9} completions: model {row['model_us']:.1f}, sampling {row['sampling_us']:.1f}, "
              f"outside {row['outside_us']:.1f}, whole {row['whole_us']:.1f} us each; peak +{row['peak_mb']:.0f} MB; "
              f"{row['files']} files, {row['run_mb']:.1f} MB", flush=True)  # fmt: skip
    for what in ["finish", "probe", *(["zoo"] if asked.zoo else [])]:
        found[what] = in_a_process(what, "--model", asked.model)
        print(what, json.dumps(found[what]), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
