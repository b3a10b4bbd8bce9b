"""How fast the exact values are: `python tests/benchmarks/selector_speed.py [PART]...`, seconds and peak memory.

Parts, each in a process of its own so that its peak memory is its own:

* `grid`     500 problems x 256 samples, k = 1, 2, 4 ... 256: coverage, majority, best of N, weighted majority, with the
             1,000 bootstrap replicates of the intervals; a plain-Python version of the same table on a slice beside it.
* `monkeys`  128 problems x 10,000 samples, k = 1, 2, 4 ... 10,000: the same four (the size of Large Language Monkeys).
* `stream`   100 runs of 500 x 256 on disk (12.8 M rows) made once, summarised one after the other.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from harness import plugins
from harness.analysis.bank import Item
from harness.analysis.columns import Columns, StepScores
from harness.analysis.curves import k_grid, values_at_k
from harness.analysis.intervals import mean_with_interval
from harness.nouns import Graded, Selector

SELECTORS = ("coverage", "majority", "best_of_n", "weighted_majority")
PLAIN_PROBLEMS = 4
PLAIN_SUBSETS = 200


def made_up(problems: int, samples: int, seed: int = 0) -> list[Item]:
    """Problems of every difficulty, a few dozen wrong answers each, one silent sample in twenty, step scores."""
    rng = np.random.default_rng(seed)
    items = []
    for number in range(problems):
        wrong = rng.dirichlet(np.full(60, 0.15))
        right = rng.random(samples) < rng.beta(0.7, 1.2)
        classes = np.where(right, 0, 1 + rng.choice(60, samples, p=wrong))
        classes[rng.random(samples) < 0.05] = -1
        steps = rng.integers(1, 8, samples)
        scores = np.clip(rng.normal(0.45, 0.2, steps.sum()) + 0.1 * np.repeat(classes == 0, steps), 0.001, 1)
        finished = rng.gamma(4.0, 2.0, samples)
        columns = Columns(
            np.arange(samples), classes, np.full(samples, 100), finished,
            StepScores(scores, np.concatenate(([0], np.cumsum(steps)))),
        )  # fmt: skip
        positions = dict.fromkeys(("seconds", "flops", "tokens"), finished)
        items.append(Item(f"p{number}", "", Graded((), classes == 0, columns), positions))
    return items


def table(items: Sequence[Item]) -> dict[str, float]:
    """Seconds per selector for its values on the grid and their intervals."""
    seconds = {}
    ks = k_grid(len(items[0].graded))
    began_cpu = time.process_time()
    for name in SELECTORS:
        selector: Selector = plugins.load_selector(name)
        began = time.perf_counter()
        mean_with_interval(values_at_k(selector, items, ks))
        seconds[name] = time.perf_counter() - began
    return seconds | {"total": sum(seconds.values()), "processor": time.process_time() - began_cpu}


def plain_table(items: Sequence[Item]) -> float:
    """Seconds for the same table in plain Python: random subsets of every size, each choosing anew."""
    rng = random.Random(0)
    rules: list[Callable[[list[int], list[bool], list[float]], float]] = [
        plain_coverage, plain_majority, plain_best, plain_weighted,
    ]  # fmt: skip
    began = time.perf_counter()
    means = []
    for rule in rules:
        rows = []
        for item in items:
            classes, correct = item.graded.classes.tolist(), item.graded.correct.tolist()
            assert item.graded.scores is not None
            scores = item.graded.scores.ranks("last").tolist()
            rows.append([plain_value(rule, classes, correct, scores, k, rng) for k in k_grid(len(classes))])
        means.append(plain_bootstrap(rows, rng))
    return time.perf_counter() - began


def plain_value(
    rule: Callable[[list[int], list[bool], list[float]], float], classes: list[int], correct: list[bool],
    scores: list[float], k: int, rng: random.Random,
) -> float:  # fmt: skip
    """The mean over random subsets."""
    total = 0.0
    for _ in range(PLAIN_SUBSETS):
        drawn = rng.sample(range(len(classes)), k)
        total += rule([classes[i] for i in drawn], [correct[i] for i in drawn], [scores[i] for i in drawn])
    return total / PLAIN_SUBSETS


def plain_coverage(classes: list[int], correct: list[bool], scores: list[float]) -> float:
    return float(any(correct))


def plain_majority(classes: list[int], correct: list[bool], scores: list[float]) -> float:
    return plain_weighted(classes, correct, [1.0] * len(classes))


def plain_best(classes: list[int], correct: list[bool], scores: list[float]) -> float:
    return float(correct[max(range(len(scores)), key=scores.__getitem__)])


def plain_weighted(classes: list[int], correct: list[bool], scores: list[float]) -> float:
    sums: dict[int, float] = defaultdict(float)
    for answer, weight in zip(classes, scores, strict=True):
        if answer >= 0:
            sums[answer] += weight
    if not sums:
        return 0.0
    best = [answer for answer, total in sums.items() if total == max(sums.values())]
    return (0 in best) / len(best)


def plain_bootstrap(rows: list[list[float]], rng: random.Random) -> list[tuple[float, float]]:
    """Percentile limits of each column's mean over the problems."""
    limits = []
    for column in zip(*rows, strict=True):
        means = sorted(sum(rng.choices(column, k=len(column))) / len(column) for _ in range(1000))
        limits.append((means[25], means[975]))
    return limits


