"""Does a curve replayed from one long run say what fresh runs with smaller budgets say?

    python tests/benchmarks/budget_replay.py [MODEL...] [--out FOLDER] [--budgets 0.3,0.6,1.2] [--problems 60]
                                             [--samples 64] [--blocks 8]

For each model (default `zoo/teacher`): runs on generated arithmetic problems with the longest budget per problem
(latency protocol, the samples of a problem in one batch), and for every smaller budget t fresh runs that were given t,
with the same random streams. A machine's pace is not the same from one quarter of an hour to the next, so the problems
are taken in blocks, and all models and budgets go through a block, in turning order, before the next one. Then, for
coverage, majority and the first answer, the accuracy at t replayed from the long runs stands beside that of the fresh
ones, each with its 95 % interval over problems, and the paired difference with its own. They agree when the interval of
the difference holds 0. Runs that are there already are gone on with, not made again.

Writes replay.csv, replay.png and replay.json into FOLDER (default results/budget-replay) beside the runs; prints the
table; the last line of stdout is one JSON document. Run it on a machine that does nothing else: a fresh run that others
slow down is another machine's run, and its verdict says so.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from harness import plugins
from harness.analysis.bank import load_bank
from harness.analysis.curves import values_along
from harness.budgets import Budget
from harness.nouns import Sampling
from harness.progress import chooser
from harness.running.bench import OWN_ENGINE, Arm, Plan, bench_arm, short
from harness.storage.runs import Run

SELECTORS = ("coverage", "majority", "first")
RESAMPLES = 10_000
MAX_TOKENS = 400

Row = dict[str, Any]


def bench(model: str, budget_s: float, block: int, asked: argparse.Namespace) -> Run:
    """One run of a model on one block of problems with so many seconds for each."""
    options = (f"num_problems={asked.problems // asked.blocks}", f"seed={block}")
    task = plugins.load_task("arithmetic", options)
    sampling = Sampling(temperature=0.8, max_tokens=MAX_TOKENS, seed=asked.seed)
    plan = Plan("arithmetic", options, None, None, "latency", Budget(budget_s), asked.samples, sampling)
    path = asked.out / f"{short(model)}-{budget_s:g}s-{block}"
    engine = plugins.default_engine(model) if plugins.names_checkpoint(model) else OWN_ENGINE
    return bench_arm(Arm(model, engine, (), path), plan, task, chooser(asked.quiet))


def interval(values: Any) -> tuple[float, float, float]:
    """The mean over problems and its 95 % percentile bootstrap interval."""
    import numpy as np

    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def turned(budgets: list[float], by: int) -> list[float]:
    """The budgets in their order, begun with another one for each block."""
    place = by % len(budgets)
    return budgets[place:] + budgets[:place]


def compare(model: str, long: list[Run], fresh: list[Run], budget_s: float) -> list[Row]:
    """Every selector's accuracy at one budget, replayed and fresh, and their paired difference."""
    rows = []
    banks = items_of(long), items_of(fresh)
    for selector in plugins.load_selectors(SELECTORS):
        replayed, made = (values_along(selector, items, "seconds", [budget_s])[:, 0] for items in banks)
        row: Row = {"model": model, "budget_s": budget_s, "selector": selector.name}
        for name, values in (("replayed", replayed), ("fresh", made), ("difference", made - replayed)):
            row[name], row[f"{name}_low"], row[f"{name}_high"] = interval(values)
        row["agrees"] = row["difference_low"] <= 0 <= row["difference_high"]
        row["says_something"] = bool(replayed.any() or made.any())
        row["valid_runs"] = sum(run.manifest["validity"]["verdict"] == "VALID" for run in fresh)
        rows.append(row)
    return rows


def draw(rows: list[Row], curves: dict[str, Any], path: Path) -> None:
    """A panel per model: the replayed curves, and the fresh runs as points with their intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(4.5 * len(curves), 3.4), sharey=True, squeeze=False)
    for axis, (model, (grid, values)) in zip(axes[0], curves.items(), strict=True):
        for number, selector in enumerate(SELECTORS):
            mean, low, high = values[selector]
            axis.plot(grid, mean, color=f"C{number}", label=f"{selector}, replayed")
            axis.fill_between(grid, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
            mine = [row for row in rows if (row["model"], row["selector"]) == (model, selector)]
            heights = [row["fresh"] for row in mine]
            below = [row["fresh"] - row["fresh_low"] for row in mine]
            above = [row["fresh_high"] - row["fresh"] for row in mine]
            style = {"fmt": "o", "color": f"C{number}", "capsize": 3, "label": f"{selector}, fresh run"}
            axis.errorbar([row["budget_s"] for row in mine], heights, [below, above], **style)
        axis.set(title=model, xlabel="budget per problem (s)", xscale="log", ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("accuracy")
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=160)
    pyplot.close(figure)


def items_of(runs: list[Run]) -> list[Any]:
    """The problems of all blocks."""
    return [item for run in runs for item in load_bank(run)]


def curve(runs: list[Run], longest_s: float) -> tuple[Any, dict[str, Any]]:
    """The replayed curves of the long runs: the grid, and each selector's mean, low and high along it."""
    import numpy as np

    grid = np.geomspace(longest_s / 30, longest_s, 25)
    items = items_of(runs)
    found = {}
    for selector in plugins.load_selectors(SELECTORS):
        values = values_along(selector, items, "seconds", [float(x) for x in grid])
        found[selector.name] = np.array([interval(values[:, column]) for column in range(len(grid))]).T
    return grid, found


def word(row: Row) -> str:
    """What a row comes to."""
    if not row["says_something"]:
        return "nothing had finished"
    return "agree" if row["agrees"] else "DIFFER"


def main() -> None:
    """Make the runs, compare, write and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", default=["zoo/teacher"])
    parser.add_argument("--out", type=Path, default=Path("results/budget-replay"))
    parser.add_argument("--budgets", default="0.3,0.6,1.2", help="seconds per problem, each below --longest")
    parser.add_argument("--longest", type=float, default=3.0, help="seconds per problem of the long run")
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=8, help="of problems, each gone through by all before the next")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true")
    asked = parser.parse_args()
    rows: list[Row] = []
    curves: dict[str, Any] = {}
    budgets = [asked.longest, *map(float, asked.budgets.split(","))]
    runs: dict[tuple[str, float], list[Run]] = {}
    for block in range(asked.blocks):
        for model in asked.models:
            for budget_s in turned(budgets, block):
                runs.setdefault((model, budget_s), []).append(bench(model, budget_s, block, asked))
    for model in asked.models:
        long = runs[model, asked.longest]
        curves[model] = curve(long, asked.longest)
        for budget_s in budgets[1:]:
            rows += compare(model, long, runs[model, budget_s], budget_s)
    asked.out.mkdir(parents=True, exist_ok=True)
    with (asked.out / "replay.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, curves, asked.out / "replay.png")
    for row in rows:
        shown = [f"{name} {row[name]:.3f} [{row[name + '_low']:.3f}, {row[name + '_high']:.3f}]"
                 for name in ("replayed", "fresh", "difference")]  # fmt: skip
        print(f"{row['model']:24} {row['budget_s']:5g} s {row['selector']:9} ", *shown,
              word(row), f"{row['valid_runs']} of {asked.blocks} runs VALID")  # fmt: skip
    telling = [row for row in rows if row["says_something"]]
    document = {"rows": rows, "agree": sum(row["agrees"] for row in telling), "of": len(telling)}
    (asked.out / "replay.json").write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
