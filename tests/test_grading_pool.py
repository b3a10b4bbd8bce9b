"""The pool and the memo: limits hold, the pool is whole afterwards, processes end with their parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.nouns import Verdict
from harness.tasks.grading import Rules, grade, grader, grading, memo
from harness.tasks.grading.memo import Memo
from harness.tasks.grading.pool import Pool, shared_pool
from harness.tasks.grading.rules import DEFAULT

ROOT = Path(__file__).resolve().parents[1]
HARD = (r"\sin^2 x + \cos^2 x", "1")

HOSTILE = {
    "tower of powers": "9^{9^{9^{9}}}",
    "taller tower": "2^{2^{2^{2^{2^{2^2}}}}}",
    "tower of e": "e^{e^{e^{e^{10}}}}",
    "huge factorial": "(10^{100})!",
    "factorials of factorials": "((3!)!)!",
    "huge binomial": r"\binom{10^{9}}{5 \cdot 10^{8}}",
    "expansion": "(x+y+z+w)^{200}",
    "deep parentheses": "(" * 2000 + "1" + ")" * 2000,
    "deep braces": "{" * 2000 + "1" + "}" * 2000,
    "deep roots": r"\sqrt{" * 300 + "2" + "}" * 300,
    "deep fractions": r"\frac{1}{" * 400 + "2" + "}" * 400,
    "many signs": "-" * 4000 + "1",
    "many functions": r"\sin " * 800 + "x",
    "many exponents": "2^" * 1000 + "2",
    "many bars": "|" * 1001 + "x" + "|" * 1001,
    "long string": "x" * 100_000,
    "long sum": "+".join(["x"] * 2000),
    "long list": "1," * 2000 + "1",
    "many signs both ways": r"\pm 1" * 12,
    "NUL": "4\x002",
    "lone surrogate": "\ud800",
    "odd digits": "\U0001d7d9\U0001d7da",
    "injected import": "__import__('os').system('touch pwned')",
    "injected lambda": "(lambda: 0)()",
    "input": r"\input{/etc/passwd}",
    "recursive macro": r"\def\a{\a\a}\a",
    "new command": r"\newcommand{\x}{\x\x}\x",
    "unclosed text": r"\text{" * 200,
    "huge sum": r"\sum_{i=1}^{10^{10}} i^{i}",
    "huge product": r"\prod_{k=1}^{1000000} k",
    "large exponent": "1e99999999",
    "near one": "1.0000001^{10^{12}}",
    "spaces": "1" + " " * 4000 + "2",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_gets_a_verdict_and_the_pool_stays_whole(name: str) -> None:
    for gold, answer in (("5", HOSTILE[name]), ("x^2+1", HOSTILE[name]), (HOSTILE[name], "5")):
        assert grader(DEFAULT, limit_s=0.5)(gold, answer).outcome in ("wrong", "unparsed", "timeout")
    memo.hard.pop((DEFAULT, *HARD), None)
    assert grade(*HARD).outcome == "correct"
    assert not (ROOT / "pwned").exists()


def test_a_poisoned_answer_costs_its_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    pool = shared_pool()

    def counted() -> Pool:
        asked.append(1)
        return pool

    monkeypatch.setattr(grading, "shared_pool", counted)
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(threads.map(lambda _: grader(limit_s=0.3)("7", "9^{9^{9^{9}}} + 1"), range(64)))
    assert {verdict.outcome for verdict in verdicts} == {"timeout"}
    assert len(asked) == 1


def test_many_threads_share_the_pool() -> None:
    pairs = [(rf"\sin {n} \cos {n}", rf"\frac{{\sin({2 * n})}}{{2}}") for n in range(2, 26)]
    with ThreadPoolExecutor(12) as threads:
        assert {verdict.outcome for verdict in threads.map(lambda pair: grade(*pair), pairs)} == {"correct"}


def test_a_thread_that_ends_takes_no_worker_with_it() -> None:
    found: list[Verdict] = []
    for n in (3, 4):
        thread = threading.Thread(target=lambda n=n: found.append(grade(rf"\sin^2 {n} + \cos^2 {n}", "1")))
        thread.start()
        thread.join()
    assert [verdict.outcome for verdict in found] == ["correct", "correct"]


def test_a_worker_that_was_killed_is_replaced() -> None:
    pool = Pool(1)
    rules = Rules()
    assert pool.grade(*HARD, rules, 5.0).outcome == "correct"
    worker = pool.slots.get()
    assert worker is not None
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    pool.slots.put(worker)
    assert pool.grade(*HARD, rules, 5.0).outcome == "correct"
    pool.close()


def test_the_address_space_of_a_worker_is_limited() -> None:
    pool = Pool(1)
    pool.grade(*HARD, Rules(), 5.0)
    worker = pool.slots.get()
    assert worker is not None
    limits = Path(f"/proc/{worker.process.pid}/limits")
    if limits.exists():
        line = next(line for line in limits.read_text().splitlines() if line.startswith("Max address space"))
        assert int(line.split()[3]) == 1024 << 20
    pool.slots.put(worker)
    pool.close()


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from harness.tasks.grading import grade
from harness.tasks.grading.pool import shared_pool
print(grade("\\\\sin^2 x + \\\\cos^2 x", "1").outcome, flush=True)
worker = shared_pool().slots.get()
print(worker.process.pid, flush=True)
shared_pool().slots.put(worker)
{rest}
"""


def alive(pid: int) -> bool:
    """Whether the process runs and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> bool:
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.1)
    return False


def test_a_script_without_a_main_guard_works_and_leaves_nothing_behind(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), rest=""))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    outcome, pid = done.stdout.split()
    assert outcome == "correct"
    assert done.stderr == ""
    assert wait_until_gone(int(pid))


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
@pytest.mark.parametrize("busy", [False, True])
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, busy: bool) -> None:
    rest = "import time; time.sleep(60)"
    if busy:
        rest = "from harness.tasks.grading import grader; grader(limit_s=2.0)('5', '9^{9^{9^{9}}}')"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), rest=rest))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "correct"
        pid = int(process.stdout.readline())
        time.sleep(0.3)
        process.kill()
    assert wait_until_gone(pid)


def test_a_module_in_the_current_folder_does_not_shadow_the_workers_imports(tmp_path: Path) -> None:
    for name in ("selectors", "json", "sympy", "harness"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "sub").mkdir()
    script = tmp_path / "sub" / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), rest=""))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True, env=environment)
    assert done.stdout.split()[0] == "correct"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_its_own_pool(tmp_path: Path) -> None:
    rest = (
        "import os\npid = os.fork()\n"
        "verdict = grade('\\\\sin^2 y + \\\\cos^2 y', '1').outcome\n"
        "if pid: os.waitpid(pid, 0)\n"
        "print(verdict, flush=True)\n"
        "if not pid: os._exit(0)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), rest=rest))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60
    )
    assert done.stdout.split().count("correct") == 3


def test_a_failure_of_the_work_is_not_remembered() -> None:
    kept = Memo()

    def broken() -> Verdict:
        raise OSError("no process")

    with pytest.raises(OSError, match="no process"):
        kept.once(DEFAULT, "1", "2", broken)
    assert kept.once(DEFAULT, "1", "2", lambda: Verdict("wrong")).outcome == "wrong"


def test_the_memory_limit_holds() -> None:
    code = """
from harness.tasks.grading.worker import limit_memory
limit_memory(512)
try:
    bytearray(1 << 30)
except MemoryError:
    print("held")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "held"
