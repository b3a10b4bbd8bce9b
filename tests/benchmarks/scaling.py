"""How a bench with workers scales, and what a very large one asks of the machine that drives it.

    python tests/benchmarks/scaling.py workers [--workers 1,2,4] [--problems 24] [--samples 16]
    python tests/benchmarks/scaling.py records [--problems 500] [--samples 256] [--out FOLDER]

- `workers` makes a Ray cluster of two nodes on this machine and benches a model that sleeps for every completion, then
  one that computes. Efficiency is completions per second over workers times those of one worker (throughput), or the
  share of the time in which workers were there that they sampled (latency). The model that computes can only scale as
  far as the machine has free cores.
- `records` puts synthetic completions of about 500 words through what the driver of a run does with them, one process
  and no cluster: take a parcel in, write parts, count what is stored, read and summarise. Per step the processor
  seconds, the memory and the bytes, and from those what 1,000 checkpoints x 5,000 problems x 256 samples would take.

The last line of stdout is one JSON document.
"""

import argparse
import json
import os
import pickle
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).parents[1] / "cluster_plugins.py"
CHECKPOINTS, PROBLEMS, SAMPLES = 1000, 5000, 256
SPINS = 2_000_000


def bench_once(folder: Path, protocol: str, workers: int, problems: int, samples: int, option: str) -> dict[str, Any]:
    """One run: completions per second of the shared clock, and the share of the workers' time that was sampling."""
    from harness.nouns import Sampling
    from harness.plugins import load_task
    from harness.progress import chooser
    from harness.running.bench import OWN_ENGINE, Arm, Plan, bench_arm
    from harness.workers.team import Crew

    options = (f"num_problems={problems}",)
    asked = Plan(f"{PLUGINS}:sums", options, None, None, protocol, None, samples, Sampling(max_tokens=100))
    arm = Arm(f"{PLUGINS}:drawer", OWN_ENGINE, (option,), folder / f"{protocol}-{workers}-{option}")
    run = bench_arm(arm, asked, load_task(asked.task, options), chooser(True), crew=Crew(workers))
    records = run.manifest["segments"][0]["workers"]
    busy, there = (sum(record[name] for record in records) for name in ("busy_s", "there_s"))
    found = {"protocol": protocol, "workers": workers, "option": option, "busy_share": busy / there}
    if protocol == "throughput":
        found["per_s"] = problems * samples / run.timing()[0]["elapsed_s"]
    return found


def measure_workers(counts: list[int], problems: int, samples: int) -> list[dict[str, Any]]:
    """Every protocol and kind of model with every number of workers, on two nodes."""
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": max(1, (max(counts) + 1) // 2), "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for option in ("seconds=0.05", f"spins={SPINS}"):
            for protocol in ("throughput", "latency"):
                for count in counts:
                    row = bench_once(Path(folder), protocol, count, problems, samples, option)
                    alone = next((each for each in rows if each["option"] == option and "per_s" in each), row)
                    if "per_s" in row:
                        row["efficiency"] = row["per_s"] / alone["per_s"] / (count / alone["workers"])
                    rows.append(row)
                    told = f"{row['per_s']:8.1f}/s, efficiency {row['efficiency']:.2f}" if "per_s" in row else ""
                    print(f"{option:15} {protocol:10} {count} workers: sampling {row['busy_share']:.2f} of their time "
                          f"{told}", flush=True)  # fmt: skip
    ray.shutdown()
    cluster.shutdown()
    return rows


def texts(count: int) -> Iterator[str]:
    """Texts of about 500 words with the word frequencies of prose, so that they compress about as well as it does."""
    words = [
        word for file in sorted((Path(__file__).parents[2] / "docs").glob("*.md")) for word in file.read_text().split()
    ]
    draw = random.Random(0)
    for _ in range(count):
        yield " ".join(draw.choices(words, k=draw.randint(250, 750)))


def drawn(problems: int, samples: int, start: int, stop: int) -> list[Any]:
    """The completions at these places of a run in waves."""
    from harness.nouns import Completion, stream_seed

    rows = []
    for place, text in zip(range(start, stop), texts(stop - start), strict=True):
        index, number = divmod(place, problems)
        seed = stream_seed(0, f"p{number}", index)
        rows.append(Completion(f"p{number}", index, f"{text} {seed % 7}", "stop", 100, 500, seed, 0.0, 0.0, 0.1,
                               0.01 * place, 64.0, 1e9, 1e12, -100.0))  # fmt: skip
    return rows


