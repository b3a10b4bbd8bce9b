"""Workers on a Ray cluster: found room for, started, sent on errands, replaced when they die.

The only module that speaks to Ray, which is imported when workers are asked for. What the workers do is in
`harness.workers.replica`, who gets what in `harness.workers.errands`.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from harness import plugins
from harness.errors import UserError
from harness.grading import Job
from harness.nouns import Task
from harness.plugin_options import options_of
from harness.workers.errands import Errand, Out
from harness.workers.replica import Order, Replica

STORE_BYTES = 100 * 2**20
"""Ray's object store on a machine that has no cluster yet: what travels is small, and sent at once."""
LOOK_S = 1.0
"""Seconds to wait for news of the workers before the progress is told again."""
CLOSE_S = 60.0
"""Seconds that workers may take to free their engines."""
DEATHS = 3
"""Times in a row that a worker may die without a completion, or workers on one errand, before the run stops."""
PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size")
"""Engine options that say over how many GPUs one replica is spread."""


@dataclass(frozen=True, slots=True)
class Crew:
    """How many workers are wanted, and where: a Ray address, or None for this machine alone."""

    workers: int
    address: str | None = None


def crew_of(workers: int | None, address: str | None) -> Crew | None:
    """The crew that was asked for, None for none. Raises UserError on an address without workers."""
    if workers is None and address is not None:
        raise UserError(f"--ray-address {address} says where workers are and none are asked for; add --workers N")
    return None if workers is None else Crew(workers, address)


@dataclass(slots=True)
class Slot:
    """The place of one worker: who fills it, what it is on, and what it tells."""

    number: int
    actor: Any
    news: Any
    """What Ray will tell next: the answer of `load`, or the parcels of an errand; None of an idle worker."""
    state: Literal["starting", "idle", "busy"] = "starting"
    out: Out | None = None
    record: dict[str, Any] = field(default_factory=dict)
    deaths: int = 0


class News(NamedTuple):
    """What a slot's worker did: `ready` with its record, `parcel` with it, `back` from its errand, or `died` of it."""

    slot: Slot
    kind: Literal["ready", "parcel", "back", "died"]
    value: Any = None


@contextmanager
def connected(crew: Crew) -> Iterator[None]:
    """Be connected to the cluster while this lasts; one that the caller is connected to already is used.

    Raises UserError when Ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--workers needs Ray, which is not installed; type: pip install 'ttc-harness[ray]'") from None
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    # What Ray would print or send off by itself; and it must not hide the processors that a worker is to use.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        if crew.address is None:
            cores = max(os.cpu_count() or 1, crew.workers)
            own = {"num_cpus": cores, "object_store_memory": STORE_BYTES, "include_dashboard": False}
            ray.init(address="local", **own, **quiet)
        else:
            ray.init(address=crew.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"at '{crew.address}'" if crew.address else "on this machine"
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"no Ray cluster answers {where} ({reason}); start one with `ray start --head`, or leave --ray-address out"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def gpus_of(engine: str, options: Sequence[str], cluster: dict[str, float]) -> int:
    """How many GPUs a worker takes: none where the cluster has none, the engine uses none, or `device=cpu` is asked."""
    chosen = dict(pair.partition("=")[::2] for pair in options)
    if not cluster.get("GPU") or chosen.get("device") == "cpu":
        return 0
    if engine in plugins.builtins("models"):
        known = options_of(plugins.load_function("models", engine))
        if not {"device", *PARALLEL} & set(known):
            return 0
    sizes = [chosen.get(name, "1") for name in PARALLEL]
    return int(sizes[0]) * int(sizes[1])


def packed(task: Task) -> bytes | None:
    """The task's grader as it can travel to a worker; None where it cannot, and grading is done at the end, here."""
    from ray import cloudpickle

    for function in (task.extract, task.grade, task.extract_cut, task.group):
        module = sys.modules.get(getattr(function, "__module__", None) or "")
        # A user's own file, which a worker could not import by its name.
        if module is not None and module.__name__.startswith(plugins.FILE_MODULE):
            cloudpickle.register_pickle_by_value(module)
    try:
        made: bytes = cloudpickle.dumps(Task(task.name, (), task.extract, task.grade, task.extract_cut, task.group))
    except Exception:
        return None
    return made


