"""`ttc export`: a stored run in another tool's form."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.options import Quiet
from harness.inert import inert_line

Form = Literal["lm-eval", "inspect", "datasets", "tensorboard", "wandb"]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    to: Annotated[
        Form,
        typer.Option(
            help="lm-eval: results with per-sample log; inspect: a log for its viewer; datasets: a repository, a card; "
            "tensorboard, wandb: the curves as metrics."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the files.")],
    quiet: Quiet = False,
) -> None:
    """Write a stored run in another tool's form."""
    from harness.exporting.export import export_run
    from harness.storage.runs import open_run

    files = export_run(open_run(run), to, out)
    if not quiet:
        for file in files:
            print(inert_line(str(file)))


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(export)
