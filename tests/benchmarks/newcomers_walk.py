"""A newcomer's walk through the README: a fresh clone, every command typed as it is written, timed.

    python tests/benchmarks/newcomers_walk.py [--folder FOLDER] [--with-tests]

`make demo` is typed in the clone and makes its environment there; the other commands in a folder of the newcomer's own
with what the README takes for granted. `make test` takes long and is typed only when asked for. The clone has what was
committed. The walk goes to its end whatever fails. The last line of stdout is one JSON document.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from test_readme import COMMANDS, settle  # noqa: E402


def typed(command: str, folder: Path, environment: dict[str, str]) -> dict[str, object]:
    """Type one command, tell how long it took and the last line that it printed."""
    began = time.perf_counter()
    done = subprocess.run(
        shlex.split(command, comments=True), cwd=folder, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:]
    print(f"{seconds:8.1f} s  {'ok' if done.returncode == 0 else f'exit {done.returncode}'}  {command}", flush=True)
    print(f"            {' '.join(last)[:160]}", flush=True)
    return {"command": command, "seconds": round(seconds, 2), "exit": done.returncode}


def walk(folder: Path, with_tests: bool) -> list[dict[str, object]]:
    """Clone, make, and type everything; stop at nothing."""
    clone, desk = folder / "clone", folder / "desk"
    desk.mkdir(parents=True)
    free = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    found = [typed(f"git clone --quiet {shlex.quote(str(ROOT))} {shlex.quote(str(clone))}", folder, free)]
    makes = [command for command in COMMANDS if command.startswith("make ")]
    found += [typed(command, clone, free) for command in makes if with_tests or not command.startswith("make test")]
    settle(desk)
    inside = free | {"PATH": f"{clone / '.venv' / 'bin'}{os.pathsep}{free['PATH']}"}
    return found + [typed(command, desk, inside) for command in COMMANDS if command not in makes]


def main() -> None:
    """Print a line for every command, and the sum."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="an empty folder to walk in; one of its own otherwise")
    parser.add_argument("--with-tests", action="store_true")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="newcomer-"))
    folder.mkdir(parents=True, exist_ok=True)
    found = walk(folder, asked.with_tests)
    total = sum(float(str(each["seconds"])) for each in found)
    print(f"{len(found)} commands in {total:.0f} s, {sum(each['exit'] != 0 for each in found)} failed; in {folder}")
    print(json.dumps({"seconds": round(total, 1), "commands": found}))


if __name__ == "__main__":
    main()
