"""What a finished `ttc paper` says of the paper's claims, whether a second one says the same, and its compact records.

    python tests/benchmarks/paper_claims.py results/thinking-slow-fast-zoo [SECOND] --out results/thinking-slow-fast-zoo

For each panel and task every model is compared with the panel's first one, paired by problem, under every selector at
the budgets of the comparison's own rule; a difference is called ahead or behind where its 95 % interval leaves zero
out, else open. OUT/claims.md is the table, with SECOND's difference beside the first's and whether the two contradict
each other; OUT/claims.json has all numbers; OUT/records.parquet one row per completion, without its text.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))

from harness import plugins
from harness.comparisons.comparing import compare_runs
from harness.comparisons.comparison import SelectorComparison, spelled
from harness.storage.runs import Run, open_run
from harness.sweeping.sweep import Sweep, paper_file, read_sweep

KEPT = ["problem_id", "sample_index", "finish_reason", "prompt_tokens", "completion_tokens", "started_s",
        "first_token_s", "finished_s"]  # fmt: skip
LEVELS = (0.5, 0.75)
"""Of the speed-ups at equal accuracy, those at these places between the lowest and the highest level are shown."""


def runs_of(sweep: Sweep) -> dict[tuple[str, str], list[Run]]:
    """The runs of each panel and task, in the file's order."""
    found: dict[tuple[str, str], list[Run]] = {}
    for cell in sweep.cells:
        found.setdefault((cell.panel, cell.name.removesuffix(f"-{cell.label}")), []).append(open_run(cell.arm.path))
    return found