def part_grid() -> dict[str, object]:
    items = made_up(500, 256)
    seconds = table(items)
    some = items[:PLAIN_PROBLEMS]
    plain = plain_table(some) * len(items) / len(some)
    return {"seconds": seconds, "plain_python_s (scaled)": plain, "ratio": plain / seconds["total"]}


def part_monkeys() -> dict[str, object]:
    return {"seconds": table(made_up(128, 10_000))}


def part_stream(runs: int = 100) -> dict[str, object]:
    from harness.analysis.summarise import summarise
    from harness.storage.runs import open_run

    selectors = [plugins.load_selector(name) for name in SELECTORS]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        rows = write_run(path)
        before = peak_mib()
        began = time.perf_counter()
        # The same run's folder under a hundred names: what is read and computed is what a hundred runs would cost.
        for number in range(runs):
            link = Path(folder) / f"run{number}"
            link.symlink_to(path)
            summarise(open_run(link), selectors)
        seconds = time.perf_counter() - began
    return {
        "rows": rows * runs, "rows_per_s": rows * runs / seconds, "total_s": seconds, "runs": runs,
        "peak_before_MiB": before,
    }  # fmt: skip


def write_run(path: Path, problems: int = 500, samples: int = 256) -> int:
    """A throughput-protocol run with texts, verdicts and scores; returns its number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from harness.storage.records import COMPLETIONS, SCORES, VERDICTS
    from harness.storage.runs import make_run

    names = [f"made/{number}" for number in range(problems)]
    spec = {
        "model": "made-up", "engine": "none", "task": "none", "protocol": "throughput", "budget": None,
        "samples": samples, "sampling": None,
    }  # fmt: skip
    run = make_run(path, spec, [{"problem_id": n, "prompt": n, "gold": "1", "meta": {}} for n in names])
    run.manifest |= {"engine": {}, "validity": {"verdict": "VALID", "reasons": [], "mend": []}}
    run.save()
    items = made_up(problems, samples)
    rng = np.random.default_rng(1)
    rows = problems * samples
    classes = np.concatenate([item.graded.classes for item in items])
    finished = np.cumsum(rng.exponential(0.01, rows))
    values = np.concatenate([item.graded.scores.values for item in items if item.graded.scores])
    lengths = np.concatenate([np.diff(item.graded.scores.starts) for item in items if item.graded.scores])
    texts = pa.array(["step " * 40 + str(int(answer)) for answer in classes], pa.large_string())
    ids, index = np.repeat(names, samples), np.tile(np.arange(samples), problems)
    known = {
        "problem_id": ids, "sample_index": index, "text": texts, "finish_reason": np.full(rows, "stop"),
        "completion_tokens": np.full(rows, 100), "prompt_tokens": np.full(rows, 50), "started_s": finished * 0.9,
        "first_token_s": finished * 0.91, "finished_s": finished, "prefill_flops": np.full(rows, 1e9),
        "decode_flops": np.full(rows, 2e9), "answer": np.where(classes < 0, None, classes.astype(str)),
        "answer_class": pa.array(classes, mask=classes < 0), "verdict": np.where(classes == 0, "correct", "wrong"),
        "reason": np.full(rows, "made"), "reward_model": np.full(rows, "made"),
        "scores": pa.ListArray.from_arrays(pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32()), values),
    }  # fmt: skip
    for folder, schema in (("completions", COMPLETIONS), ("verdicts", VERDICTS), ("scores", SCORES)):
        (path / folder).mkdir(exist_ok=True)
        columns = []
        for field in schema:
            empty = pa.nulls(rows) if field.nullable else pa.array(np.zeros(rows))
            value = known.get(field.name, empty)
            columns.append((value if isinstance(value, pa.Array) else pa.array(value)).cast(field.type))
        whole = pa.table(columns, schema=schema)
        for start in range(0, rows, 16_384):
            pq.write_table(whole.slice(start, 16_384), path / folder / f"{start // 16_384:06d}.parquet")
    return rows


def peak_mib() -> float:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "grid": part_grid, "monkeys": part_monkeys, "stream": part_stream,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", default=list(parts), help=f"{', '.join(parts)}; all without one")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    for part in asked.part:
        if asked.here:
            found = parts[part]()
            print(json.dumps({part: found, "peak_MiB": peak_mib()}, indent=1))
        else:
            subprocess.run([sys.executable, __file__, part, "--here"], check=True)


if __name__ == "__main__":
    main()
