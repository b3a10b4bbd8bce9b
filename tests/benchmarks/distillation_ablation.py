"""What each stage of MOHAWK is worth, and what MambaInLlama's start is: students of `zoo/teacher` at equal tokens.

    python tests/benchmarks/distillation_ablation.py --out build/ablation [--steps 500]

Five students, each given the same number of tokens of the same texts:

- Llamba by stage 3 alone, by stages 2 and 3, by all three (arXiv 2408.10189, whose Phi-Mamba scored 54.5, 62.3 and 62.7
  at 5 billion tokens: all three > two > one);
- MambaInLlama with mixers that start from the attention, and with mixers that start at random (arXiv 2408.15237: the
  first decides).

Prints and writes a Markdown table with, for each, the first and last loss of every stage, the forward KL from the
teacher on texts of the test split, and pass@1 with its interval; and a figure of the losses. Stopped and typed again it
goes on.
"""

import argparse
import csv
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from harness import plugins
from harness.models.checkpoints import find_checkpoint
from harness.models.distillation.batches import open_batches
from harness.models.distillation.objectives import make_objective
from harness.models.distillation.recipes import LossWeights, Recipe, Stage, parse_recipe
from harness.models.distillation.training import train
from harness.models.native import load_model
from harness.models.tokenizers_ import load_tokenizer
from harness.nouns import Sampling
from harness.progress import chooser
from harness.running.bench import Arm, Plan, bench_arm

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
ROWS, CONTEXT, EDGE = 16, 256, 10
TEXTS = "task:arithmetic?difficulty=1,2,3"
MEASURED_AT = "difficulty=2"
SHARES: dict[str, tuple[float, float, float]] = {
    "llamba, stage 3": (0.0, 0.0, 1.0),
    "llamba, stages 2 + 3": (0.0, 0.3, 0.7),
    "llamba, stages 1 + 2 + 3": (0.1, 0.25, 0.65),
}
STARTS = {"mamba-in-llama, from attention": "attention", "mamba-in-llama, at random": "mohawk"}


def arms(steps: int) -> Iterator[tuple[str, Recipe]]:
    """The recipe of every student."""
    mohawk = parse_recipe(tomllib.loads((RECIPES / "zoo-llamba.toml").read_text()))
    for name, shares in SHARES.items():
        given = zip(mohawk.stages, shares, strict=False)
        stages = [shortened(stage, round(share * steps)) for stage, share in given if share]
        yield name, replace(mohawk, stages=tuple(stages), weights="fp32")
    hybrid = parse_recipe(tomllib.loads((RECIPES / "zoo-mamba-in-llama.toml").read_text()))
    for name, start in STARTS.items():
        student = replace(hybrid.student, initialise=start)  # type: ignore[arg-type]
        yield name, replace(hybrid, student=student, stages=(shortened(hybrid.stages[0], steps),), weights="fp32")


def shortened(stage: Stage, steps: int) -> Stage:
    """The stage for so many smaller steps on shorter texts, whose students solve some problems that soon."""
    data = replace(stage.data, source=TEXTS)
    return replace(stage, rows=ROWS, context=CONTEXT, tokens=steps * ROWS * CONTEXT, data=data)


def losses(out: Path) -> list[list[float]]:
    """The losses of every stage that was trained, step by step."""
    with (out / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    stages = sorted({int(row["stage"]) for row in rows})
    return [[float(row["loss"]) for row in rows if row["stage"] == str(stage)] for stage in stages]


def edges(values: list[float]) -> str:
    """The mean of the first few and the last few."""
    return f"{fmean(values[:EDGE]):.3g} → {fmean(values[-EDGE:]):.3g}"


@torch.inference_mode()
def forward_kl(final: Path, like: Stage) -> float:
    """Mean forward KL per completion token on 8 batches of the test split."""
    stage = replace(like, kind="distillation", rows=32, loss=LossWeights(forward_kl=1.0))
    stage = replace(stage, data=replace(stage.data, split="test", loss_on="completion"))
    batches = open_batches(stage, load_tokenizer(find_checkpoint("zoo/teacher")), seed=99)
    objective = make_objective(stage, load_model(str(final)), load_model("zoo/teacher")).eval()
    return fmean(float(objective(batches.batch(number))["loss"]) for number in range(8))


def pass_at_1(final: Path, out: Path, problems: int) -> str:
    """Accuracy with its 95 % interval over problems (normal, each problem a cluster), in percent."""
    plan = Plan("arithmetic", (MEASURED_AT,), None, problems, "throughput", None, 4, Sampling(0.8, max_tokens=400))
    task = plugins.load_task("arithmetic", (MEASURED_AT,))
    run = bench_arm(Arm(str(final), "native", ("max_batch_size=128",), out), plan, task, chooser(quiet=True))
    of: defaultdict[str, list[bool]] = defaultdict(list)
    for row in run.verdicts():
        of[row["problem_id"]].append(row["verdict"] == "correct")
    means = [100 * fmean(correct) for correct in of.values()]
    half = 1.96 * stdev(means) / len(means) ** 0.5
    return f"{fmean(means):.1f} ± {half:.1f}"


def draw(path: Path, results: dict[str, list[list[float]]]) -> None:
    """The last stage's loss against all tokens so far, one panel for each family."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(6.75, 2.6), layout="constrained")
    for panel, family in zip(panels, ("llamba", "mamba-in-llama"), strict=True):
        for (name, stages), dash in zip(
            ((n, s) for n, s in results.items() if n.startswith(family + ",")), ("-", "--", ":"), strict=False
        ):
            skipped, last = sum(map(len, stages[:-1])), stages[-1]
            smooth = [fmean(last[max(0, i - EDGE) : i + 1]) for i in range(len(last))]
            tokens = [(skipped + i + 1) * ROWS * CONTEXT / 1e6 for i in range(len(last))]
            panel.plot(tokens, smooth, dash, label=name.partition(", ")[2], linewidth=1.2)
        panel.set(yscale="log", xlabel="million tokens", title=family)
        panel.legend(fontsize=7, frameon=False)
    panels[0].set_ylabel("distillation loss")
    figure.savefig(path, dpi=200)


def main() -> None:
    """Train, measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--problems", type=int, default=100)
    asked: Any = parser.parse_args()
    lines = [
        "| student | loss of stage 1 | of stage 2 | of stage 3 | KL on test texts | pass@1, % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    results: dict[str, list[list[float]]] = {}
    for name, recipe in arms(asked.steps):
        out = asked.out / name.replace(", ", "-").replace(" + ", "").replace(" ", "-")
        final = train(recipe, out, chooser(quiet=False))
        results[name] = losses(out)
        told = {stage.kind: edges(values) for stage, values in zip(recipe.stages, results[name], strict=True)}
        cells = [told.get(kind, "–") for kind in ("matrix-orientation", "hidden-alignment", "distillation")]
        kl, accuracy = forward_kl(final, recipe.stages[-1]), pass_at_1(final, out / "bench", asked.problems)
        lines.append(f"| {name} | {' | '.join(cells)} | {kl:.4f} | {accuracy} |")
        print(lines[-1], file=sys.stderr, flush=True)
    draw(asked.out / "ablation.png", results)
    (asked.out / "ablation.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
