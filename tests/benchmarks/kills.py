"""Kill a run at random instants, go on with it, and compare what comes out with a run that nobody disturbed.

    python tests/benchmarks/kills.py --kills 200

Every second kill comes from outside after a random time, the others from inside at a random step: a completion that is
yielded, a call of the file system, a grade, a score, a report. Each run is a fork of this process, which has everything
imported. The last line is JSON: the kills by stage, what went wrong, and of the runs with a reward model in how many
every score was as old as in the undisturbed run, so that their curves along seconds must be equal too.
"""

import argparse
import functools
import gc
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crash_runs import CURVES, Script, Told, bench, hasten, problems_with, scored_when, stored, tables
from fakes import FakeClock

from harness import plugins
from harness.storage import storing

SETTINGS = [(protocol, judges) for judges in ((), ("judge",)) for protocol in ("latency", "throughput")]
ENDED = "it had ended"
"""The stage of a run that a kill came too late for; it does not count."""
AGAIN = 0.25
"""The share of runs that are killed a second time while they go on."""


class Steps:
    """Writes down the steps of a run, by stage, and kills the process at one of them."""

    def __init__(self, kill_at: int | None, log: Path) -> None:
        self.kill_at, self.count, self.lock = kill_at, 0, threading.Lock()
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)

    def __call__(self, stage: str) -> None:
        with self.lock:
            self.count += 1
            os.write(self.log, f"{stage}\n".encode())
            if self.count == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def patch(name: str, value: object) -> None:
    """Replace `module.attribute`, in a child that does nothing else."""
    module, _, attribute = name.rpartition(".")
    setattr(sys.modules[module], attribute, value)


def forked(work: Callable[[], None], kill_after_s: float | None = None) -> int:
    """Do the work in a fork; its exit status, negative for the signal that killed it."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            import traceback

            traceback.print_exception(error)
            os._exit(1)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def whole_run(path: Path, setting: tuple[str, tuple[str, ...]], kill_at: int | None, log: Path) -> None:
    """Bench and report, as a child; what is found goes to files beside the run."""
    steps = Steps(kill_at, log)
    names = plugins.names
    protocol, judges = setting
    hasten(patch, steps, Script(FakeClock(), steps, scored_at_once=1 if protocol == "latency" else 32))
    patch("harness.plugins.names", lambda group: ["points", "tables"] if group == "reports" else names(group))
    patch("harness.storage.storing.os", Told(steps))
    kept = stored(path)
    run = bench(path, plugins.load_model("", "", ()), protocol, judges)  # type: ignore[arg-type]
    found = {"lost or changed": len(kept - stored(path)), "problems": problems_with(run, bool(judges))}
    written = tables(run, path.parent / "report", bool(judges), steps)
    for name, content in written.items():
        (path.parent / f"table-{name}").write_bytes(content)
    (path.parent / "found.json").write_text(json.dumps(found | {"scored": scored_when(run)}))


def outcome(folder: Path) -> dict[str, bytes]:
    """The tables of a run that has ended, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("table-*"))}


def import_all(folder: Path) -> None:
    """Import here what a run imports on its way, so that its forks need not; a fork tells what that is."""
    told = folder / "modules"

    def tell() -> None:
        whole_run(folder / "first" / "run", SETTINGS[0], None, folder / "first-steps")
        whole_run(folder / "second" / "run", SETTINGS[-1], None, folder / "first-steps")
        told.write_text("\n".join(sys.modules))

    for name in ("first", "second"):
        (folder / name).mkdir()
    assert forked(tell) == 0
    for name in told.read_text().splitlines():
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)
    # Which plug-ins there are is read off the files' text, the same each time.
    plugins.builtins = functools.cache(plugins.builtins)
    for group in ("tasks", "models", "selectors", "reports"):
        plugins.builtins(group)
    gc.collect()
    gc.freeze()
    gc.collect = lambda *_: 0


