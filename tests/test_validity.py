"""When a run, or a comparison of runs, may be believed; and the overshoot behind it."""

from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from report_runs import write_run

from harness.analysis.summarise import marked, without_curves
from harness.analysis.summary import RunSummary
from harness.budgets import Budget
from harness.nouns import Completion
from harness.running.bench import note_arms
from harness.running.overshoot import Pace, compliance, compliance_lines, scope_timing
from harness.running.validity import RunFacts, differing_arms, faults_of, overhead_of, warnings_of
from harness.storage.runs import open_run

NAMES = ("overshoot", "overshoot_s", "overshoot_steps", "elapsed_s", "outside_s")


def scope(over: float | None, steps: float | None, **more: float) -> dict[str, float | None]:
    return {"overshoot": over, "overshoot_s": None, "overshoot_steps": steps, "elapsed_s": 1.0, "outside_s": 0.0} | more


def columns(scopes: list[dict[str, float | None]]) -> dict[str, list[float | None]]:
    return {name: [one[name] for one in scopes] for name in NAMES}


def facts(scopes: Any = (), reasons: Any = None, missing: int = 0, count: int = 100, **more: Any) -> RunFacts:
    return RunFacts(columns(list(scopes)), "seconds", count, reasons or {"stop": 100}, missing, **more)


def arm(name: str, **told: object) -> RunSummary:
    return RunSummary(name, name, "toy", 1, 1, "latency", None, (), facts=told)


def row(tokens: int, first: float | None, finished: float, batch: float = 1.0, flops: float = 0.0) -> Completion:
    return Completion("p", 0, "", "stop", 1, tokens, 0, 0.0, 0.0, first, finished, batch, 0.0, flops)


def reasons(found: RunFacts) -> list[str]:
    faults = faults_of(found)
    assert all(fault.mend for fault in faults)
    return [fault.reason for fault in faults]


def test_a_clean_run_has_no_faults() -> None:
    assert faults_of(facts([scope(0.01, 0.5)] * 10, {"stop": 30, "deadline": 4}, count=10)) == []


def test_one_late_scope_in_a_hundred_is_allowed_and_two_are_not() -> None:
    kept = [scope(0.0, 0.0)] * 98
    assert faults_of(facts([*kept, scope(0.0, 0.0), scope(0.9, 3.0)])) == []
    assert reasons(facts([*kept, scope(0.5, 2.5), scope(0.9, 3.0)])) == [
        "2 of 100 deadlines were overshot by more than two decode steps (worst 0.900 s)"
    ]


def test_late_flop_budgets_are_told_in_flops() -> None:
    timing = columns([scope(3e9, 2.5)] * 2)
    (fault,) = faults_of(RunFacts(timing, "flops", 2, {"stop": 4}, 0))
    assert fault.reason.endswith("(worst 3e+09 flops)")


def test_failures_and_missing_samples_are_faults_with_a_mend() -> None:
    found = facts((), {"stop": 90, "error": 10}, 7)
    assert reasons(found) == ["10 of 100 completions failed in the engine", "7 samples are missing"]
    assert "run the same command again" in faults_of(found)[1].mend


def test_work_done_twice_is_a_fault() -> None:
    segments = [{"troubles": {"out_of_memory": 1, "preemptions": 1}}, {"troubles": {"out_of_memory": 2}}, {}]
    found = facts(segments=segments, engine={"max_batch_size": 16})
    assert reasons(found) == ["the engine ran out of memory 3 times and repeated work with a smaller batch"]
    assert "max_batch_size=16" in faults_of(found)[0].mend
    assert reasons(facts(segments=[{"troubles": {"preemptions": 2}}])) == [
        "the engine pre-empted 2 rows for lack of memory and repeated their work"
    ]


def test_clocks_that_part_are_a_fault() -> None:
    segments = [{"clock_steps_s": {"calendar": -0.5}}, {"clock_steps_s": {"since boot": 30.0}}, {"clock_steps_s": {}}]
    assert reasons(facts(segments=segments)) == ["the clock since boot went 30 s ahead of the clock of the run"]
    assert reasons(facts(segments=segments[:1])) == ["the clock calendar went 0.5 s behind the clock of the run"]


def test_a_machine_that_slowed_down_is_a_fault_of_a_run_that_took_long_enough_to_feel_it() -> None:
    probes = {"compute_s": [0.010, 0.0101, 0.014], "memory_s": [0.01, 0.012, 0.011], "lost_share": [0.0, 0.1, 0.5]}
    segment = {"generate_s": 60.0, "probes": probes}
    # The 90th percentile is 0.0101 + 0.8 * 0.0039, the 10th 0.010 + 0.2 * 0.0001, and their ratio 1.319.
    assert reasons(facts(segments=[segment])) == [
        "the processor was 1.32 times slower at some times of the run than at others, by a probe"
    ]
    assert reasons(facts(segments=[segment | {"generate_s": 5.0}])) == []
    assert reasons(facts(segments=[segment | {"probes": {"compute_s": [0.01]}}])) == []


