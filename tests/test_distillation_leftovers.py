"""What a training that was killed leaves: the same command goes on, and takes away what is not whole."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from test_distillation_training import QUIET, toy, toy_recipe, train
from torch import nn
from typer.testing import CliRunner

from harness.errors import UserError
from harness.models.architectures.layout import Place
from harness.models.distillation import label_steps, run_folder, saving
from harness.models.distillation.run_folder import check_folder, checkpoints, claimed
from harness.storage import storing


def test_killed_before_it_had_its_recipe_a_training_can_be_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(Killed), claimed(out, toy_recipe()):
            pass
    assert (out / ".recipe.json.unfinished").is_file()
    check_folder(out)
    with claimed(out, toy_recipe()):
        assert not (out / ".recipe.json.unfinished").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is in use and holds no training run"):
        check_folder(tmp_path / "other")


def test_what_a_killed_sitting_left_half_written_is_taken_away(tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(toy_recipe(), out, QUIET, make=toy())
    whole = checkpoints(out)
    left = [out / ".final.unfinished", out / "checkpoints" / ".1-0000003.unfinished", out / ".metrics.csv.unfinished"]
    for path in left[:2]:
        path.mkdir()
        (path / "model.safetensors").write_bytes(b"half")
    left[2].write_text("half")
    train(toy_recipe(), out, QUIET, make=toy())
    assert not any(path.exists() for path in left)
    assert checkpoints(out) == whole


def test_checkpoints_are_synced_before_they_have_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut leaves folders of empty files that look whole."""
    synced: list[str] = []

    def noted(path: Path) -> None:
        assert path.is_dir()
        assert any(path.iterdir())
        synced.append(path.name)
        storing.sync_tree(path)

    for module in (run_folder, saving):
        monkeypatch.setattr(module, "sync_tree", noted)
    train(toy_recipe(), tmp_path / "out", QUIET, make=toy())
    tower = nn.Linear(2, 3, bias=False)
    saving.save_checkpoint(tmp_path / "final", tower, {"key": Place("weight")}, {"model_type": "toy"})
    named = [*checkpoints(tmp_path / "out"), tmp_path / "final"]
    assert {f".{path.name}.unfinished" for path in named} <= set(synced)


def test_all_files_of_a_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    inodes, fsync = set[int](), os.fsync

    def noted(descriptor: int) -> None:
        inodes.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(storing.os, "fsync", noted)
    storing.sync_tree(tmp_path)
    assert inodes == {path.stat().st_ino for path in (tmp_path, *tmp_path.rglob("*"))}


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "transformers", "model_options": ["trust_remote_code=true"]},
        {"task_plugin": "lm_eval:x", "task_options": ["include_path=."]},
        {"task_plugin": "./evil.py:task"},
    ],
)
def test_a_run_whose_steps_are_labelled_names_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    import numpy as np
    from recorded_runs import write_run

    run = write_run(tmp_path, "run", np.ones((1, 1)))
    manifest = json.loads((run.path / "manifest.json").read_text())
    own = {"task_plugin": "arithmetic", "task_options": [], "model": "zoo/teacher", "engine": "native"}
    manifest["spec"] |= own | {"model_options": []} | changes
    manifest.pop("sha256")
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    for name in ("load_task", "load_model"):
        monkeypatch.setattr(label_steps.plugins, name, lambda *_: pytest.fail("it was loaded"))
    app = typer.Typer()
    app.command()(label_steps.main)
    told = CliRunner().invoke(app, [str(run.path), "--out", str(tmp_path / "out.jsonl")])
    assert isinstance(told.exception, UserError)
    assert "add --trust-plugins to run it" in str(told.exception)