class Team:
    """The workers of one run.

    Args:
        order: what each is told.
        crew: how many there are to be.
        gpus: GPUs of each; besides, each has a processor core.

    Raises UserError when no node of the cluster has room for one.
    """

    def __init__(self, order: Order, crew: Crew, gpus: int) -> None:
        import ray

        self.order, self.gpus = order, gpus
        self.order_ref = ray.put(order)
        self.nodes: dict[str, int] = {}
        if not room_for(gpus):
            wants = f"{gpus} GPUs" if gpus else "a processor core"
            raise UserError(f"no node of the Ray cluster has {wants} for a worker; `ray status` tells what there is")
        self.slots = [self.started(number) for number in range(crew.workers)]

    def started(self, number: int, deaths: int = 0) -> Slot:
        """A new worker, which waits for room if there is none."""
        import ray

        options = {"num_cpus": 1, "num_gpus": self.gpus, "max_restarts": 0, "max_task_retries": 0}
        actor = ray.remote(Replica).options(**options).remote(self.order_ref)
        return Slot(number, actor, actor.load.remote(), deaths=deaths)

    def room(self) -> int:
        """How many of the workers the cluster has room for now."""
        return min(len(self.slots), room_for(self.gpus))

    def idle(self) -> list[Slot]:
        """The workers that wait for an errand."""
        return [slot for slot in self.slots if slot.state == "idle"]

    def busy(self) -> list[Slot]:
        """The workers that are on one."""
        return [slot for slot in self.slots if slot.state == "busy"]

    def send(self, slot: Slot, errand: Errand) -> None:
        """Send a worker on an errand."""
        slot.state, slot.out = "busy", Out(errand)
        slot.news = slot.actor.run.options(num_returns="streaming").remote(errand)

    def news(self, timeout_s: float = LOOK_S) -> Iterator[News]:
        """What has happened, or nothing when nothing did for a while. Raises what an engine raised."""
        import ray

        waited_for = [slot.news for slot in self.slots if slot.news is not None]
        if not waited_for:
            return
        ready, _ = ray.wait(waited_for, num_returns=1, timeout=timeout_s, fetch_local=False)
        for slot in [slot for slot in self.slots if any(slot.news is one for one in ready)]:
            yield self.told(slot)

    def told(self, slot: Slot) -> News:
        """What one worker tells, and what becomes of its slot by it."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            if slot.state == "busy":
                return News(slot, "parcel", ray.get(next(slot.news)))
            record = ray.get(slot.news)
            record = {"worker": slot.number, "node": self.node_of(slot), "status": "running", **record}
            slot.state, slot.news, slot.record = "idle", None, record
            return News(slot, "ready", record)
        except StopIteration:
            slot.state, slot.news = "idle", None
            return News(slot, "back")
        except RayTaskError as error:
            # Without the trace of the other machine, and as the error that it was: a UserError is a sentence.
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except RayError as error:
            return News(slot, "died", str(error).strip().splitlines()[0])

    def node_of(self, slot: Slot) -> int:
        """The number of a worker's node, in the order in which nodes appeared."""
        import ray

        name = ray.get(slot.actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
        return self.nodes.setdefault(name, len(self.nodes))

    def replace(self, slot: Slot) -> None:
        """Put a new worker in a dead one's place. The slot itself is not used any more."""
        import ray

        with suppress(Exception):
            ray.kill(slot.actor)
        self.slots[self.slots.index(slot)] = self.started(slot.number, slot.deaths)

    def name_and_prompts(self) -> tuple[str, list[str]]:
        """The model's name and the texts that it reads, from the first worker that is ready."""
        import ray

        found: tuple[str, list[str]] = ray.get(self.idle()[0].actor.name_and_prompts.remote())
        return found

    def grade(self, jobs: Iterable[Job]) -> Iterator[Sequence[dict[str, Any]]]:
        """The verdict rows of every job, in any order; a worker's death on the way raises a Ray error."""
        from ray.util import ActorPool

        pool = ActorPool([slot.actor for slot in self.idle()])
        yield from pool.map_unordered(lambda actor, job: actor.grade.remote([job]), list(jobs))

    def close(self) -> None:
        """Have the workers free their engines, take down what they tell last, and end them; once."""
        import ray

        slots, idle = self.slots, self.idle()
        self.slots = []
        ending = {slot.actor.close.remote(): slot for slot in idle}
        with suppress(Exception):
            ray.wait(list(ending), num_returns=len(ending), timeout=CLOSE_S)
        for ref, slot in ending.items():
            with suppress(Exception):
                slot.record |= {**ray.get(ref, timeout=0), "status": "finished"}
        for slot in slots:
            with suppress(Exception):
                ray.kill(slot.actor)


def room_for(gpus: int) -> int:
    """How many workers the nodes have room for, if nobody else uses them."""
    import ray

    room = 0
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        by_gpu = has.get("GPU", 0.0) // gpus if gpus else float("inf")
        room += int(min(has.get("CPU", 0.0), by_gpu))
    return room
