"""Who gets what: shares of the waves, what is left after a death, parts of a token budget; and a worker without Ray."""

import itertools
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from cluster_plugins import Drawer, sums
from fakes import FakeClock

from harness.budgets import Budget, Deadline
from harness.nouns import Completion, Problem, Sampling
from harness.running.bench import Arm, Plan
from harness.running.scopes import Scope, plan
from harness.running.validity import RunFacts, faults_of
from harness.workers.errands import Deal, Errand, Out, Parcel, shared
from harness.workers.replica import Order, Replica

PROBLEMS = [Problem(f"p{i}", f"{i} + {i} =", str(2 * i)) for i in range(5)]


def row(place: int, finished_s: float = 1.0, tokens: int = 10, why: str = "stop") -> Completion:
    index, number = divmod(place, len(PROBLEMS))
    return Completion(
        PROBLEMS[number].id, index, "text", why, 3, tokens, 1, 0.0, 0.0, 0.0, finished_s, 1.0, 1.0, 2.0  # type: ignore[arg-type]
    )  # fmt: skip


def deal(protocol: str, workers: int = 2, samples: int = 6, budget: Budget | None = None) -> Deal:
    return Deal(plan(PROBLEMS, samples, Sampling(), protocol), PROBLEMS, budget, workers)


def clock() -> Deadline:
    return Deadline(None, FakeClock())


@pytest.mark.parametrize(("requests", "workers"), [(1, 4), (7, 2), (100, 3), (1000, 4), (997, 16)])
def test_shares_are_disjoint_whole_and_go_through_the_waves_together(requests: int, workers: int) -> None:
    left = np.arange(requests)
    taken: list[np.ndarray] = []
    while len(left):
        mine, left = shared(left, workers)
        assert len(mine)
        taken.append(mine)
    assert sorted(itertools.chain(*taken)) == list(range(requests))
    # The first round of shares covers the front of the waves: nobody is far ahead of the others.
    first = taken[:workers]
    assert len(first[0]) <= max(8, requests / (2 * workers) + 1)
    assert max(share[0] for share in first) < 2 * workers


def test_a_single_worker_is_given_all() -> None:
    mine, left = shared(np.arange(50), 1)
    assert mine.tolist() == list(range(50))
    assert not len(left)


def test_problems_go_out_in_order_and_one_that_was_lost_comes_next_with_what_it_used() -> None:
    dealt = deal("latency")
    first, second = dealt.next(0, clock()), dealt.next(1, clock())
    assert first is not None
    assert second is not None
    assert [first.problem_id, second.problem_id] == ["p0", "p1"]
    out = Out(second)
    # Places of problem 1: sample index times five, plus one.
    dealt.take(out, Parcel([row(1, 2.0), row(11, 3.5)]))
    dealt.end(1, out, died=True)
    again = dealt.next(0, clock())
    assert again is not None
    assert again.problem_id == "p1"
    assert again.places.tolist() == [6, 16, 21, 26]
    assert (again.used_s, again.used_flops, again.used_tokens) == (3.5, 6.0, 20)
    assert (again.fresh, again.deaths) == (False, 1)
    scope = again.scope(PROBLEMS, Sampling(seed=3))
    assert [(request.problem_id, request.sample_index) for request in scope.requests] == [
        ("p1", 1), ("p1", 3), ("p1", 4), ("p1", 5)
    ]  # fmt: skip


def test_a_problem_that_its_deadline_cut_is_not_drawn_again() -> None:
    dealt = deal("latency")
    errand = dealt.next(0, clock())
    assert errand is not None
    out = Out(errand)
    dealt.take(out, Parcel([row(0, why="deadline")]))
    dealt.end(0, out, died=True)
    assert dealt.left == 4


def test_what_a_lost_worker_had_of_the_waves_goes_back_to_its_place() -> None:
    dealt = deal("throughput", samples=40)
    before = dealt.left
    errand = dealt.next(0, clock())
    assert errand is not None
    out = Out(errand)
    dealt.take(out, Parcel([row(int(errand.places[0]))]))
    dealt.end(0, out, died=True)
    assert dealt.left == before - 1
    again = dealt.next(1, clock())
    assert again is not None
    assert again.places[0] == 1


def test_a_runs_tokens_are_shared_out_and_what_one_could_not_begin_is_there_for_others() -> None:
    dealt = deal("throughput", samples=40, budget=Budget(100, "tokens", "run"))
    errand = dealt.next(0, clock())
    assert errand is not None
    assert errand.budget is not None
    assert errand.budget.amount == 50
    out = Out(errand)
    dealt.take(out, Parcel([row(int(place)) for place in errand.places[:5]], timings=[{"spent": 51.0}]))
    left = dealt.left
    dealt.end(0, out)
    assert dealt.left == left + len(errand.places) - 5
    assert dealt.next(0, clock()) is None
    other = dealt.next(1, clock())
    assert other is not None
    assert other.used_tokens == 0


def test_scored_completions_are_not_owed_and_others_are() -> None:
    dealt = Deal(plan(PROBLEMS, 4, Sampling(), "latency"), PROBLEMS, None, 1, ["judge"])
    errand = dealt.next(0, clock())
    assert errand is not None
    out = Out(errand)
    score = {"problem_id": "p0", "sample_index": 0, "reward_model": "judge", "scored_s": 9.0, "reward_flops": 5.0}
    dealt.take(out, Parcel([row(0), row(5)], [score]))
    rest = out.rest()
    assert [(one.problem_id, one.sample_index) for one in rest.owed] == [("p0", 1)]
    assert (rest.used_s, rest.used_flops) == (9.0, 11.0)