def undisturbed(folder: Path) -> dict[Any, tuple[dict[str, bytes], dict[str, Any], list[str], float]]:
    """For each setting the tables, the scores, the stages of all steps and the seconds of a run that nobody kills."""
    found = {}
    for number, setting in enumerate(SETTINGS):
        place = folder / f"whole-{number}"
        place.mkdir()
        began = time.monotonic()
        log = place / "steps"
        status = forked(lambda at=place, what=setting, to=log: whole_run(at / "run", what, None, to))
        seconds = time.monotonic() - began
        assert status == 0, f"the undisturbed run of {setting} failed"
        told = json.loads((place / "found.json").read_text())
        assert not told["problems"], told
        found[setting] = outcome(place), told["scored"], log.read_text().splitlines(), seconds
    return found


def a_step(steps: Sequence[str], draw: random.Random) -> int:
    """One of the steps, counted from 1: every stage is as likely as any other, however many steps it has."""
    stage = draw.choice(sorted(set(steps)))
    return draw.choice([number for number, name in enumerate(steps, 1) if name == stage])


def compared(
    setting: Any, wanted: dict[str, bytes], there: dict[str, bytes], scored: dict[str, Any], now: dict[str, Any]
) -> list[str]:
    """What differs that must not: everything where the scores are as old, else what does not hang on their age.

    A score that a kill took was made again, later. Where completions are scored one by one, none is ever earlier and
    each costs the same; a batch's cost is shared out among others when it is made again.
    """
    if scored == now:
        return [] if there == wanted else ["the tables differ"]
    wrong = [] if there[f"table-{CURVES}"] == wanted[f"table-{CURVES}"] else ["the curves along k differ"]
    same = slice(1, 3) if setting[0] == "latency" else slice(2, 3)
    if {key: row[same] for key, row in scored.items()} != {key: row[same] for key, row in now.items()}:
        return [*wrong, "scores or their cost differ"]
    if setting[0] == "latency" and any(row[0] < scored[key][0] for key, row in now.items()):
        wrong.append("a score is earlier than without a kill")
    return wrong


def one_kill(number: int, folder: Path, whole: Any, draw: random.Random, ages: Counter[str]) -> tuple[str, list[str]]:
    """Kill a run once or twice, go on with it; the stage of the first kill, and what went wrong."""
    setting = SETTINGS[number // 2 % len(SETTINGS)]
    wanted, scored, steps, seconds = whole[setting]
    place = folder / f"kill-{number}"
    place.mkdir()
    log, stage = place / "steps", ENDED
    for attempt in range(2):
        if attempt and draw.random() > AGAIN:
            break
        at = a_step(steps, draw) if number % 2 else None
        after_s = None if number % 2 else draw.uniform(0, 0.8 * seconds)
        status = forked(lambda at=at: whole_run(place / "run", setting, at, log), after_s)
        done = log.read_text().splitlines() if log.exists() else []
        if not attempt and status == -signal.SIGKILL:
            stage = done[-1] if done else "starting"
        elif status not in (0, -signal.SIGKILL):
            return stage, [f"exit status {status}"]
    status = forked(lambda: whole_run(place / "run", setting, None, log))
    if status:
        return stage, [f"going on ended with status {status}"]
    found = json.loads((place / "found.json").read_text())
    wrong = [*found["problems"], *(["kept rows changed"] if found["lost or changed"] else [])]
    wrong += compared(setting, wanted, outcome(place), scored, found["scored"])
    if setting[1] and stage != ENDED:
        ages["all as old" if found["scored"] == scored else "some made again"] += 1
    if list((place / "run").rglob(f".*{storing.UNFINISHED}")):
        wrong.append("an unfinished file was not set aside")
    shutil.rmtree(place)
    return stage, wrong


def main() -> None:
    """Kill as often as asked and tell what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draw, stages, ages, failures = random.Random(asked.seed), Counter[str](), Counter[str](), {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        import_all(Path(folder))
        whole = undisturbed(Path(folder))
        for number in range(3 * asked.kills):
            if sum(stages.values()) == asked.kills:
                break
            stage, wrong = one_kill(number, Path(folder), whole, draw, ages)
            if stage != ENDED:
                stages[stage] += 1
            if wrong:
                failures[f"{number} ({stage})"] = wrong
    seconds = round(time.monotonic() - began, 1)
    told = {"kills": asked.kills, "stages": stages, "scores": ages, "failures": failures, "seconds": seconds}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
