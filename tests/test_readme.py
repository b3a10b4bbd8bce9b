"""Every command of the README is run as it is written, in order, in a newcomer's folder."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


COMMANDS = [line for body in blocks(ROOT / "README.md", "console") for line in body.splitlines() if line.strip()]


def settle(folder: Path) -> Path:
    """Put there what the README takes for granted: a checkpoint, data, recorded completions, pairs, and its mine.py."""
    shutil.copytree(ROOT / "models" / "zoo" / "teacher", folder / "my-checkpoint")
    (folder / "mine.py").write_text(blocks(ROOT / "README.md", "python")[0])
    asked = [{"question": f"Ann has {n} pens and gets {n} more. How many?", "answer": f"#### {2 * n}"} for n in (3, 4)]
    (folder / "gsm8k.jsonl").write_text("\n".join(map(json.dumps, asked)))
    recorded = [{"problem_id": "a", "gold": "4", "text": f"It is \\boxed{{{n}}}.", "finished_s": n} for n in (4, 5, 4)]
    (folder / "recorded.jsonl").write_text("\n".join(map(json.dumps, recorded)))
    (folder / "pairs.jsonl").write_text(json.dumps({"gold": "2", "pred": "4/2"}) + "\n")
    return folder


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return settle(tmp_path_factory.mktemp("newcomer"))


def test_it_opens_with_the_two_commands() -> None:
    assert [line.split("#")[0].strip() for line in COMMANDS[:2]] == ["make demo", "make test"]
    recipes = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo: .*\n\t\$\(BIN\)/ttc demo$", recipes, re.MULTILINE)
    assert re.search(r"^test: .*\n\t\$\(BIN\)/python -m pytest$", recipes, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("command", COMMANDS[2:])
def test_each_command_works_as_written(newcomer: Path, command: str) -> None:
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(shlex.split(command), cwd=newcomer, env=environment, capture_output=True, text=True)
    # On a busy machine a deadline may be overshot: a run that says so itself is what the README promises.
    overshot = command.startswith("ttc doctor results/") and "FAIL verdict: INVALID" in done.stdout
    assert done.returncode == 0 or overshot, done.stdout + done.stderr
    assert done.stdout.strip()
    if command == "ttc select results/recorded":
        assert "100.0" in done.stdout
    if command.endswith("0.5"):
        assert json.loads(done.stdout)["verdict"] == "correct"


def test_the_model_of_the_plugin_page_keeps_its_contract(tmp_path: Path) -> None:
    (tmp_path / "parrot.py").write_text(blocks(ROOT / "docs" / "plugins.md", "python")[0])
    done = subprocess.run([BIN / "ttc", "check", "./parrot.py:parrot"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (ROOT / page).parent.joinpath(target).exists(), target
