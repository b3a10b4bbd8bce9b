"""A run's curves as metrics of the trackers that people watch trainings with: TensorBoard and Weights & Biases."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import plugins
from harness.analysis.summarise import has_scores, summarise
from harness.analysis.summary import Axis, Curve
from harness.cli.options import default_selectors
from harness.errors import UserError
from harness.storage.runs import Run

STEPS: dict[Axis, tuple[str, float]] = {
    "k": ("samples", 1.0),
    "seconds": ("milliseconds", 1e3),
    "tokens": ("tokens", 1.0),
    "flops": ("MFLOP", 1e-6),
}
"""What a whole step of a metric is on each axis, and how many of them one of the axis's units has."""


def write_tensorboard(run: Run, out: Path) -> list[Path]:
    """One event file: the accuracy of each selector along each axis, its interval beside it, and the settings.

    Steps are whole samples, milliseconds, tokens or MFLOP, as the name of a metric says. Raises UserError without
    TensorBoard.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise UserError(f"TensorBoard is not installed ({error}); type: pip install tensorboard") from error
    when = float(run.manifest["created_unix_s"])
    with SummaryWriter(log_dir=str(out)) as writer:
        writer.add_text("settings", settings_text(run), walltime=when)
        for curve in curves_of(run):
            unit, scale = STEPS[curve.axis]
            name = f"{curve.selector} by {unit}"
            for point in curve.points:
                values = {"accuracy": point.value, "low": point.low, "high": point.high}
                for part, value in values.items():
                    writer.add_scalar(f"{name}/{part}", value, round(point.x * scale), walltime=when)
    return sorted(out.iterdir())


def write_wandb(run: Run, out: Path) -> list[Path]:
    """A run of Weights & Biases: the points as a table, the last of each curve in its summary, the settings.

    It is written offline (`wandb sync` uploads it), unless WANDB_MODE says otherwise. Raises UserError without wandb.
    """
    try:
        import wandb
    except ImportError as error:
        raise UserError(f"Weights & Biases is not installed ({error}); type: pip install wandb") from error
    mode: Any = os.environ.get("WANDB_MODE", "offline")
    quiet = wandb.Settings(
        silent=True, console="off", disable_git=True, x_disable_stats=True, x_disable_machine_info=True
    )
    curves = list(curves_of(run))
    with wandb.init(project="ttc", name=run.name, dir=out, mode=mode, config=dict(run.spec), settings=quiet) as made:
        made.log({"points": wandb.Table(columns=list(COLUMNS), data=table_of(curves))})
        for curve in curves:
            made.summary[f"{curve.selector} by {curve.axis}"] = curve.points[-1].value
    return sorted(path for path in out.rglob("*") if path.is_file() and not path.is_symlink())


COLUMNS = ("selector", "axis", "x", "accuracy", "low", "high", "problems")


def table_of(curves: Sequence[Curve]) -> list[list[Any]]:
    """A row per point, as `COLUMNS` names them."""
    return [
        [curve.selector, curve.axis, point.x, point.value, point.low, point.high, point.n]
        for curve in curves
        for point in curve.points
    ]


def curves_of(run: Run) -> Iterator[Curve]:
    """The measured curves that have a point, of the selectors that `ttc select` takes when none is named."""
    chosen = plugins.load_selectors(default_selectors(has_scores(run)))
    for curve in summarise(run, chosen, skip_unscored=True).curves:
        if curve.points and curve.charged is not False:
            yield curve


def settings_text(run: Run) -> str:
    """What was asked, a line for each, as Markdown."""
    return "\n".join(f"* {name}: `{value}`" for name, value in run.spec.items())
