"""Probes of the machine: what they hold, when they are taken, what counts as drift."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import FakeClock

from harness.budgets import ClockWatch, monotonic
from harness.running import probe
from harness.running.probe import Probe, Surroundings, drift, take_probe


def test_a_probe_measures_something() -> None:
    found = take_probe()
    assert found.compute_s > 0
    assert found.memory_s > 0
    assert 0 <= found.lost_share < 1


def test_without_a_gpu_in_use_there_is_no_gpu_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert probe.probe_gpu() is None
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: False)))
    assert probe.probe_gpu() is None


def test_a_gpu_is_probed_after_it_is_warm_and_a_full_one_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, products = FakeClock(), []

    def multiply(left: object, right: object) -> None:
        products.append(left)
        clock.sleep(4.0 if len(products) <= probe.REPEATS else 2.0)

    class Full(RuntimeError):
        pass

    torch = SimpleNamespace(
        cuda=SimpleNamespace(is_initialized=lambda: True, synchronize=lambda: None),
        ones=lambda *size, **options: size,
        mm=multiply,
        bfloat16=None,
        OutOfMemoryError=Full,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(probe, "monotonic", clock)
    assert probe.probe_gpu() == 2.0

    def fail(*size: int, **options: object) -> None:
        raise Full

    torch.ones = fail
    assert probe.probe_gpu() is None


@pytest.mark.parametrize("count", [2, 3, 10, 40])
def test_drift_is_the_slow_tenth_over_the_fast_tenth(count: int) -> None:
    values = np.random.default_rng(count).uniform(1.0, 2.0, count)
    ordered = np.sort(values)

    def at(share: float) -> float:
        place = share * (count - 1)
        low = int(place)
        return float(ordered[low] + (place - low) * (ordered[min(low + 1, count - 1)] - ordered[low]))

    assert drift({"compute_s": list(values)}) == {"compute_s": pytest.approx(at(0.9) / at(0.1))}


def test_one_probe_has_no_drift() -> None:
    assert drift({"compute_s": [1.0], "memory_s": [], "other": [1.0, 2.0]}) == {}


def test_a_clock_of_somebodys_own_is_not_measured_beside() -> None:
    clock = FakeClock()
    surroundings = Surroundings(clock)
    surroundings.probe()
    clock.sleep(1e6)
    surroundings.between_scopes()
    assert surroundings.facts() == {"probes": {}, "clock_steps_s": {}}


def test_a_probe_is_taken_when_the_last_one_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, other = FakeClock(), FakeClock()
    numbers = iter(range(1, 100))
    monkeypatch.setattr(probe, "take_probe", lambda: Probe(float(next(numbers)), 1.0, 0.0, None))
    surroundings = Surroundings(monotonic, ClockWatch(clock, {"other": other}))
    surroundings.clock = clock
    surroundings.probe()
    for _ in range(70):
        clock.sleep(1.0)
        other.sleep(1.0)
        surroundings.between_scopes()
    other.sleep(9.0)
    assert surroundings.facts() == {
        "probes": {"compute_s": [1.0, 2.0, 3.0], "memory_s": [1.0] * 3, "lost_share": [0.0] * 3},
        "clock_steps_s": {"other": 9.0},
    }