@pytest.mark.parametrize("protocol", ["latency", "throughput"])
def test_what_is_drawn_and_only_wants_scores_is_handed_out_again(protocol: str) -> None:
    dealt = Deal(plan(PROBLEMS[:1], 2, Sampling(), protocol), PROBLEMS[:1], None, 1, ["judge"])
    errand = dealt.next(0, clock())
    assert errand is not None
    out = Out(errand)
    dealt.take(out, Parcel([row(0), row(5)]))
    dealt.end(0, out, died=True)
    again = dealt.next(0, clock())
    assert again is not None
    assert not len(again.places)
    assert [one.sample_index for one in again.owed] == [0, 1]
    assert dealt.next(0, clock()) is None


def replica(monkeypatch: pytest.MonkeyPatch, protocol: str, budget: Budget | None = None) -> tuple[Replica, Deal]:
    monkeypatch.setattr("harness.plugins.load_model", lambda *_: Drawer())
    task = sums(5)
    asked = Plan("sums", (), None, None, protocol, budget, 6, Sampling(max_tokens=50))
    scopes: Sequence[Scope] = plan(task.problems, 6, asked.sampling, protocol)
    dealt = Deal(scopes, task.problems, budget, 1)
    arm = Arm("drawer", "plug-in", (), None)  # type: ignore[arg-type]
    made = Replica(Order(arm, asked, task.problems, dealt.calls(), 3, "/", 0.0))
    made.task = task
    return made, dealt


def test_a_worker_sends_all_it_draws_and_its_facts_last(monkeypatch: pytest.MonkeyPatch) -> None:
    made, dealt = replica(monkeypatch, "latency")
    record = made.load()
    assert record["machine"]["cpu"]
    assert record["engine"]["engine"] == "drawer"
    assert made.name_and_prompts()[0] == "drawer"
    errand = dealt.next(0, clock())
    assert isinstance(errand, Errand)
    parcels = list(made.run(errand))
    rows = [each for parcel in parcels for each in parcel.completions]
    assert [(each.problem_id, each.sample_index) for each in rows] == [("sums/0", index) for index in range(6)]
    last = parcels[-1]
    assert [timing["segment"] for timing in last.timings] == [3]
    assert last.facts is not None
    assert last.facts["probes"]
    assert all(parcel.facts is None for parcel in parcels[:-1])
    made.task = sums(5)
    second = dealt.next(0, clock())
    assert second is not None
    graded = list(made.run(second))[-1].verdicts
    # The drawer adds one to the answer where the seed leaves 2 when divided by three.
    assert sorted((each["sample_index"], each["verdict"]) for each in graded) == [
        (request.sample_index, "wrong" if request.seed % 3 == 2 else "correct")
        for request in second.scope(made.order.problems, Sampling()).requests
    ]
    assert made.close()["engine"]["engine"] == "drawer"


def test_a_workers_exception_comes_after_what_was_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    made, dealt = replica(monkeypatch, "latency")
    made.load()

    def broken(*_: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("harness.workers.replica.verdict_rows", broken)
    errand = dealt.next(0, clock())
    assert errand is not None
    made.task = sums(5)
    drawn: list[Completion] = []

    def take() -> None:
        for parcel in made.run(errand):
            drawn.extend(parcel.completions)

    with pytest.raises(KeyError):
        take()
    assert len(drawn) == 6


def test_ray_is_not_imported_until_workers_are_asked_for() -> None:
    modules = "harness.cli.bench, harness.workers.crew, harness.workers.spread, harness.sweeping.sweep"
    asks = f"import sys, {modules}; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asks], check=False).returncode == 0


def record(worker: int, cpu: str = "one", probes: Sequence[float] = (1.0, 1.0)) -> dict[str, object]:
    machine = {"cpu": cpu, "usable_cores": 2, "gpus": []}
    return {"worker": worker, "machine": machine, "engine": {"dtype": "float32"}, "probes": {"compute_s": list(probes)}}


def reasons(*segments: dict[str, object]) -> list[str]:
    names = ("overshoot", "overshoot_s", "overshoot_steps", "elapsed_s", "outside_s")
    timing: dict[str, list[float | None]] = {name: [] for name in names}
    return [fault.reason for fault in faults_of(RunFacts(timing, "seconds", 1, {"stop": 5}, 0, segments))]


def test_workers_of_two_kinds_make_a_run_invalid_and_of_two_speeds_do_not() -> None:
    assert reasons({"crew": 2, "workers": [record(0), record(1, "two")]}) == ["the workers differ in cpu: one and two"]
    steady = {"crew": 2, "generate_s": 99.0, "workers": [record(0), record(1, probes=(3.0, 3.0))]}
    assert reasons(steady) == []
    drifting = {"crew": 2, "generate_s": 99.0, "workers": [record(0), record(1, probes=(1.0, 3.0))]}
    assert reasons(drifting)[0].startswith("the processor was 2.")
    assert reasons({"crew": 2}, {"crew": 4}) == ["the sittings of the run had 2 and 4 workers"]
