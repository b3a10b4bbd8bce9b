"""VALID or INVALID: may this run's times be believed, and if not, why and what mends it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from harness.analysis.summary import RunSummary
from harness.budgets import Unit
from harness.running.overshoot import ALLOWED_SHARE, SUFFIX, compliance, count_late
from harness.running.probe import DRIFT, JUDGED_S, LOST_SHARE, drift

FAILED_SHARE = 0.01
"""The share of completions that may be engine failures."""
PREEMPTED_SHARE = 0.01
"""Pre-emptions per completion that are borne: each throws a row's work away and repeats it inside the clock."""
TRUNCATED_SHARE = 0.05
"""The share of completions cut by the token limit from which a warning says so."""
OVERHEAD_SHARE = 0.05
"""The share of the budget that the harness may take before a warning says so."""

TROUBLES = ("out_of_memory", "preemptions")
"""Facts of an engine that count what disturbed it."""

ENGINE_FACTS = (
    "engine",
    "engine_version",
    "torch_version",
    "dtype",
    "state_dtype",
    "quantization",
    "device",
    "device_name",
    "threads",
    "cpu_kernels",
    "cuda_graphs",
    "compiled",
    "prefix_sharing",
    "prefix_caching",
    "sampler",
    "chat_template",
    "clock",
)
"""Facts of an engine that must agree between the arms of a comparison, where both arms tell them."""
SAMPLING_FACTS = ("temperature", "top_p", "top_k", "max_tokens", "stop")
MACHINE_FACTS = ("cpu", "cores", "gpu")
SAME_IN_ARMS = (*ENGINE_FACTS, *MACHINE_FACTS, *SAMPLING_FACTS, "workers")
"""Facts that must agree between the arms of a comparison."""
UNSAID = {"workers": 1}
"""What a run that does not tell a fact has of it."""
SPOKEN = {"state_dtype": "the dtype of the state", "cuda_graphs": "CUDA graphs", "cpu_kernels": "CPU kernels"}


class Fault(NamedTuple):
    """Why a run is not VALID, and what to do about it."""

    reason: str
    mend: str


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the verdict on a run goes by.

    `timing` holds columns of timing.parquet, `finish_reasons` counts the stored completions; `missing` counts samples
    that never started although no deadline struck in their scope; `scopes` is how many scopes the run has; `segments`
    and `engine` are the manifest's.
    """

    timing: Mapping[str, Sequence[float | None]]
    unit: Unit
    scopes: int
    finish_reasons: Mapping[str, int]
    missing: int
    segments: Sequence[Mapping[str, Any]] = ()
    engine: Mapping[str, Any] = field(default_factory=dict)
    task_faults: int = 0
    """Verdicts that are an exception of the task."""

    @property
    def completions(self) -> int:
        """How many are stored."""
        return sum(self.finish_reasons.values())


def faults_of(run: RunFacts) -> list[Fault]:
    """What is wrong with a run that has ended, each fault with its mend."""
    return [*late(run), *failures(run), *troubles(run), *clock_steps(run), *machine_drift(run), *unlike_workers(run)]


def late(run: RunFacts) -> Iterator[Fault]:
    """Deadlines that were not kept."""
    count = count_late(run.timing)
    if count > ALLOWED_SHARE * max(1, run.scopes):
        worst = compliance(run.timing, run.unit)[f"overshoot_worst_{SUFFIX[run.unit]}"]
        shown = f"{worst:.3f} s" if run.unit == "seconds" else f"{worst:.4g} {run.unit}"
        yield Fault(
            f"{count} of {run.scopes} deadlines were overshot by more than two decode steps (worst {shown})",
            "free the machine of other work, or make the batch smaller, and run again",
        )


def failures(run: RunFacts) -> Iterator[Fault]:
    """Completions that failed, and samples that are not there."""
    failed = run.finish_reasons.get("error", 0)
    if failed > FAILED_SHARE * max(1, run.completions):
        yield Fault(
            f"{failed} of {run.completions} completions failed in the engine",
            "read the errors with `ttc show RUN` and run again",
        )
    if run.task_faults > FAILED_SHARE * max(1, run.completions):
        yield Fault(
            f"the task raised an exception on {run.task_faults} of {run.completions} completions",
            "read the reasons with `ttc show RUN PROBLEM`, mend the task and bench into another --out",
        )
    if run.missing:
        yield Fault(f"{run.missing} samples are missing", "run the same command again: it goes on where it stopped")


def troubles(run: RunFacts) -> Iterator[Fault]:
    """Work that the engine did twice inside the clock."""
    told = [segment.get("troubles") or {} for segment in run.segments]
    counts = {name: sum(each.get(name, 0) for each in told) for name in TROUBLES}
    if counts["out_of_memory"]:
        size = run.engine.get("max_batch_size")
        yield Fault(
            f"the engine ran out of memory {counts['out_of_memory']} times and repeated work with a smaller batch",
            f"run again with -M max_batch_size={size}" if size else "run again with a smaller batch",
        )
    if counts["preemptions"] > PREEMPTED_SHARE * max(1, run.completions):
        yield Fault(
            f"the engine pre-empted {counts['preemptions']} rows for lack of memory and repeated their work",
            "run again with fewer rows in flight or more memory for the cache",
        )


def clock_steps(run: RunFacts) -> Iterator[Fault]:
    """Clocks that parted company."""
    watched = [record for records in watchers(run.segments) for record in records]
    steps = [step for record in watched for step in (record.get("clock_steps_s") or {}).items()]
    if steps:
        name, step = max(steps, key=lambda item: abs(item[1]))
        yield Fault(
            f"the clock {name} went {abs(step):.3g} s {'ahead of' if step > 0 else 'behind'} the clock of the run",
            "keep the machine awake and its time unchanged (a suspend, a paused virtual machine or a clock that was "
            "set does this) and run again",
        )


def machine_drift(run: RunFacts) -> Iterator[Fault]:
    """A machine that was not the same, or not this run's alone, all the time."""
    if sum(segment.get("generate_s", 0.0) for segment in run.segments) < JUDGED_S:
        return
    machines = [probes_of(records) for records in watchers(run.segments)]
    for name, allowed in DRIFT.items():
        factor = max((drift(probes).get(name, 0.0) for probes in machines), default=0.0)
        if factor > allowed:
            what = {"compute_s": "processor", "memory_s": "memory", "gpu_s": "GPU"}[name]
            yield Fault(
                f"the {what} was {factor:.2f} times slower at some times of the run than at others, by a probe",
                "free the machine of other work, let it cool or fix its clock rate, and run again",
            )
    lost = max((median(probes.get("lost_share") or [0.0]) for probes in machines), default=0.0)
    if lost > LOST_SHARE:
        yield Fault(
            f"other programs took {lost:.0%} of the processor from a probe of one thread",
            "free the machine of other work and run again",
        )


