"""Accuracy against modelled seconds: what was recorded once, on the time axis of a timing table.

A point stands for k samples: its x is the expected time to produce k of the recorded samples (of a problem, as one
batch; of a run, all problems in flight), its value the expected accuracy over subsets of k. `with_modelled_seconds`
instead puts every sample of a run at the time at which it would have finished there, for all that reads positions.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from harness.analysis.bank import Item, load_bank
from harness.analysis.curves import View, k_grid, values_at_k, views_of
from harness.analysis.intervals import mean_with_interval
from harness.analysis.summary import Curve, Point, RunSummary
from harness.errors import UserError
from harness.nouns import Selector
from harness.storage.runs import Run
from harness.timing.modelled import Job, conversion_s, expected_run_s, expected_s, finish_times, recorded_jobs, waves
from harness.timing.timing_tables import TimingTable

SAME = ("engine", "dtype", "device_name")
"""Facts of an engine that must agree for modelled and measured time to be of the same thing."""


class Comparison(NamedTuple):
    """Measured and modelled seconds of one scope of a run: to its last sample that ended by itself."""

    scope: str
    samples: int
    measured_s: float
    modelled_s: float

    @property
    def error(self) -> float:
        """By how much of the measured time the model is off, negative when it is too fast."""
        return self.modelled_s / self.measured_s - 1


def modelled_curves(
    run: Run, selectors: Sequence[Selector], table: TimingTable, limit: int | None = None
) -> tuple[Curve, ...]:
    """Every selector's accuracy against modelled seconds, in the run's own protocol; no reward model's time is in them.

    Args:
        run: with token counts.
        selectors: those that read scores have a curve for each reward model of the run.
        table: of any engine and machine.
        limit: rows in flight at most; None takes the largest batch of the table.

    Raises UserError when the run has no token counts or needs times beyond the table.
    """
    items, jobs = load_bank(run), recorded_jobs(run)
    ks = k_grid(min(len(own) for own in jobs.values()))
    return curves_at(items, selectors, ks, seconds_at_k(run, jobs, table, ks, limit))


def m1_curves(run: Run, selectors: Sequence[Selector], table: TimingTable, longest: int) -> tuple[Curve, ...]:
    """The same with M1's conversion, and named so: k samples of `longest` tokens at the best throughput of any batch.

    Raises UserError as `modelled_curves` does, and when the table covers no generation after a prompt of its own.
    """
    items, jobs = load_bank(run), recorded_jobs(run)
    ks = k_grid(min(len(own) for own in jobs.values()))
    line = table.decodes.lines[0] if table.decodes.lines else None
    if line is None or not table.prefills.lines:
        raise UserError("the timing table has no times of prompts and passes; measure again with `ttc speed MODEL`")
    prompt = max(line.first, table.prefills.lines[0].first)
    seconds = [conversion_s(table, k, longest, prompt, line.last - prompt + 1) for k in ks]
    named = [replace(selector, name=f"{selector.name} (M1 conversion)") for selector in selectors]
    return curves_at(items, named, ks, seconds)


def seconds_at_k(
    run: Run, jobs: Mapping[str, Sequence[Job]], table: TimingTable, ks: Sequence[int], limit: int | None
) -> list[float]:
    """The expected seconds of k samples: per problem, a mean over them, or of the whole run."""
    every = list(jobs.values())
    if run.spec.get("protocol") == "throughput":
        return [expected_run_s(table, every, k, limit) for k in ks]
    lengths = [(own[0].prompt, [job.length for job in own]) for own in every]
    return [statistics.fmean(expected_s(table, prompt, own, k, limit) for prompt, own in lengths) for k in ks]


def curves_at(
    items: Sequence[Item], selectors: Sequence[Selector], ks: Sequence[int], seconds: Sequence[float]
) -> tuple[Curve, ...]:
    """The values at each k drawn at these seconds."""
    return tuple(
        curve_of(view, seconds, values_at_k(view.selector, view.items, ks)) for view in views_of(items, selectors, "k")
    )


def curve_of(view: View, seconds: Sequence[float], values: np.ndarray) -> Curve:
    """One modelled curve; `values` is (problems, len(seconds))."""
    means, lows, highs = mean_with_interval(values)
    points = tuple(
        Point(float(x), float(value), float(low), float(high), len(values))
        for x, value, low, high in zip(seconds, means, lows, highs, strict=True)
    )
    charged = None if view.reward_model is None else False
    return Curve(view.selector.name, "seconds", points, "modelled", view.reward_model, charged)


def with_modelled_seconds(items: Sequence[Item], run: Run, table: TimingTable, limit: int | None = None) -> list[Item]:
    """The items with each sample at the second at which it would have finished on the table's machine.

    All recorded samples of a problem are one batch, or, in a run whose problems were all in flight, all of them go out
    in waves. A sample that did not end by itself stays at infinity. The reward models' own positions are not changed.
    """
    jobs = recorded_jobs(run)
    finished = finished_s(run, jobs, table, limit)
    moved = []
    for item in items:
        places = np.full(len(item.graded), np.inf)
        ended = np.isfinite(np.asarray(item.positions["tokens"], float))
        for row, index in enumerate(item.graded.sample_index):
            if ended[row]:
                places[row] = finished.get((item.problem_id, int(index)), np.inf)
        moved.append(replace(item, positions={**item.positions, "seconds": places}))
    return moved


def finished_s(
    run: Run, jobs: Mapping[str, Sequence[Job]], table: TimingTable, limit: int | None
) -> dict[tuple[str, int], float]:
    """The modelled finish of every sample on its scope's clock."""
    shared = run.spec.get("protocol") == "throughput"
    scopes = [waves(list(jobs.values()))] if shared else [list(own) for own in jobs.values()]
    return {
        (job.prompt_id, job.sample_index): float(second)
        for scope in scopes
        for job, second in zip(scope, finish_times(table, scope, limit), strict=True)
    }


