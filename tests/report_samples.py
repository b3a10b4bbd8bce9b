"""Made-up summaries with the shapes that real runs have; every number is a fixed function of its place."""

from dataclasses import replace
from math import exp, inf, log2
from typing import Any

from harness.analysis.summary import Axis, Curve, Point, RunSummary

FACTS: dict[str, Any] = {"engine": "native", "engine_version": "0.1.0", "dtype": "float32", "cores": 16, "seed": 0}
SECONDS = [0.2 * 1.2144**place for place in range(20)]
POWERS = [float(2**place) for place in range(7)]
RISES = {
    "coverage": (0.40, 0.95),
    "weighted_majority": (0.45, 0.78),
    "majority": (0.45, 0.70),
    "first_finish": (0.45, 0.45),
}
SCALES: dict[Axis, float] = {"k": 1, "seconds": 1, "flops": 2e12, "tokens": 900}


def curve(
    selector: str, axis: Axis, shift: float = 0.0, speed: float = 1.0, half: float = 0.15, reach: float = 1.0
) -> Curve:
    low, high = RISES.get(selector, (0.42, 0.66))
    xs = POWERS if axis == "k" else [reach * SCALES[axis] * second for second in SECONDS]
    points = []
    for x in xs:
        progress = log2(x) / 6 if axis == "k" else 1 - exp(-speed * x / reach / SCALES[axis] / 2.2)
        value = min(1.0, max(0.0, low + shift + (high - low) * progress))
        points.append(Point(x, value, max(0.0, value - half), min(1.0, value + 0.9 * half), 40))
    return Curve(selector, axis, tuple(points))


def run(
    model: str = "zoo/teacher",
    selectors: tuple[str, ...] = ("coverage", "majority", "first_finish"),
    axes: tuple[Axis, ...] = ("seconds", "k", "tokens", "flops"),
    shift: float = 0.0,
    speed: float = 1.0,
    half: float = 0.15,
    **changes: Any,
) -> RunSummary:
    curves = tuple(curve(selector, axis, shift, speed, half) for selector in selectors for axis in axes)
    name = f"results/{model.replace('/', '-')}"
    whole = RunSummary(name, model, "math500", 40, 64, "latency", "8s", curves, facts=FACTS, counts={"correct": 1200})
    return replace(whole, **changes)


def paper() -> list[RunSummary]:
    """Teacher, pure student and hybrid student under four selectors."""
    names = tuple(RISES)
    return [
        run("meta-llama/Llama-3.2-3B-Instruct", names),
        run("zoo/mamba-student", names, shift=-0.06, speed=2.6),
        run("zoo/hybrid-student", names, shift=-0.02, speed=1.7),
    ]


def pair() -> list[RunSummary]:
    """Teacher and student under three selectors."""
    return [run("zoo/teacher"), run("zoo/student", shift=-0.08, speed=2.5)]


def many(count: int = 12) -> list[RunSummary]:
    """Checkpoints of one training run."""
    names = ("coverage", "majority")
    return [run(f"lab/step-{1000 * (place + 1)}", names, shift=0.02 * place - 0.2) for place in range(count)]


def invalid(model: str = "zoo/student") -> RunSummary:
    """A run that cannot stand, with two reasons."""
    reasons = ("3 of 40 problems ran past their deadline by more than one decode step", "the arms differ in dtype")
    return run(model, shift=-0.08, speed=2.5, validity="INVALID", reasons=reasons)


def modelled() -> RunSummary:
    """Measured curves along seconds and what a timing table predicts for them."""
    measured = run(selectors=("coverage", "majority"), axes=("seconds", "k"))
    guesses = tuple(replace(curve(name, "seconds", -0.03, 1.1), kind="modelled") for name in ("coverage", "majority"))
    return replace(measured, curves=measured.curves + guesses)


def single_points() -> list[RunSummary]:
    """One sample each, one budget each: every curve is a point."""
    pairs = [("zoo/teacher", 4.0, 0.6), ("zoo/student", 1.5, 0.5)]
    axes: tuple[Axis, Axis] = ("seconds", "k")
    return [
        run(
            model,
            curves=tuple(
                Curve("majority", axis, (Point(x, value, value - 0.15, value + 0.14, 40),))
                for axis, x in zip(axes, (seconds, 1.0), strict=True)
            ),
        )
        for model, seconds, value in pairs
    ]