def watchers(segments: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Who watched the clocks and the machine, place by place: this process, or each of the workers."""
    places: dict[int | None, list[Mapping[str, Any]]] = {}
    for segment in segments:
        for record in segment.get("workers") or [segment]:
            places.setdefault(record.get("worker"), []).append(record)
    return list(places.values())


def probes_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The probes of one place, by what was probed."""
    probes: dict[str, list[float]] = {}
    for record in records:
        for name, values in (record.get("probes") or {}).items():
            probes.setdefault(name, []).extend(values)
    return probes


def unlike_workers(run: RunFacts) -> Iterator[Fault]:
    """Workers of several kinds, or several numbers of them: the run's times are then of no one machine."""
    counts = {int(segment.get("crew", 1)) for segment in run.segments}
    if len(counts) > 1:
        yield Fault(
            f"the sittings of the run had {' and '.join(map(str, sorted(counts)))} workers",
            "keep to one number of workers, and run again with another --out",
        )
    facts = [facts_of_worker(record) for segment in run.segments for record in segment.get("workers", ())]
    for name in (*ENGINE_FACTS, *MACHINE_FACTS):
        found = list(dict.fromkeys(str(fact[name]) for fact in facts if fact.get(name) is not None))
        if len(found) > 1:
            yield Fault(
                f"the workers differ in {SPOKEN.get(name, name.replace('_', ' '))}: {' and '.join(found)}",
                "run again on nodes of one kind",
            )


def facts_of_worker(record: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal among workers: of the engine, and of the machine."""
    machine = record["machine"]
    hardware = {"cpu": machine["cpu"], "cores": machine["usable_cores"]}
    return {**record["engine"], **hardware, "gpu": ", ".join(gpu["name"] for gpu in machine["gpus"]) or None}


def overhead_of(run: RunFacts) -> dict[str, float]:
    """Seconds inside the clock in which the engine waited for the harness, and their share; empty when not known."""
    outside = [value for value in run.timing["outside_s"] if value is not None]
    inside = sum(
        elapsed or 0.0
        for elapsed, value in zip(run.timing["elapsed_s"], run.timing["outside_s"], strict=True)
        if value is not None
    )
    # A replayed run's clock is not the one that the harness spends.
    if not outside or inside <= 0 or run.engine.get("clock") == "recorded":
        return {}
    return {"outside_s": sum(outside), "share": sum(outside) / inside}


def warnings_of(run: RunFacts) -> list[str]:
    """What a reader should know of a run although it does not make its times wrong."""
    found = []
    cut = run.finish_reasons.get("length", 0)
    if cut > TRUNCATED_SHARE * max(1, run.completions):
        found.append(
            f"{cut} of {run.completions} completions ({cut / run.completions:.0%}) were cut by the token limit; "
            "accuracy may rise with a larger --max-tokens"
        )
    if run.engine.get("strategy_replays") is False:
        found.append(
            f"the strategy {run.engine['strategy']} goes by its deadline: what had finished at a smaller budget is not "
            "what a run under that budget would have"
        )
    share = overhead_of(run).get("share", 0.0)
    if share > OVERHEAD_SHARE:
        found.append(f"the harness itself took {share:.0%} of the time in the budget")
    return found


def common_facts(summaries: Sequence[RunSummary]) -> dict[str, Any]:
    """What a fair comparison needs equal and every run tells alike, by name."""
    told = [{"protocol": one.protocol, **UNSAID, **one.facts} for one in summaries]
    names = [name for name in ("protocol", *SAME_IN_ARMS) if all(facts.get(name) is not None for facts in told)]
    return {name: told[0][name] for name in names if len({str(facts[name]) for facts in told}) == 1}


def differing_arms(summaries: Sequence[RunSummary]) -> list[str]:
    """The facts in which runs of one task differ although a fair comparison needs them equal, as sentences.

    A fact that only some of the runs tell is not held against the others.
    """
    sentences = []
    for name in ("protocol", *SAME_IN_ARMS):
        seen: dict[str, str] = {}
        for summary in summaries:
            value = summary.protocol if name == "protocol" else summary.facts.get(name, UNSAID.get(name))
            if value is not None:
                seen.setdefault(str(value), summary.run)
        if len(seen) > 1:
            sentences.append(
                f"the arms differ in {SPOKEN.get(name, name.replace('_', ' '))}: "
                + ", ".join(f"{run} {value}" for value, run in seen.items())
            )
    return sentences
