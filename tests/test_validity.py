"""When a run, or a comparison of runs, may be believed; and the overshoot behind it."""

import pytest

from harness.overshoot import compliance, step_s
from harness.summary import RunSummary
from harness.validity import differing_arms, faults_of


def scope(over_s: float | None, steps: float | None) -> dict[str, float | None]:
    return {"overshoot_s": over_s, "overshoot_steps": steps}


def arm(name: str, **facts: object) -> RunSummary:
    return RunSummary(name, name, "toy", 1, 1, "latency", None, (), facts=facts)


def test_a_clean_run_has_no_faults() -> None:
    assert faults_of([scope(0.01, 0.5)] * 10, {"stop": 30, "deadline": 4}, 0, 10) == []


def test_one_late_scope_in_a_hundred_is_allowed_and_two_are_not() -> None:
    kept = [scope(0.0, 0.0)] * 98
    assert faults_of([*kept, scope(0.0, 0.0), scope(0.9, 3.0)], {"stop": 100}, 0, 100) == []
    (fault,) = faults_of([*kept, scope(0.5, 2.5), scope(0.9, 3.0)], {"stop": 100}, 0, 100)
    assert fault.reason == "2 of 100 deadlines were overshot by more than two decode steps (worst 0.900 s)"
    assert fault.mend


def test_failures_and_missing_samples_are_faults_with_a_mend() -> None:
    faults = faults_of([], {"stop": 90, "error": 10}, 7, 10)
    assert [fault.reason for fault in faults] == ["10 of 100 completions failed in the engine", "7 samples are missing"]
    assert "run the same command again" in faults[1].mend


def test_compliance_is_the_distribution_of_the_overshoot() -> None:
    found = compliance([scope(0.0, 0.0), scope(0.1, 1.0), scope(0.4, 4.0), scope(None, None)])
    assert found["scopes"] == 3
    assert found["within_budget"] == pytest.approx(1 / 3)
    assert found["overshoot_median_s"] == pytest.approx(0.1)
    assert found["overshoot_worst_steps"] == 4.0
    assert found["late_share"] == pytest.approx(1 / 3)
    assert compliance([scope(None, None)]) == {}


def test_no_rows_have_no_step_time() -> None:
    assert step_s([]) is None


def test_arms_that_differ_in_what_must_be_equal_are_named() -> None:
    same = [arm("a", engine="x", dtype="float32", seed=1), arm("b", engine="x", dtype="float32", seed=2)]
    assert differing_arms(same) == []
    (sentence,) = differing_arms([same[0], arm("b", engine="x", dtype="bfloat16")])
    assert sentence == "the arms differ in dtype: a float32, b bfloat16"