def test_one_slow_probe_of_many_is_no_fault() -> None:
    probes = {"compute_s": [0.01] * 20 + [0.1]}
    assert reasons(facts(segments=[{"generate_s": 60.0, "probes": probes}])) == []


def test_a_processor_shared_with_others_is_a_fault() -> None:
    segments = [{"generate_s": 60.0, "probes": {"lost_share": [0.4, 0.3]}}]
    assert reasons(facts(segments=segments)) == ["other programs took 35% of the processor from a probe of one thread"]


def test_truncation_is_a_warning_and_no_fault() -> None:
    cut = facts((), {"stop": 94, "length": 6})
    assert faults_of(cut) == []
    assert warnings_of(cut) == [
        "6 of 100 completions (6%) were cut by the token limit; accuracy may rise with a larger --max-tokens"
    ]
    assert warnings_of(facts((), {"stop": 95, "length": 5})) == []


def test_the_harness_share_is_of_the_time_inside_the_budgets() -> None:
    scopes = [scope(0.0, 0.0, elapsed_s=9.0, outside_s=0.5), scope(0.0, 0.0, elapsed_s=1.0, outside_s=0.1)]
    assert overhead_of(facts(scopes)) == {"outside_s": 0.6, "share": 0.06}
    assert warnings_of(facts(scopes)) == ["the harness itself took 6% of the time in the budget"]
    assert overhead_of(facts([scope(0.0, 0.0) | {"outside_s": None}])) == {}
    assert overhead_of(facts(scopes, engine={"clock": "recorded"})) == {}


# Compliance


def test_compliance_is_the_distribution_of_the_overshoot() -> None:
    found = compliance(columns([scope(0.0, 0.0), scope(0.1, 1.0), scope(0.4, 4.0), scope(None, None)]), "seconds")
    assert found == pytest.approx(
        {
            "scopes": 3,
            "within_budget": 1 / 3,
            "within_one_step": 2 / 3,
            "late_share": 1 / 3,
            "overshoot_median_s": 0.1,
            "overshoot_p99_s": 0.394,
            "overshoot_worst_s": 0.4,
            "overshoot_median_steps": 1.0,
            "overshoot_p99_steps": 3.94,
            "overshoot_worst_steps": 4.0,
        }
    )
    assert compliance(columns([scope(None, None)]), "seconds") == {}


def test_runs_that_know_only_seconds_are_read() -> None:
    assert compliance(columns([scope(None, 1.0, overshoot_s=0.2)]), "seconds")["overshoot_worst_s"] == 0.2


def test_overshoot_of_flops_and_tokens_is_told_in_their_unit() -> None:
    assert compliance(columns([scope(7.0, 0.5)]), "tokens")["overshoot_worst_tokens"] == 7.0
    assert compliance(columns([scope(7e9, 0.5)]), "flops")["overshoot_median_flops"] == 7e9


def test_what_a_person_reads() -> None:
    manifest = {
        "spec": {"budget": "3s"},
        "compliance": compliance(columns([scope(0.0, 0.0), scope(0.004, 0.5)]), "seconds"),
        "overhead": {"outside_s": 0.02, "share": 0.0031},
        "validity": {"warnings": ["many were cut"]},
    }
    assert compliance_lines(manifest) == [
        "budget 3s: kept in 1 of 2 scopes, in 2 within one decode step",
        "overshoot in seconds: median 0.002, 99 % 0.00396, worst 0.004",
        "overshoot in decode steps: median 0.25, 99 % 0.495, worst 0.5",
        "harness overhead 0.31 % of the time in the budget",
        "warning: many were cut",
    ]
    assert compliance_lines({"spec": {"budget": None}, "validity": {}}) == []


def test_the_length_of_a_step_is_the_mean_over_rows_of_more_than_one_token() -> None:
    pace = Pace(None)
    for one in (row(1, 1.0, 1.0), row(3, 1.0, 2.0, 4.0, 20.0), row(2, None, 9.0), row(5, 1.0, 9.0, 2.0, 40.0)):
        pace.add(one)
    assert (pace.completions, pace.last_s) == (4, 9.0)
    assert pace.step("seconds") == (0.5 + 2.0) / 2
    assert pace.step("flops") == (4 * 20 / 2 + 2 * 40 / 4) / 2
    assert pace.step("tokens") == 3.0
    assert Pace(None).step("seconds") is None


