import math

import pytest
from fakes import FakeClock

from harness.budgets import Budget, ClockWatch, Deadline, monotonic, parse_budget
from harness.errors import UserError


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("60s", 60, "seconds"),
        ("500ms", 0.5, "seconds"),
        ("2m", 120, "seconds"),
        ("2min", 120, "seconds"),
        ("1.5h", 5400, "seconds"),
        (" 3 s ", 3, "seconds"),
        ("2e15flop", 2e15, "flops"),
        ("2PFLOP", 2e15, "flops"),
        ("2pflops", 2e15, "flops"),
        ("3MFLOP", 3e6, "flops"),
        ("4096tok", 4096, "tokens"),
        ("4ktok", 4000, "tokens"),
    ],
)
def test_spellings(text: str, amount: float, unit: str) -> None:
    budget = parse_budget(text, "run")
    assert budget.amount == pytest.approx(amount, rel=1e-12)
    assert (budget.unit, budget.scope) == (unit, "run")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("60", "has no unit; write 60s"),
        ("", "cannot read the budget ''"),
        ("s", "cannot read"),
        ("-5s", "must be positive and finite, got -5 seconds"),
        ("0tok", "must be positive"),
        ("1e999s", "finite"),
        ("5 parsecs", "unknown unit 'parsecs'"),
        ("5s 3s", "cannot read"),
        ("5s\n--x", "cannot read"),
    ],
)
def test_mistakes_say_what_to_write(text: str, says: str) -> None:
    with pytest.raises(UserError, match="60s") as caught:
        parse_budget(text)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["60s", "0.1s", "2e+15flop", "4096tok", "0.30000000000000004s"])
def test_a_budget_reads_back_what_it_spells(text: str) -> None:
    budget = parse_budget(text)
    assert str(budget) == text
    assert parse_budget(str(budget)) == budget


def test_a_deadline_in_seconds_expires_at_the_amount() -> None:
    clock = FakeClock()
    deadline = Budget(2.0).start(clock)
    clock.sleep(1.75)
    assert (deadline.expired, deadline.left, deadline.elapsed_s) == (False, 0.25, 1.75)
    clock.sleep(0.25)
    assert deadline.expired
    assert deadline.left == 0


def test_tokens_and_flops_expire_by_charge_and_not_by_time() -> None:
    clock = FakeClock()
    tokens, flops = Budget(10, "tokens").start(clock), Budget(1e3, "flops").start(clock)
    clock.sleep(1e6)
    assert not tokens.expired
    assert not flops.expired
    tokens.charge(tokens=10, flops=5)
    flops.charge(flops=999)
    assert (tokens.expired, flops.expired, flops.left) == (True, False, 1.0)


def test_no_budget_tells_the_time_and_never_expires() -> None:
    clock = FakeClock()
    deadline = Deadline(None, clock, offset_s=3.0)
    clock.sleep(1e9)
    assert not deadline.expired
    assert deadline.left == math.inf
    assert deadline.elapsed_s == 1e9 + 3.0


def test_earlier_sittings_count_towards_the_deadline() -> None:
    clock = FakeClock()
    deadline = Deadline(Budget(5.0), clock, offset_s=4.0)
    assert not deadline.expired
    clock.sleep(1.0)
    assert deadline.expired


def test_a_clock_that_runs_backwards_gives_no_time_back() -> None:
    clock = FakeClock()
    deadline = Budget(5.0).start(clock)
    clock.sleep(2.0)
    assert deadline.elapsed_s == 2.0
    clock.sleep(-50.0)
    assert deadline.elapsed_s == 2.0
    clock.sleep(2.5)
    assert (deadline.elapsed_s, deadline.expired, deadline.left) == (4.5, False, 0.5)
    assert deadline.backwards_s == 50.0
    clock.sleep(0.5)
    assert deadline.expired


def test_threads_that_overtake_each_other_are_no_clock_that_runs_backwards() -> None:
    import threading

    deadline = Deadline(None)
    readings: list[list[float]] = [[] for _ in range(4)]

    def read(mine: list[float]) -> None:
        mine.extend(deadline.elapsed_s for _ in range(2000))

    threads = [threading.Thread(target=read, args=(mine,)) for mine in readings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert deadline.backwards_s == 0
    assert all(mine == sorted(mine) for mine in readings)


def test_clocks_that_agree_have_no_steps() -> None:
    run, other = FakeClock(), FakeClock()
    other.sleep(1e6)
    watch = ClockWatch(run, {"other": other})
    for _ in range(100):
        run.sleep(10.0)
        other.sleep(10.0 * 1.0005)  # slewed as fast as a kernel does
        watch.look()
    assert watch.steps == {}


@pytest.mark.parametrize("step_s", [0.2, -0.2, 3600.0, -3600.0])
def test_a_step_between_clocks_is_noticed_and_the_largest_is_kept(step_s: float) -> None:
    run, other = FakeClock(), FakeClock()
    watch = ClockWatch(run, {"other": other})
    for number in range(20):
        run.sleep(1.0)
        other.sleep(1.0 + (step_s if number == 7 else 0.15 if number == 11 else 0.0))
        watch.look()
    assert watch.steps == {"other": pytest.approx(step_s)}


def test_only_the_real_clock_is_watched_by_itself() -> None:
    assert ClockWatch(FakeClock()).clocks[1:] == []
    assert "calendar" in dict(ClockWatch(monotonic).clocks)
    watch = ClockWatch(monotonic)
    watch.look()
    assert watch.steps == {}
