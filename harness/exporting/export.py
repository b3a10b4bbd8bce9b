"""`ttc export`: which form, into which folder, whole or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from harness.errors import UserError, choices
from harness.exporting.dataset_folder import write_dataset
from harness.exporting.inspect_log import write_inspect
from harness.exporting.lm_eval_files import write_lm_eval
from harness.exporting.metrics import write_tensorboard, write_wandb
from harness.storage.runs import Run

WRITERS: dict[str, Callable[[Run, Path], list[Path]]] = {
    "lm-eval": write_lm_eval,
    "inspect": write_inspect,
    "datasets": write_dataset,
    "tensorboard": write_tensorboard,
    "wandb": write_wandb,
}


def export_run(run: Run, form: str, out: Path) -> list[Path]:
    """Write a run into the new folder `out`; returns the files.

    Everything is written beside it under another name and renamed at the end. Raises UserError when there is no such
    form, the folder holds something, or the run has no completions.
    """
    if form not in WRITERS:
        raise UserError(f"there is no form '{form}' to export to; write --to with one of {choices(list(WRITERS))}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"'{out}' is there already; choose a new or an empty --out")
    if not any((run.path / "completions").glob("*.parquet")):
        raise UserError(f"'{run.path}' has no completions yet; run the command that made it again")
    unfinished = out.absolute().with_name(f".{out.absolute().name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        files = [file.relative_to(unfinished) for file in WRITERS[form](run, unfinished)]
        if out.exists():
            out.rmdir()
        os.replace(unfinished, out)
    except OSError as error:
        raise UserError(f"cannot write in '{out}' ({error.strerror or error}); choose another --out") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [out / file for file in files]