def test_a_step_that_never_ends_is_not_its_own_measure() -> None:
    pace = Pace(Budget(10.0))
    pace.add(row(4, 1.0, 1010.0))
    # Three steps; by the deadline at least two had ended in nine seconds, or one of them was still under way.
    assert pace.step("seconds") == 4.5


def scope_of(budget: Budget | None, rows: list[Completion], flops: float = 0.0, tokens: int = 0) -> dict[str, Any]:
    clock = FakeClock()
    deadline = budget.start(clock) if budget else Budget(1.0).start(clock)
    deadline.budget = budget
    clock.sleep(3.0)
    deadline.charge(flops=flops, tokens=tokens)
    pace = Pace(budget)
    for one in rows:
        pace.add(one)
    return scope_timing("p", pace, deadline, 3.0, 0.25, 1)


def test_the_timing_of_a_scope() -> None:
    rows = [row(3, 0.5, 1.5, 2.0, 20.0), row(5, 0.5, 2.5, 2.0, 40.0)]
    seconds = scope_of(Budget(2.0), rows)
    # The row that ended after the deadline had made at least three steps by then.
    assert (seconds["overshoot"], seconds["overshoot_s"], seconds["overshoot_steps"]) == (0.5, 0.5, 1.0)
    flops = scope_of(Budget(100.0, "flops"), rows, flops=130.0)
    assert (flops["overshoot"], flops["overshoot_s"], flops["overshoot_steps"]) == (30.0, None, 1.5)
    tokens = scope_of(Budget(8.0, "tokens"), rows, tokens=9)
    assert (tokens["overshoot"], tokens["overshoot_steps"], tokens["spent"]) == (1.0, 0.5, 9.0)
    free = scope_of(None, rows)
    assert (free["overshoot"], free["overshoot_steps"], free["elapsed_s"], free["outside_s"]) == (None, None, 3.0, 0.25)


def test_a_scope_in_which_nothing_started_is_measured_by_its_clock() -> None:
    found = scope_of(Budget(2.0), [])
    assert (found["overshoot"], found["overshoot_steps"]) == (1.0, None)


# Arms


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("dtype", ("float32", "bfloat16"), "the arms differ in dtype: a float32, b bfloat16"),
        ("cuda_graphs", (True, False), "the arms differ in CUDA graphs: a True, b False"),
        ("prefix_caching", (True, False), "the arms differ in prefix caching: a True, b False"),
        ("sampler", ("x", "y"), "the arms differ in sampler: a x, b y"),
        ("temperature", (0.6, 0.8), "the arms differ in temperature: a 0.6, b 0.8"),
        ("torch_version", ("2.1", "2.2"), "the arms differ in torch version: a 2.1, b 2.2"),
        ("state_dtype", ("float32", "bfloat16"), "the arms differ in the dtype of the state: a float32, b bfloat16"),
    ],
)
def test_arms_that_differ_in_what_must_be_equal_are_named(
    name: str, values: tuple[object, object], sentence: str
) -> None:
    same = {"engine": "x", "seed": 1}
    assert differing_arms([arm("a", **same, **{name: values[0]}), arm("b", **same, **{name: values[0]})]) == []
    assert differing_arms([arm("a", **same, **{name: values[0]}), arm("b", **same, **{name: values[1]})]) == [sentence]


def test_runs_of_one_task_with_other_options_are_no_arms_of_one_comparison() -> None:
    asked = {"a": "difficulty=5", "b": "num_fewshot=2", "c": "num_fewshot=2"}
    told = marked([arm(name, max_tokens=len(options), task_options=options) for name, options in asked.items()])
    assert [summary.validity for summary in told] == ["VALID"] * 3
    told = marked([arm("a", max_tokens=1, task_options="x=1"), arm("b", max_tokens=2, task_options="x=1")])
    assert [summary.validity for summary in told] == ["INVALID"] * 2


def test_what_only_one_arm_tells_is_not_held_against_it() -> None:
    assert differing_arms([arm("a", engine="x", dtype="float32"), arm("b", engine="x")]) == []


def test_seeds_and_sizes_may_differ() -> None:
    assert differing_arms([arm("a", seed=1, parameters=10), arm("b", seed=2, parameters=20)]) == []


def test_manifests_say_what_was_equal_between_the_arms(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, name, problems=2, samples=2) for name in ("one", "other")]
    runs[1].manifest["engine"]["dtype"] = "bfloat16"
    runs[1].save()
    note_arms(runs, [without_curves(run) for run in runs])
    for run in map(open_run, (tmp_path / "one", tmp_path / "other")):
        arms = run.manifest["arms"]
        assert arms["runs"] == ["one", "other"]
        assert arms["equal"].items() >= {"engine": "native", "protocol": "latency", "workers": 1}.items()
        assert "dtype" not in arms["equal"]
        assert arms["unlike"] == ["the arms differ in dtype: one float32, other bfloat16"]
