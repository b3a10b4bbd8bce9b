"""Guards of the layout: rooms joined by links, nothing that shadows the standard library, one module with a clock."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("tasks", "models", "selectors", "reports")
SOURCES = sorted(
    path for room in ("harness", *ROOMS) for path in (ROOT / room).rglob("*.py")
    if not any(parent.is_symlink() for parent in path.parents)
)  # fmt: skip


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_a_relative_link_without_init(room: str) -> None:
    link = ROOT / "harness" / room
    assert link.is_symlink(), f"{link} must be a link (a copy of the repository may have lost it)"
    assert os.readlink(link) == f"../{room}"
    assert not (ROOT / room / "__init__.py").exists()


def test_the_standard_library_wins_at_the_root() -> None:
    code = "import selectors, asyncio, subprocess; print(selectors.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not found.startswith(str(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_named_like_the_standard_library(path: Path) -> None:
    assert path.stem not in sys.stdlib_module_names or path.stem in ("__init__", "__main__")
    assert path.stem not in ("utils", "helpers", "misc", "common")


def test_only_the_budget_module_reads_a_clock() -> None:
    offenders = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            if {"time", "datetime"} & set(modules) and path != ROOT / "harness" / "budgets.py":
                offenders.append(str(path.relative_to(ROOT)))
    assert offenders == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 330


def test_help_loads_no_heavy_library() -> None:
    heavy = ("torch", "transformers", "pandas", "pyarrow", "numpy", "matplotlib", "sympy", "datasets", "scipy")
    code = f"import sys, harness.cli; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_imports_keep_the_contract() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "code", "broken"),
    [
        ("selectors/planted.py", "from harness.tasks import gsm8k", "harness.selectors.planted -> harness.tasks.gsm8k"),
        ("planted.py", "from harness.selectors import first", "harness.planted -> harness.selectors.first"),
        ("cli/planted.py", "import harness.reports.points", "harness.cli.planted -> harness.reports.points"),
    ],
)
def test_a_planted_import_is_caught(tmp_path: Path, module: str, code: str, broken: str) -> None:
    shutil.copytree(ROOT / "harness", tmp_path / "harness", ignore=shutil.ignore_patterns("zoo", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "harness" / module).write_text(f"{code}\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert broken in done.stdout
