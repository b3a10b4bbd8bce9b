"""What a second, or a FLOP, buys: search strategies against independent samples at equal budgets.

    python tests/benchmarks/strategies.py --model zoo/teacher --model zoo/llamba --prm zoo/prm --fast zoo/llamba \
        --budget 1s --budget 15GFLOP --rounds 8 --problems 15 --out FOLDER

For each model and budget every strategy is run on problems of `arithmetic`'s train split with each of its settings, the
number of samples among them; the best setting is kept with the selector that was best with it, and that alone is run on
problems of the test split, under the same budget. A machine's speed drifts, so the strategies take turns: each does a
sheet of problems, then each does the next sheet. Independent samples are shown under every selector, each with its own
best number. The reward model's time and FLOPs are inside the budget wherever it is used. Differences are against the
majority of independent samples of the same model under the same budget, paired by problem, with bootstrap intervals and
sign-flip p values. Runs are kept under OUT/runs and not made twice; OUT/table.md, OUT/strategies.csv,
OUT/strategies.svg and .png are written anew. The last line is one JSON document.

Run it on a machine that does nothing else. `--tiny-prm FOLDER` makes a reward model with random weights there and uses
it, to try the script out.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from harness import plugins
from harness.analysis.bank import Item, load_bank
from harness.analysis.curves import value_of
from harness.budgets import Budget, parse_budget
from harness.nouns import Sampling, Selector
from harness.progress import chooser
from harness.running.bench import Arm, Plan, bench_arm, short, slug
from harness.stats.paired import paired_difference
from harness.storage.runs import Run

PLAIN = ("majority",)
SAMPLES = "samples="
SHARES = tuple(n / 10 for n in range(2, 11))
MARKERS = "os^Dv<>PX*"
SCALES = {"flops": 1e9}
SCORED = ("best_of_n", "weighted_majority", "majority")


@dataclass(frozen=True)
class Way:
    """A strategy with the settings to choose among; `guided` ones and those whose selectors read scores have a PRM."""

    name: str
    strategy: str = ""
    grid: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fixed: Sequence[str] = ()
    selectors: Sequence[str] = PLAIN
    guided: bool = False

    def settings(self) -> Iterator[tuple[str, ...]]:
        """Every combination, the number of samples among them."""
        for values in product(*self.grid.values()):
            yield (*self.fixed, *(f"{name}={value}" for name, value in zip(self.grid, values, strict=True)))


def ways_of(fast: str | None, samples: Sequence[str]) -> list[Way]:
    """What is compared, the baseline first; how many samples to begin with is a setting of every one."""
    counts = {"samples": sorted(samples, key=int, reverse=True)}
    widths = counts | {"width": ("2", "4")}
    found = [
        Way("independent, majority", grid=counts),
        Way("independent, best of n", grid=counts, selectors=("best_of_n",), guided=True),
        Way("independent, weighted majority", grid=counts, selectors=("weighted_majority",), guided=True),
        Way("beam search", "beam_search", widths, selectors=SCORED, guided=True),
        Way("DVTS", "dvts", widths, selectors=SCORED, guided=True),
        Way("REBASE", "rebase", counts | {"balance": ("0.1", "0.3")}, selectors=SCORED, guided=True),
        Way("budget forcing", "budget_forcing", counts | {"waits": ("1", "2")}),
        Way("probing", "probing", counts | {"reserve": ("0.05", "0.1")}),
        Way("self-consistency, early stop", "self_consistency", counts),
    ]
    cascade = Way("cascade", "cascade", counts | {"agreement": ("0.5", "0.75")}, (f"fast={fast}",))
    return [*found, cascade] if fast else found


class Sheet(NamedTuple):
    """Some problems of a split of `arithmetic`."""

    split: str
    problems: int
    seed: int = 0


@dataclass(frozen=True)
class Bench:
    """What all runs have in common."""

    out: Path
    prm: str
    max_tokens: int
    difficulty: int
    seed: int
    engine: str | None
    engine_args: tuple[str, ...]

    def run(self, model: str, way: Way, setting: tuple[str, ...], budget: Budget, sheet: Sheet) -> Run:
        """Make a run, or find it."""
        options = (f"split={sheet.split}", f"difficulty={self.difficulty}", f"num_problems={sheet.problems}")
        options += (f"seed={sheet.seed}",) if sheet.seed else ()
        (samples,) = (int(one.removeprefix(SAMPLES)) for one in setting if one.startswith(SAMPLES))
        asked = Plan(
            "arithmetic", options, None, None, "latency", budget, samples,
            Sampling(temperature=0.8, max_tokens=self.max_tokens, seed=self.seed), (self.prm,) if way.guided else (),
            (), way.strategy, tuple(one for one in setting if not one.startswith(SAMPLES)),
        )  # fmt: skip
        kind = way.strategy or ("scored" if way.guided else "plain")
        name = slug("-".join([short(model), kind, *setting, str(budget), sheet.split, *options[3:]]))
        engine = self.engine or plugins.default_engine(model)
        arm = Arm(model, engine, self.engine_args, self.out / "runs" / name)
        return bench_arm(arm, asked, plugins.load_task("arithmetic", options), chooser(True))


def values(items: Sequence[Item], selector: Selector, unit: str, amount: float) -> np.ndarray:
    """(problems,) the accuracy of what the selector chooses among what was there by then, scored if it needs that."""
    found = []
    for item in items:
        seen = item.seen_by(next(iter(item.scores))) if selector.reads_scores else item
        places = np.flatnonzero(seen.positions[unit] <= amount)
        found.append(value_of(selector, item.prompt, seen.graded.take(places)) if len(places) else 0.0)
    return np.array(found)


def spent(runs: Sequence[Run], unit: str) -> float:
    """What a problem took in the mean, in the unit of the budget."""
    column = "elapsed_s" if unit == "seconds" else "spent"
    return float(np.mean(np.concatenate([run.timing_table()[column].to_numpy() for run in runs])))


def verdict(runs: Sequence[Run]) -> str:
    """VALID, or how many of the runs are not."""
    invalid = sum(run.manifest["validity"]["verdict"] != "VALID" for run in runs)
    return f"{invalid} of {len(runs)} INVALID" if invalid else "VALID"


def chosen(bench: Bench, model: str, way: Way, budget: Budget, problems: int) -> tuple[tuple[str, ...], str, float]:
    """The setting and the selector that are best on the train split, and how good; of equals the most samples."""
    tried = []
    for setting in way.settings():
        items = load_bank(bench.run(model, way, setting, budget, Sheet("train", problems)))
        for selector in plugins.load_selectors(way.selectors):
            own = values(items, selector, budget.unit, budget.amount)
            tried.append((float(own.mean()), setting, selector.name))
    best = max(tried, key=lambda one: one[0])
    return best[1], best[2], best[0]


@dataclass(frozen=True)
class Row:
    """One line of the table; differences are in accuracy against the baseline.

    `curve` is the accuracy at each of `SHARES` of the budget, empty for a strategy that goes by its deadline and would
    do something else under a smaller one.
    """

    model: str
    budget: str
    unit: str
    amount: float
    way: str
    setting: str
    selector: str
    tuned: float
    accuracy: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    p_value: float
    spent: float
    verdict: str
    curve: tuple[float, ...]


def compare(
    bench: Bench, model: str, ways: Sequence[Way], asked: str, tuning: int, sheets: Sequence[Sheet]
) -> list[Row]:
    """All ways of one model under one budget, as it was typed: in turns, sheet by sheet, each time in another order."""
    budget = parse_budget(asked)
    picks = [chosen(bench, model, way, budget, tuning) for way in ways]
    runs: list[list[Run]] = [[] for _ in ways]
    for turn, sheet in enumerate(sheets):
        for place in ((start + turn) % len(ways) for start in range(len(ways))):
            runs[place].append(bench.run(model, ways[place], picks[place][0], budget, sheet))
    rows: list[Row] = []
    base: np.ndarray | None = None
    for way, (setting, name, tuned), own_runs in zip(ways, picks, runs, strict=True):
        (selector,) = plugins.load_selectors([name])
        items = [item for run in own_runs for item in load_bank(run)]
        own = values(items, selector, budget.unit, budget.amount)
        replays = own_runs[0].manifest["engine"].get("strategy_replays") is not False
        curve = [float(values(items, selector, budget.unit, share * budget.amount).mean()) for share in SHARES]
        base = own if base is None else base
        low, high = bootstrap(own)
        gap = paired_difference(base[None, :, None], own[None, :, None])
        difference, difference_low, difference_high, p_value = (
            float(np.ravel(one)[0]) for one in (gap.difference, gap.low, gap.high, gap.p_value)
        )
        rows.append(
            Row(
                model, asked, budget.unit, budget.amount, way.name, " ".join(setting), name, tuned,
                float(own.mean()), low, high, difference, difference_low, difference_high, p_value,
                spent(own_runs, budget.unit), verdict(own_runs), tuple(curve) if replays else (),
            )
        )  # fmt: skip
        print(f"{model} {asked} {way.name}: {own.mean():.3f} ({rows[-1].difference:+.3f})", file=sys.stderr)
    return rows


def bootstrap(own: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean over problems."""
    from harness.stats.resampling import percentile_interval, replicate_means

    low, high = percentile_interval(replicate_means([own[None, :, None]])[0], len(own))
    return float(np.ravel(low)[0]), float(np.ravel(high)[0])


