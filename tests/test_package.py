"""The wheel: one import name with real files, and the command from it works in a folder that has rooms of its own."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from fakes import write_plugins

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_it_holds_one_import_name_with_every_room_and_all_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "harness",
        next(n for n in names if ".dist-info" in n).split("/")[0],
    }
    for needed in (
        "harness/py.typed",
        "harness/tasks/gsm8k.py",
        "harness/tasks/grading/__init__.py",
        "harness/selectors/majority.py",
        "harness/models/zoo/teacher/model.safetensors",
        "harness/reports/paper.mplstyle",
        "harness/models/zoo/mamba-in-llama/mamba_config.json",
        "harness/models/zoo/llamba/model.safetensors",
        "harness/models/zoo/orm/model.safetensors",
        "harness/models/zoo/prm/model.safetensors",
        "harness/models/zoo/llamba-fewshot/model.safetensors",
        "harness/recipes/thinking-slow-fast-zoo.toml",
        "harness/recipes/thinking-slow-fast.toml",
        "harness/reports/page.html",
        "harness/reports/page.css",
        "harness/reports/page.js",
        "harness/reports/problem.html",
        "harness/reports/problems.html",
    ):
        assert needed in names
    assert not any("__pycache__" in name for name in names)


def test_it_runs_from_a_folder_with_models_tasks_and_selectors_of_its_own(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    # The dependencies are this environment's: a path file lends them without its editable copy of the package.
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    folder = tmp_path / "mine"
    for room in ("models", "tasks", "selectors", "reports"):
        (folder / room).mkdir(parents=True)
        (folder / room / "__init__.py").write_text("raise ImportError('somebody imported the user’s own folder')")
    write_plugins(folder)

    def run(*command: str) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(str(python), "-P", "-c", "import harness; print(harness.__file__)").strip()
    assert Path(where).is_relative_to(tmp_path / "venv"), "the wheel's own copy must be what runs"
    ttc = str(python.with_name("ttc"))
    listed = json.loads(run(ttc, "list", "--json"))
    assert {"arithmetic", "gsm8k"} <= {entry["name"] for entry in listed["tasks"]}
    assert "zoo/teacher" in {entry["name"] for entry in listed["models"]}
    bench = [
        ttc,
        "bench",
        "./mine.py:adder",
        "--task",
        "./mine.py:sums",
        "--selector",
        "./mine.py:longest",
        "--samples",
        "2",
    ]
    assert "run     results/" in run(*bench)
    zoo = [
        ttc,
        "bench",
        "zoo/teacher",
        "--task",
        "arithmetic",
        "--limit",
        "1",
        "--samples",
        "2",
        "--max-tokens",
        "8",
        "--json",
        "-q",
    ]
    assert json.loads(run(*zoo))["runs"][0]["model"] == "zoo/teacher"