def measure_records(problems: int, samples: int, out: Path) -> dict[str, Any]:
    """The steps of a run's driver, in seconds per completion, and the files' sizes."""
    from harness.budgets import monotonic
    from harness.nouns import Problem, Sampling, Task, Verdict
    from harness.running.runner import Writer
    from harness.running.scopes import plan
    from harness.storage.runs import make_run, open_run
    from harness.workers.errands import Deal, Out, Parcel

    total = problems * samples
    found: dict[str, Any] = {"completions": total}
    asked = [Problem(f"p{number}", f"Name the digit {number % 7}.", str(number % 7)) for number in range(problems)]
    run = make_run(out, spec_of(samples), [
        {"problem_id": one.id, "prompt": one.prompt, "gold": one.gold, "meta": {}} for one in asked
    ])  # fmt: skip
    before = peak_bytes()
    began = time.process_time()
    deal = Deal(plan(asked, samples, Sampling(), "throughput"), asked, None, 64)
    found["deal_s"] = time.process_time() - began
    errand = deal.calls()[0]
    out_now, writer, spent = Out(errand), Writer(run, monotonic, 0), dict.fromkeys(("unpickle", "take", "write"), 0.0)
    for start in range(0, total, 4096):
        packed = pickle.dumps(Parcel(drawn(problems, samples, start, min(total, start + 4096))), 5)
        began = time.process_time()
        parcel = pickle.loads(packed)
        spent["unpickle"] += time.process_time() - began
        began = time.process_time()
        deal.take(out_now, parcel)
        spent["take"] += time.process_time() - began
        began = time.process_time()
        now = monotonic()
        for row in parcel.completions:
            writer.add(row, now)
        if len(writer.waiting) >= 16384:
            writer.rescue()
        spent["write"] += time.process_time() - began
    began = time.process_time()
    writer.close()
    spent["write"] += time.process_time() - began
    found |= {f"{name}_us": 1e6 * seconds / total for name, seconds in spent.items()}
    found["driver_bytes"] = peak_bytes() - before
    began = time.process_time()
    run.tally([one.id for one in asked], samples)
    found["tally_us"] = 1e6 * (time.process_time() - began) / total
    grader = Task("digits", asked, lambda text: text[-1:], lambda gold, answer: Verdict(
        "correct" if gold == answer else "wrong"), group=lambda answers: range(len(answers)))  # fmt: skip
    found |= measure_summary(run, grader, asked, total)
    parts = [path for path in out.rglob("*.parquet") if path.is_file()]
    found |= {"files": len(parts), "bytes_each": sum(path.stat().st_size for path in parts) / total}
    assert open_run(out).manifest["spec"]["samples"] == samples
    return found


def measure_summary(run: Any, task: Any, problems: Any, total: int) -> dict[str, Any]:
    """Grading with a grader that takes no time, and the curves of coverage and majority."""
    from harness.analysis.summarise import summarise
    from harness.budgets import monotonic
    from harness.plugins import load_selectors
    from harness.running.finishing import grade_ungraded

    began = time.process_time()
    grade_ungraded(run, task, problems, monotonic)
    found = {"grade_us": 1e6 * (time.process_time() - began) / total}
    before = peak_bytes()
    began = time.process_time()
    summarise(run, load_selectors(["coverage", "majority"]))
    found["summarise_us"] = 1e6 * (time.process_time() - began) / total
    found["summarise_bytes"] = max(0, peak_bytes() - before)
    return found


def spec_of(samples: int) -> dict[str, Any]:
    """A spec as a bench writes it."""
    return {
        "model": "synthetic", "engine": "none", "model_options": [], "task": "digits", "task_plugin": "digits",
        "task_options": [], "data": None, "limit": None, "protocol": "throughput", "budget": None, "samples": samples,
        "sampling": {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 2048, "stop": [], "seed": 0},
    }  # fmt: skip


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tell_records(found: dict[str, Any]) -> None:
    """The figures, and what they come to for the largest plan."""
    each = PROBLEMS * SAMPLES
    for name in ("unpickle", "take", "write", "tally", "grade", "summarise"):
        micro = found[f"{name}_us"]
        print(f"{name:10} {micro:7.2f} us per completion, {micro * each / 6e7:7.1f} minutes for {each:,}, "
              f"{micro * each * CHECKPOINTS / 3.6e9:8.0f} hours for {CHECKPOINTS:,} checkpoints")  # fmt: skip
    whole = found["bytes_each"] * each
    print(
        f"records    {found['bytes_each']:.0f} bytes per completion: {whole / 2**30:.2f} GiB a run, "
        f"{whole * CHECKPOINTS / 2**40:.2f} TiB in all; {found['files']} files for {found['completions']:,}"
    )
    print(f"memory     driver {found['driver_bytes'] >> 20} MiB, summary {found['summarise_bytes'] >> 20} MiB")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("workers", "records"))
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--problems", type=int, default=0)
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.what == "workers":
        counts = [int(count) for count in asked.workers.split(",")]
        print(json.dumps(measure_workers(counts, asked.problems or 24, asked.samples or 16)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure_records(asked.problems or 500, asked.samples or 256, asked.out or Path(folder) / "run")
    tell_records(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