def table_of(rows: Sequence[Row], bench: Bench, tuning: int, problems: int) -> str:
    """The table as Markdown."""
    lines = [
        f"`arithmetic`, difficulty {bench.difficulty}, {problems} problems of the test split, settings (the number of "
        f"samples among them) and selector chosen on {tuning} of the train split; 95 % intervals over problems; "
        "differences are against independent samples and majority, paired; `spent` is per problem.",
        "",
        "| model | budget | strategy | setting | selector | accuracy | difference | p | spent | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        is_base = row.way == rows[0].way
        gap = f"{100 * row.difference:+.1f} [{100 * row.difference_low:+.1f}, {100 * row.difference_high:+.1f}]"
        value = f"{100 * row.accuracy:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        cells = [row.model, row.budget, row.way, f"`{row.setting}`", row.selector, value]
        cells += ["–", "–"] if is_base else [gap, f"{row.p_value:.3f}"]
        lines.append("| " + " | ".join([*cells, spent_of(row), row.verdict]) + " |")
    return "\n".join(lines) + "\n"


def spent_of(row: Row) -> str:
    """What a problem took, with its unit."""
    return f"{row.spent / SCALES['flops']:.1f} GFLOP" if row.unit == "flops" else f"{row.spent:.2f} {row.unit}"


def draw(rows: Sequence[Row], out: Path) -> None:
    """Accuracy at the largest budget of each unit, and on the way there where a strategy would have done the same."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    largest = {
        unit: max(row.amount for row in rows if row.unit == unit) for unit in dict.fromkeys(r.unit for r in rows)
    }
    models = list(dict.fromkeys(row.model for row in rows))
    figure, axes = plt.subplots(
        len(largest), len(models), figsize=(4.2 * len(models), 3.6 * len(largest)), squeeze=False, sharey=True
    )
    ways = list(dict.fromkeys(row.way for row in rows))
    for (line, (unit, amount)), (column, model) in product(enumerate(largest.items()), enumerate(models)):
        panel, end = axes[line][column], amount / SCALES.get(unit, 1)
        for row in (row for row in rows if (row.unit, row.amount, row.model) == (unit, amount, model)):
            number = ways.index(row.way)
            look = {"color": f"C{number}", "marker": MARKERS[number], "ms": 5, "lw": 1}
            if row.curve:
                panel.plot([end * share for share in SHARES], [100 * one for one in row.curve], label=row.way, **look)
            # Behind the budget's end they stand beside one another, so that their bars can be told apart.
            bars = [[100 * (row.accuracy - row.low)], [100 * (row.high - row.accuracy)]]
            place = end * (1.04 + 0.025 * number)
            label = None if row.curve else row.way
            panel.errorbar([place], [100 * row.accuracy], bars, capsize=2, elinewidth=0.6, label=label, **look)
        budget = next(row.budget for row in rows if (row.unit, row.amount) == (unit, amount))
        panel.set(title=f"{model}, {budget} a problem", ylabel="accuracy (%)" if column == 0 else "")
        panel.set_xlabel(f"{'GFLOP' if unit == 'flops' else unit}; shaded: the end, with 95 % intervals")
        panel.set_xticks([end * share for share in SHARES[::2]])
        panel.axvspan(end * 1.02, end * (1.06 + 0.025 * len(ways)), color="0.94", zorder=0, lw=0)
        panel.margins(x=0.01)
        panel.grid(alpha=0.3)
    labelled = [panel.get_legend_handles_labels() for panel in axes.flat]
    handles = {name: handle for found, names in labelled for handle, name in zip(found, names, strict=True)}
    figure.legend([handles[way] for way in ways], ways, loc="lower center", ncols=5, fontsize=8)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    for suffix in ("svg", "png"):
        figure.savefig(out / f"strategies.{suffix}", dpi=150)


def tiny_prm(folder: Path, tokenizer_of: str) -> str:
    """A process reward model with random weights and the tokenizer of a checkpoint."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForTokenClassification

    from harness.models.checkpoints import find_checkpoint

    tokenizer = AutoTokenizer.from_pretrained(find_checkpoint(tokenizer_of).folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, intermediate_size=48, num_attention_heads=4,
        num_key_value_heads=2, num_labels=2, max_position_embeddings=1024, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForTokenClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def main() -> None:
    """Compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--prm", default="zoo/prm")
    parser.add_argument("--tiny-prm", type=Path)
    parser.add_argument("--fast", help="the cascade's first model; without it there is no cascade")
    parser.add_argument("--budget", action="append", default=None)
    parser.add_argument("--only", action="append", help="a strategy to run beside the baseline; all by default")
    parser.add_argument("--samples", action="append", help="a number of samples to begin with; 16 and 8 by default")
    parser.add_argument("--rounds", type=int, default=8, help="sheets of problems that all strategies do in turns")
    parser.add_argument("--problems", type=int, default=15, help="problems of a sheet")
    parser.add_argument("--tune-problems", type=int, default=16)
    parser.add_argument("--difficulty", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine")
    parser.add_argument("--engine-arg", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    prm = tiny_prm(asked.tiny_prm, asked.model[0]) if asked.tiny_prm else asked.prm
    bench = Bench(
        asked.out, prm, asked.max_tokens, asked.difficulty, asked.seed, asked.engine,
        tuple(asked.engine_arg),
    )  # fmt: skip
    sheets = [Sheet("test", asked.problems, seed) for seed in range(1, asked.rounds + 1)]
    problems = asked.rounds * asked.problems
    rows: list[Row] = []
    for model, budget in product(asked.model, asked.budget or ["1s", "15GFLOP"]):
        # A model that is its own fast one has nobody to pass a problem on to.
        ways = ways_of(None if model == asked.fast else asked.fast, asked.samples or ["16", "8"])
        kept = [way for way in ways if not asked.only or way is ways[0] or way.strategy in asked.only]
        rows += compare(bench, model, kept, budget, asked.tune_problems, sheets)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "table.md").write_text(table_of(rows, bench, asked.tune_problems, problems), encoding="utf-8")
    with (asked.out / "strategies.csv").open("w", newline="", encoding="utf-8") as file:
        cells = [asdict(row) for row in rows]
        for row, cell in zip(rows, cells, strict=True):
            del cell["curve"]
            cell.update(
                {f"at_{share:.1f}": at for share, at in zip(SHARES, row.curve or [""] * len(SHARES), strict=True)}
            )
        writer = csv.DictWriter(file, list(cells[0]))
        writer.writeheader()
        writer.writerows(cells)
    draw(rows, asked.out)
    print((asked.out / "table.md").read_text(encoding="utf-8"))
    document: dict[str, Any] = {"problems": problems, "rows": [asdict(row) for row in rows]}
    print(json.dumps(document))


if __name__ == "__main__":
    main()