def with_modelled_curves(
    summary: RunSummary, run: Run, selectors: Sequence[Selector], table: TimingTable, limit: int | None = None
) -> RunSummary:
    """A summary with the modelled curves after its own, and what they rest on among its facts.

    Where the run was made with the table's engine, dtype and device, the error of the model is among them too.
    Raises UserError as `modelled_curves` does.
    """
    facts = {f"timing_{name}": table.facts["engine"].get(name) for name in SAME}
    if all(run.manifest["engine"].get(name) == table.facts["engine"].get(name) for name in SAME):
        facts |= {f"modelled_{name}_error": error for name, error in describe(compare(run, table, limit)).items()}
    curves = modelled_curves(run, selectors, table, limit)
    return replace(summary, curves=(*summary.curves, *curves), facts={**summary.facts, **facts})


def compare(run: Run, table: TimingTable, limit: int | None = None) -> list[Comparison]:
    """Measured against modelled seconds of each scope of a run, from the run's own lengths.

    Scopes that had more than one sitting are left out. Raises UserError as `modelled_curves` does.
    """
    jobs = recorded_jobs(run)
    finished = finished_s(run, jobs, table, limit)
    shared = run.spec.get("protocol") == "throughput"
    scopes: dict[str, list[tuple[float, float]]] = {}
    sittings: dict[str, set[int]] = {}
    for row in run.completions():
        scope = "run" if shared else row["problem_id"]
        sittings.setdefault(scope, set()).add(row["segment"])
        key = (row["problem_id"], row["sample_index"])
        if row["finish_reason"] in ("stop", "length") and key in finished:
            scopes.setdefault(scope, []).append((row["finished_s"], finished[key]))
    return [
        Comparison(scope, len(pairs), max(measured for measured, _ in pairs), max(modelled for _, modelled in pairs))
        for scope, pairs in scopes.items()
        if len(sittings[scope]) == 1
    ]


def describe(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """The sizes of the errors: `median`, `p90` and `worst`, and the signed median as `bias`. Empty for none."""
    if not comparisons:
        return {}
    sizes = np.abs([one.error for one in comparisons])
    return {
        "median": float(np.median(sizes)),
        "p90": float(np.quantile(sizes, 0.9)),
        "worst": float(sizes.max()),
        "bias": float(np.median([one.error for one in comparisons])),
    }