def conclusions(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Every difference at every budget shown, with crossover and speed-ups beside the largest."""
    selectors = plugins.load_selectors(list(sweep.selectors), sweep.selector_options)
    for (panel, task), runs in runs_of(sweep).items():
        scored = all(any(True for _ in run.scores()) for run in runs)
        wanted = [one for one in selectors if scored or not one.reads_scores]
        (compared,) = compare_runs(runs, wanted).tasks
        for pair in compared.pairs:
            for result in pair.selectors:
                for place, cell in enumerate(sorted(result.budgets, key=lambda cell: -cell.x)):
                    row = {"panel": panel, "task": task, "arm_a": pair.a, "arm_b": pair.b}
                    row |= asdict(cell) | {
                        "selector": result.selector,
                        "says": verdict(cell.low, cell.high),
                        "unfair": list(compared.unfair),
                    }
                    yield row | (endings(result) if place == 0 else {})


def endings(result: SelectorComparison) -> dict[str, Any]:
    """Where the lead changes for good, and how much sooner B is as accurate."""
    ups = result.speed_ups
    shown = [ups[round(place * (len(ups) - 1))] for place in LEVELS] if ups else []
    return {"crossover": asdict(result.crossover), "speed_ups": [asdict(one) for one in shown]}


def verdict(low: float, high: float) -> str:
    """What an interval of B - A says of B."""
    return "ahead" if low > 0 else "behind" if high < 0 else "open"


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two rows of two sweeps the same question; budgets follow from the runs, so by order."""
    return row["panel"], row["task"], row["arm_b"], row["selector"], row["place"]


def numbered(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the place of their budget, 0 for the largest."""
    counts: dict[Any, int] = {}
    found = []
    for row in rows:
        question = row["panel"], row["task"], row["arm_b"], row["selector"]
        found.append(row | {"place": counts.get(question, 0)})
        counts[question] = counts.get(question, 0) + 1
    return found


def table(first: list[dict[str, Any]], second: Mapping[Any, dict[str, Any]]) -> tuple[str, int, int]:
    """The table in Markdown, how many questions both answer, and how many of these they answer contrarily."""
    heads = ["panel", "task", "B against A", "selector", "budget", "A, %", "B, %", "B - A, points", "p (Holm)", "B is"]
    heads += ["again", "B is"] if second else []
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    asked = contrary = 0
    for row in first:
        cells = [row["panel"], row["task"], f"{row['arm_b']} against {row['arm_a']}", row["selector"]]
        cells += [spelled("seconds", row["x"]), f"{100 * row['a']:.1f}", f"{100 * row['b']:.1f}"]
        cells += [interval(row), f"{row['p_holm']:.3f}", row["says"]]
        again = second.get(key_of(row))
        if second:
            cells += [interval(again), again["says"]] if again else ["–", "–"]
        if again:
            asked += 1
            contrary += {row["says"], again["says"]} == {"ahead", "behind"}
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines), asked, contrary


def interval(row: Mapping[str, Any]) -> str:
    """`+3.1 [-0.4, 6.5]` in points."""
    return f"{100 * row['difference']:+.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def endings_told(rows: list[dict[str, Any]]) -> str:
    """Crossovers and speed-ups at equal accuracy, a line for each pair and selector."""
    lines = []
    for row in rows:
        if row["place"]:
            continue
        crossing = row["crossover"]
        ahead = row[f"arm_{crossing['winner']}"] if crossing["winner"] else ""
        place = f"{ahead} leads from {crossing['x']:.3g} s on" if crossing["x"] else crossing["reason"]
        factors = [
            f"at {100 * one['level']:.0f} % {one['factor']:.2f} times as fast {bounds(one)}"
            for one in row["speed_ups"]
            if one["factor"] is not None
        ]
        title = f"{row['panel']}, {row['task']}, {row['arm_b']} against {row['arm_a']}, {row['selector']}"
        lines.append(f"- {title}: {place}; {'; '.join(factors) or 'no accuracy that both reach'}")
    return "\n".join(lines)


def bounds(one: Mapping[str, Any]) -> str:
    """The interval of a speed-up, a dash where the replicates leave the range."""
    low, high = ("–" if one[name] is None else f"{one[name]:.2f}" for name in ("low", "high"))
    return f"[{low}, {high}]"


def read(folder: Path) -> tuple[Sweep, list[dict[str, Any]]]:
    """A finished sweep of the zoo's file and what it says."""
    sweep = read_sweep(paper_file("zoo"), folder)
    return sweep, numbered(conclusions(sweep))


def compact(sweep: Sweep) -> pd.DataFrame:
    """One row per completion of every run, without its text."""
    frames = []
    for cell in sweep.cells:
        run = open_run(cell.arm.path)
        frame = pd.DataFrame(run.completions())[KEPT]
        verdicts = pd.DataFrame(run.verdicts())[["problem_id", "sample_index", "answer", "verdict"]]
        frame = frame.merge(verdicts, how="left", on=["problem_id", "sample_index"])
        scores = pd.DataFrame(run.scores())
        for name, own in scores.groupby("reward_model") if len(scores) else []:
            own = own.assign(**{f"score {name}": [list(one)[-1] if len(one) else None for one in own["scores"]]})
            frame = frame.merge(own[["problem_id", "sample_index", f"score {name}"]], how="left",
                                on=["problem_id", "sample_index"])  # fmt: skip
        frames.append(frame.assign(run=cell.name))
    return pd.concat(frames, ignore_index=True)


def main() -> None:
    """Read one or two finished sweeps and write what they say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    sweep, rows = read(asked.first)
    others = {key_of(row): row for row in read(asked.second)[1]} if asked.second else {}
    text, common, contrary = table(rows, others)
    told = f"Of {common} differences both runs show, {contrary} are contrary." if others else ""
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "claims.md").write_text("\n\n".join(filter(None, [text, told, endings_told(rows)])) + "\n")
    (asked.out / "claims.json").write_text(json.dumps({"first": rows, "second": list(others.values())}, indent=1))
    compact(sweep).to_parquet(asked.out / "records.parquet", compression="zstd", index=False)
    print(told or text)


if __name__ == "__main__":
    main()
