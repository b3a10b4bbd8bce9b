"""A bench with workers on a Ray cluster of two nodes made on this machine: the same samples, and none lost by a kill.

Needs Ray (the extra `ray`); without it these tests are skipped.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.summarise import summarise_all
from harness.budgets import Budget
from harness.errors import UserError
from harness.nouns import Sampling
from harness.plugins import load_selectors, load_task
from harness.progress import Quiet, chooser
from harness.running.bench import Arm, Plan, bench_arm
from harness.storage.records import COMPLETIONS, read_parts
from harness.storage.runs import Run
from harness.workers.spread import summarise_on
from harness.workers.team import Crew, crew_of

os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
PLUGINS = Path(__file__).parent / "cluster_plugins.py"
PROBLEMS, SAMPLES = 12, 20
NODE = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
Text = tuple[str, int, str, int]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one node of two cores; tests add the second, and take it away."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ttc-harness[ray]'")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def two_nodes(cluster: Any) -> Any:
    if not cluster.worker_nodes:
        cluster.add_node(**NODE)
    return cluster


def leave(cluster: Any) -> None:
    """The second node goes, as by a power cut."""
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Text]:
    """What a bench without workers draws."""
    return texts(draw(tmp_path_factory.mktemp("alone"), None))


def draw(
    folder: Path, workers: int | None, protocol: str = "latency", budget: Budget | None = None,
    options: tuple[str, ...] = (), show: Any = None, **more: Any,
) -> Run:  # fmt: skip
    asked = Plan(
        f"{PLUGINS}:sums", (f"num_problems={PROBLEMS}",), None, None, protocol, budget, SAMPLES,
        Sampling(max_tokens=100), **more,
    )  # fmt: skip
    arm = Arm(f"{PLUGINS}:drawer", "plug-in", options, folder / f"{protocol}-{workers}")
    task = load_task(asked.task, asked.task_options)
    return bench_arm(arm, asked, task, show or chooser(True), crew=Crew(workers) if workers else None)


def texts(run: Run) -> list[Text]:
    """Every stored row, so that one stored twice is seen."""
    rows = read_parts(run.path / "completions", COMPLETIONS).to_pylist()
    return sorted((row["problem_id"], row["sample_index"], row["text"], row["seed"]) for row in rows)


def workers_of(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.manifest["segments"][0]["workers"]
    return found


class Once(Quiet):
    """Does something as soon as so many completions are there."""

    def __init__(self, completions: int, act: Callable[[], object]) -> None:
        self.completions, self.acts = completions, [act]

    def update(self, done: int, note: str) -> None:
        if done >= self.completions and self.acts:
            self.acts.pop()()


@pytest.mark.parametrize("protocol", ["latency", "throughput"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_samples_do_not_depend_on_the_workers(
    tmp_path: Path, two_nodes: Any, alone: list[Text], workers: int, protocol: str
) -> None:
    run = draw(tmp_path, workers, protocol)
    assert texts(run) == alone
    assert len(run.verdicts()) == len(alone) == PROBLEMS * SAMPLES
    assert run.manifest["validity"]["verdict"] == "VALID"
    assert run.manifest["workers"] == {"count": workers, "devices": workers, "devices_each": 1}
    records = workers_of(run)
    assert sum(record["completions"] for record in records) == PROBLEMS * SAMPLES
    assert {record["status"] for record in records} == {"finished"}
    assert all(record["machine"]["cpu"] and record["probes"]["compute_s"] for record in records)
    assert len(run.timing()) == (PROBLEMS if protocol == "latency" else 1)


@pytest.mark.parametrize("protocol", ["latency", "throughput"])
def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(
    tmp_path: Path, two_nodes: Any, alone: list[Text], protocol: str
) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    options = ("seconds=0.02", "dies_on=sums/5:7", f"pids={deaths}")
    run = draw(tmp_path, 2, protocol, options=options)
    assert len(list(deaths.iterdir())) == 1
    assert texts(run) == alone
    assert len(run.verdicts()) == PROBLEMS * SAMPLES
    assert sorted(record["status"] for record in workers_of(run))[0] == "died"
    # In the middle of a problem, whose classes of answers must still be those of all its samples.
    classes = {row["answer"]: row["answer_class"] for row in run.verdicts() if row["problem_id"] == "sums/5"}
    assert sorted(classes.values()) == list(range(len(classes)))


def test_what_kills_every_worker_ends_the_run_with_a_sentence(tmp_path: Path, two_nodes: Any) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    with pytest.raises(UserError, match="workers died 3 times on problem sums/5"):
        draw(tmp_path, 2, options=("dies_on=sums/5:7", f"pids={deaths}", "times=99"))
    assert len(list(deaths.iterdir())) == 3


@pytest.mark.parametrize("protocol", ["latency", "throughput"])
def test_a_node_that_leaves_takes_nothing_with_it(
    tmp_path: Path, two_nodes: Any, alone: list[Text], protocol: str
) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    # Nobody draws before there are three, one of them on the second node.
    options = ("seconds=0.03", f"pids={pids}", "crowd=3")
    go = Once(100, lambda: leave(two_nodes))
    run = draw(tmp_path, 3, protocol, options=options, show=lambda *_: go)
    assert texts(run) == alone
    assert "died" in {record["status"] for record in workers_of(run)}


def test_a_node_that_joins_is_used(tmp_path: Path, cluster: Any, alone: list[Text]) -> None:
    leave(cluster)
    pids = tmp_path / "pids"
    pids.mkdir()
    # Nobody draws before there are three, and there is room for two until the second node joins.
    options = ("seconds=0.03", f"pids={pids}", "crowd=3")
    come = Once(0, lambda: cluster.add_node(**NODE))
    run = draw(tmp_path, 3, "throughput", options=options, show=lambda *_: come)
    assert texts(run) == alone
    assert {record["node"] for record in workers_of(run)} == {0, 1}
    assert all(record["completions"] for record in workers_of(run))


def test_budgets_of_problems_are_the_workers_own_and_a_runs_is_shared(tmp_path: Path, two_nodes: Any) -> None:
    own = draw(tmp_path, 2, "latency", Budget(0.2), ("seconds=0.02",))
    assert all(row["finished_s"] < 0.3 for row in own.completions())
    # Ten completions of 20 ms fit into each problem's 0.2 s, whoever draws them; far fewer would fit into one 0.2 s.
    assert len(own.completions()) >= 5 * PROBLEMS
    shared = draw(tmp_path, 2, "throughput", Budget(1.0, scope="run"), ("seconds=0.02",))
    (timing,) = shared.timing()
    assert timing["spent"] >= 1.0
    assert max(row["finished_s"] for row in shared.completions()) < 1.1
    assert 50 < len(shared.completions()) <= 102, "twice fifty completions of 20 ms"
    tokens = draw(tmp_path / "tokens", 2, "throughput", Budget(1000, "tokens", "run"))
    # Each of the two overshoots its half by at most one completion, of forty tokens or fewer.
    assert 1000 <= sum(row["completion_tokens"] for row in tokens.completions()) <= 1080


@pytest.mark.parametrize("protocol", ["latency", "throughput"])
def test_reward_models_score_on_the_workers(tmp_path: Path, two_nodes: Any, protocol: str) -> None:
    name = f"{PLUGINS}:lengths"
    run = draw(tmp_path, 2, protocol, reward_models=(name,))
    assert {(row["problem_id"], row["sample_index"]) for row in run.scores()} == {row[:2] for row in texts(run)}
    by_key = {(row["problem_id"], row["sample_index"]): row for row in run.completions()}
    for row in run.scores():
        text = by_key[row["problem_id"], row["sample_index"]]["text"]
        assert row["scores"] == [len(text) / (1 + len(text))]
    (entry,) = run.manifest["reward_models"]
    assert sum(use["scored"] for use in entry["uses"]) == PROBLEMS * SAMPLES


def test_a_run_goes_on_after_an_interruption(tmp_path: Path, two_nodes: Any, alone: list[Text]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path, 2, options=("seconds=0.02",), show=lambda *_: Once(60, interrupt))
    run = draw(tmp_path, 2, options=("seconds=0.02",))
    assert texts(run) == alone
    assert [segment["status"] for segment in run.manifest["segments"]] == ["interrupted", "finished"]
    assert run.manifest["segments"][1]["crew"] == 2


def test_runs_are_summarised_on_the_cluster_as_they_are_here(tmp_path: Path, two_nodes: Any) -> None:
    run = draw(tmp_path, 2)
    names = ["coverage", "majority"]
    there = summarise_on(Crew(2), [run.path], names, [])
    assert there == summarise_all([run], load_selectors(names))
    assert summarise_on(Crew(2), [tmp_path / "nowhere"], names, []) is None


def test_mistakes_end_in_one_sentence(tmp_path: Path, two_nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="takes no option 'secondz'"):
        draw(tmp_path, 1, options=("secondz=1",))
    with pytest.raises(UserError, match="add --workers N"):
        crew_of(None, "auto")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'ttc-harness\[ray\]'"):
        draw(tmp_path / "none", 1)
