"""Modelled against measured time: does a timing table tell how long k samples of a problem take?

    python tests/benchmarks/modelled_time.py zoo/teacher [MODEL...] --samples 1 4 16 64 --problems 12 --out FILE.json

For each model: the problems of a task are sampled as the latency protocol does, k samples of a problem as one batch,
for several k, and once all in flight with a limit on the rows, as the throughput protocol does. In between the timing
table is measured (`ttc speed`), in parts before and after, so that a slow drift of the machine is in both. Each scope's
measured seconds are then set against those modelled from its own lengths. Printed are the median, 90th percentile and
worst error per k, and by how much the modelled time of all scopes together is off. The last line is one JSON document.

Run it on a machine that does nothing else. On a CPU that others use too, `--clock thread` with one thread
(OMP_NUM_THREADS=1) counts the processor's seconds of this process instead of the wall's.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from harness import plugins
from harness.budgets import Clock, Deadline, monotonic, thread_s
from harness.nouns import Completion, Model, Problem, Request, Sampling
from harness.progress import Quiet
from harness.storage.manifest import machine, versions
from harness.timing.modelled import Job, batch_s, finish_times
from harness.timing.modelled_curves import Comparison, describe
from harness.timing.speed import Grid, measure
from harness.timing.timing_tables import Cell, TimingTable

PARTS = 2
"""Times that the table and the samples are each gone through."""


def sample(model: Model, requests: Sequence[Request], clock: Clock) -> list[Completion]:
    """All completions of a call, with what it needs prepared beforehand."""
    if hasattr(model, "prepare"):
        model.prepare([requests])
    return list(model.generate(requests, Deadline(None, clock)))


def requests_of(problems: Sequence[Problem], k: int, sampling: Sampling) -> list[Request]:
    """In waves: the first sample of every problem, then the second, ..."""
    return [Request(one.id, index, one.prompt, sampling) for index in range(k) for one in problems]


def jobs_of(requests: Sequence[Request], rows: Sequence[Completion]) -> list[Job]:
    """What was generated, in the order in which it was asked for."""
    found = {(row.problem_id, row.sample_index): row for row in rows}
    ordered = [found[request.problem_id, request.sample_index] for request in requests]
    return [Job(row.problem_id, row.prompt_tokens, row.completion_tokens) for row in ordered]


def lengths_of(model: Model, problems: Sequence[Problem], most: int, sampling: Sampling, clock: Clock) -> list[Job]:
    """The lengths of all samples that will be timed, which the table must cover."""
    asked = [requests_of([one], most, sampling) for one in problems]
    return [job for requests in asked for job in jobs_of(requests, sample(model, requests, clock))]


def covering(jobs: Sequence[Job], batches: Sequence[int]) -> Grid:
    """Every batch that is timed and the powers of two below; contexts from the shortest prompt to the longest text."""
    prompts = sorted({min(job.prompt for job in jobs), max(job.prompt for job in jobs)})
    first, last = prompts[0], max(job.prompt + job.length for job in jobs)
    contexts = sorted({first + (last - first) * place // 4 for place in range(5)})
    powers = {2**power for power in range(max(batches).bit_length()) if 2**power <= max(batches)}
    typical = int(statistics.median(job.length for job in jobs))
    return Grid(tuple(sorted({*powers, *batches})), tuple(prompts), tuple(contexts), typical, repeats=3)


def merged(tables: Sequence[TimingTable]) -> TimingTable:
    """One table of the medians over several."""
    found: dict[tuple[Any, int, int], list[Cell]] = {}
    for cell in (cell for table in tables for cell in table.cells):
        found.setdefault((cell.phase, cell.batch, cell.context), []).append(cell)
    cells = (replace(own[0], seconds=statistics.median(cell.seconds for cell in own)) for own in found.values())
    return TimingTable(tuple(cells), tables[0].facts)


def benchmark(name: str, options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """One model."""
    most = max(options.samples)
    engine = options.engine or plugins.default_engine(name)
    model = plugins.load_model(name, engine, [f"max_batch_size={most}", *options.engine_arg])
    task = plugins.load_task(options.task, [], None)
    problems, sampling = (
        list(task.problems)[: options.problems],
        Sampling(temperature=0.8, max_tokens=options.max_tokens),
    )
    grid = covering(lengths_of(model, problems, most, sampling, clock), options.samples)
    tables, scopes, waves = [], [], []
    for part in range(PARTS):
        tables.append(measure(model, grid, sampling, Quiet(), clock))
        for k in options.samples:
            for problem in problems[part::PARTS]:
                asked = requests_of([problem], k, sampling)
                rows = sample(model, asked, clock)
                scopes.append((k, jobs_of(asked, rows), max(row.finished_s for row in rows)))
        asked = requests_of(problems, options.waves, sampling)
        rows = sample(model, asked, clock)
        waves.append((jobs_of(asked, rows), max(row.finished_s for row in rows)))
    tables.append(measure(model, grid, sampling, Quiet(), clock))
    return compared(name, merged(tables), scopes, waves, most)


def compared(
    name: str, table: TimingTable, scopes: Sequence[tuple[int, list[Job], float]],
    waves: Sequence[tuple[list[Job], float]], limit: int,
) -> dict[str, Any]:  # fmt: skip
    """The errors by k, of all scopes, and of the runs with everything in flight."""
    by_k: dict[int, list[Comparison]] = {}
    for k, jobs, measured_s in scopes:
        modelled_s = batch_s(table, jobs[0].prompt, [job.length for job in jobs])
        by_k.setdefault(k, []).append(Comparison(jobs[0].prompt_id, k, measured_s, modelled_s))
    runs = [Comparison("run", len(jobs), s, float(finish_times(table, jobs, limit).max())) for jobs, s in waves]
    rows = [{"k": k, "scopes": len(own), **described(own)} for k, own in by_k.items()]
    everything = [one for own in by_k.values() for one in own]
    rows.append({"k": "all", "scopes": len(everything), **described(everything)})
    rows.append({"k": "in flight", "scopes": len(runs), **described(runs)})
    return {"model": name, "engine": dict(table.facts["engine"]), "errors": rows}


def described(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """The errors of some scopes, their mean measured seconds, and the error of their sum."""
    measured, modelled = (sum(getattr(one, name) for one in comparisons) for name in ("measured_s", "modelled_s"))
    return {"measured_s": measured / len(comparisons), **describe(comparisons), "sum": modelled / measured - 1}


def print_table(found: dict[str, Any]) -> None:
    print(f"\n{found['model']}, engine {found['engine'].get('engine')}, {found['engine'].get('dtype')}")
    print(f"{'k':>10}{'scopes':>8}{'seconds':>10}{'median':>9}{'p90':>8}{'worst':>8}{'bias':>8}{'sum':>8}")
    for row in found["errors"]:
        shares = "".join(f"{row[name]:8.1%}" for name in ("p90", "worst", "bias", "sum"))
        print(f"{row['k']:>10}{row['scopes']:8}{row['measured_s']:10.3f}{row['median']:9.1%}{shares}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--engine")
    parser.add_argument("--engine-arg", action="append", default=[], metavar="K=V")
    parser.add_argument("--task", default="arithmetic")
    parser.add_argument("--samples", nargs="+", type=int, default=[1, 4, 16, 64], metavar="K")
    parser.add_argument(
        "--waves", type=int, default=8, metavar="K", help="samples of each problem when all are in flight"
    )
    parser.add_argument("--problems", type=int, default=12)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--clock", choices=("wall", "thread"), default="wall")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    clock = thread_s if options.clock == "thread" else monotonic
    document: dict[str, Any] = {"machine": machine(), "versions": versions(), "clock": options.clock, "models": []}
    for name in options.models:
        document["models"].append(benchmark(name, options, clock))
        print_table(document["models"][-1])
    if options.out:
        options.out.write_text(json.dumps(document, indent=2, default=str) + "\n")
    print(json.dumps(document, default=str))


if __name__ == "__main__":
    main()
