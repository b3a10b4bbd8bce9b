"""The facts beside the numbers: what was asked, on which machine, with which versions, and whether the run is VALID.

A manifest is a plain dictionary in `manifest.json`, replaced whole. Its `spec` identifies the run: the same command
finds the same spec and goes on; another spec in the same folder is refused.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness import __version__
from harness.budgets import unix_s
from harness.errors import UserError
from harness.inert import read_json
from harness.storage.manifest_form import misfit
from harness.storage.storing import put_text, sentence_of

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "sympy",
    "latex2sympy2_extended",
    "pyarrow",
    "pandas",
    "numpy",
)
SCHEMA = 1
SIGNATURE = "sha256"
"""The name of the manifest's own digest in it."""


def versions() -> dict[str, str]:
    """The versions of what can change a number, by package."""
    found = {"ttc": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The hardware and operating system, without the host's name."""
    import psutil

    facts: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "gpus": gpus(),
    }
    return facts


def cpu_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def gpus() -> list[dict[str, Any]]:
    """Name and memory of each CUDA device that torch sees; torch is asked only when it is loaded already."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": each.name, "memory_bytes": each.total_memory} for each in found]


def git_commit() -> str | None:
    """The commit of the source tree this program runs from, with `+` when it has changes; None outside a checkout."""
    folder = Path(__file__).resolve().parents[1]
    try:
        ask = {"cwd": folder, "capture_output": True, "text": True, "timeout": 10, "check": True}
        top = subprocess.run(["git", "rev-parse", "--show-toplevel"], **ask).stdout.strip()  # type: ignore[call-overload]
        if Path(top) != folder.parent:
            return None
        commit: str = subprocess.run(["git", "rev-parse", "HEAD"], **ask).stdout.strip()  # type: ignore[call-overload]
        changed = subprocess.run(["git", "status", "--porcelain"], **ask).stdout.strip()  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value in canonical form, 64 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def new_manifest(spec: Mapping[str, Any], problems: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The manifest of a run that is about to begin."""
    return {
        "schema": SCHEMA,
        "spec": dict(spec),
        "problems": {
            "count": len(problems),
            "sha256": digest(list(problems)),
            "file": "problems.parquet",
            "first_prompt": problems[0]["prompt"],
        },
        "created_unix_s": unix_s(),
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
        "engine": {},
        "segments": [],
        "validity": {
            "verdict": "INVALID",
            "reasons": ["the run has not finished"],
            "mend": ["run the same command again"],
        },
    }


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replace `manifest.json` by a whole new one, durably. Raises UserError when the file system refuses."""
    plain = read_json(json.dumps(manifest, default=str))
    signed = plain | {SIGNATURE: signature(plain)}
    put_text(folder / "manifest.json", json.dumps(signed, indent=2) + "\n")


def signature(manifest: Mapping[str, Any]) -> str:
    """The digest of everything else in a manifest that was read, by which damage to it is found."""
    return digest({name: value for name, value in manifest.items() if name != SIGNATURE})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a run's manifest. Raises UserError when the folder is no run, or one of another version."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise UserError(f"'{folder}' is not a run: it has no manifest.json; `ttc bench` or `ttc import` makes one")
    try:
        manifest: dict[str, Any] = read_json(path.read_bytes())
    except OSError as error:
        raise UserError(sentence_of(error, path, "read")) from None
    except ValueError as error:
        raise UserError(f"'{path}' cannot be read as JSON ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise UserError(
            f"'{path}' is a manifest of schema {found!r:.40}, written by another version; this program reads {SCHEMA}"
        )
    if wrong := misfit(manifest):
        raise UserError(f"'{path}' is damaged: its field {wrong} is missing or holds what it should not")
    return manifest