def extremes() -> RunSummary:
    """Nothing solved by one selector, all by the other; no spread at all; points without a place on paper."""
    xs = (0.0, 1.0, 2.0, 3.0)
    never = tuple(Point(x, 0.0, 0.0, 0.0, 40) for x in xs)
    always = (*(Point(x, 1.0, 1.0, 1.0, 40) for x in xs), Point(inf, 1.0, 1.0, 1.0, 0))
    curves = (Curve("majority", "seconds", never), Curve("coverage", "seconds", always), Curve("empty", "seconds", ()))
    return run(curves=curves)


HOSTILE = '<script>alert(1)</script> & "q" $x_1$ \\write18{ls} 100%'
LONG = "deepseek-ai/" + "DeepSeek-R1-Distill-Qwen-1.5B-" * 6


def tasks() -> list[RunSummary]:
    """One model on three tasks, two of whose names give the same slug, under two protocols."""
    return [
        run(),
        run(task="GSM-8K", problems=1319),
        run(task="gsm 8k", problems=10),
        run(protocol="throughput", budget="60s", facts={}),
    ]


def cases() -> dict[str, list[RunSummary]]:
    """Every list that the figures must survive, by name."""
    return {
        "one-run": [run()],
        "one-run-one-selector": [run(selectors=("majority",))],
        "pair": pair(),
        "one-selector": [replace(r, curves=tuple(c for c in r.curves if c.selector == "majority")) for r in paper()],
        "paper": paper(),
        "twelve": many(),
        "twelve-one-selector": [
            replace(r, curves=tuple(c for c in r.curves if c.selector == "majority")) for r in many()
        ],
        "seven-selectors": [run(selectors=(*RISES, "best_of_n:min", "best_of_n:prod", "weighted:last"))],
        "five-facets": [run(m, (*RISES, "best_of_n")) for m in ("a", "b")],
        "invalid": [invalid()],
        "one-invalid": [run("zoo/teacher"), invalid()],
        "modelled": [modelled()],
        "single-points": single_points(),
        "extremes": [extremes()],
        "zero-width": [run(half=0.0)],
        "same-model-twice": [run(run="results/a"), run(run="results/b", shift=0.1), run(run="results/b", shift=0.2)],
        "hostile": [run(HOSTILE), run("_under\nscore\x00")],
        "long": [run(LONG + "A"), run(LONG + "B", shift=-0.1)],
        "one-long": [run(LONG, reasons=(LONG.replace("-", " ") * 3,), validity="INVALID")],
        "non-ascii": [run("模型/naïve-Ωmega-😀"), run("модель", shift=-0.1)],
        "wide": [run(curves=(wide("seconds"), wide("flops"), wide("tokens"), wide("k")))],
        "ends-apart": [run("a"), run("b", curves=tuple(curve("coverage", "seconds", reach=0.2) for _ in range(1)))],
    }


def wide(axis: Axis) -> Curve:
    """Many decades on one axis."""
    base = 2 if axis == "k" else 10
    xs = [float(base) ** exponent for exponent in range(0 if axis == "k" else -4, 15)]
    return Curve("coverage", axis, tuple(Point(x, place / 20, 0.0, 1.0, 40) for place, x in enumerate(xs)))


def sized(model: str, parameters: float, task: str = "math500", **changes: Any) -> RunSummary:
    """A run whose engine knows the model's size."""
    return run(model, ("coverage", "majority"), task=task, facts={**FACTS, "parameters": parameters}, **changes)


def distillates() -> list[RunSummary]:
    """Teacher and student of two sizes on two tasks."""
    return [
        sized(
            f"{maker}/{name}-{size}B",
            parameters,
            task,
            shift=shift + (size - 1) * 0.05 + 0.1 * (task == "gsm8k"),
            speed=speed,
        )
        for task in ("math500", "gsm8k")
        for size, parameters in ((1, 1.24e9), (3, 3.2e9))
        for maker, name, shift, speed in (("meta", "Llama", 0.0, 1.0), ("lab", "Llamba", -0.06, 2.5))
    ]


def scored(model: str = "zoo/teacher", shift: float = 0.0) -> RunSummary:
    """A run with a reward model: its selectors along seconds and FLOPs with and without what scoring cost."""
    plain = run(model, ("coverage", "majority"), shift=shift)
    curves = []
    for name in ("best_of_n by zoo/orm", "weighted_majority by zoo/orm"):
        for axis in ("seconds", "flops"):
            free = curve(name, axis, shift + 0.12 * name.startswith("weighted"))
            dear = tuple(replace(point, x=point.x * 1.35) for point in free.points)
            curves.append(replace(free, points=dear, reward_model="zoo/orm", charged=True))
            curves.append(replace(free, reward_model="zoo/orm", charged=False))
        curves.append(replace(curve(name, "k", shift), reward_model="zoo/orm"))
    return replace(plain, curves=plain.curves + tuple(curves))
