"""`ttc distill`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import Json, Quiet


def distill(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="What is made of what, in which stages.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder; results/distill/NAME otherwise.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the recipe and reckon its cost, no more.")] = False,
    devices: Annotated[int, typer.Option(min=1, metavar="N", help="For --dry-run: devices that train together.")] = 1,
    device_tflops: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="For --dry-run: TFLOP/s that each device sustains; 40 % of an H100's 989 otherwise."
        ),
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a student or a reward model from a teacher, as a recipe says.

    The same command typed again goes on where it stopped. On several devices: accelerate launch -m harness distill
    RECIPE.toml.
    """
    import importlib
    import json

    from harness.errors import UserError
    from harness.progress import chooser

    if device_tflops is not None and not 0 < device_tflops < float("inf"):
        raise UserError(f"--device-tflops must be positive and finite, got {device_tflops:g}; write for example 400")
    # By name, for the core imports no room.
    recipes, fit, costs = (
        importlib.import_module(f"harness.models.distillation.{name}") for name in ("recipes", "fit", "dry_run")
    )
    asked = recipes.read_recipe(recipe)
    if dry_run:
        reckoned = costs.as_document(asked, devices, costs.TFLOPS if device_tflops is None else device_tflops)
        print(json.dumps(reckoned)) if json_ else print_costs(reckoned)
        return
    fit.check_teacher(asked)
    training = importlib.import_module("harness.models.distillation.training")
    try:
        made = training.train(asked, out or Path("results/distill") / asked.name, chooser(quiet))
    except KeyboardInterrupt as stop:
        typer.echo(f"ttc: {stop}", err=True)
        raise typer.Exit(130) from None
    print(json.dumps({"recipe": asked.name, "checkpoint": str(made)}) if json_ else f"checkpoint  {made}")


def print_costs(document: dict[str, Any]) -> None:
    """What a recipe costs, a row per stage and one for all."""
    from rich.console import Console
    from rich.table import Table

    student, teacher, total = document["student"], document["teacher"], document["total"]
    print(f"{document['recipe']}: {student['family']} of {student['parameters']:,} parameters")
    print(f"teacher {teacher['name']}: {teacher['family']} of {teacher['parameters']:,} parameters")
    print(f"on {document['devices']} devices at {document['device_tflops']:g} TFLOP/s each")
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("stage", "trained", "frozen", "tokens", "steps", "tokens/step", "FLOPs", "GB replicated", "GB sharded")
    for column in (*columns, "hours"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in document["stages"]:
        table.add_row(
            stage["kind"],
            *(f"{stage[name]:,}" for name in ("trained", "frozen", "tokens", "steps", "tokens_per_step")),
            f"{stage['flops']:.3g}",
            *(f"{stage['memory'][name] / 1e9:.1f}" for name in ("replicated_bytes", "sharded_bytes")),
            f"{stage['hours']:.3g}",
        )
    sums = ("", "", f"{total['tokens']:,}", f"{total['steps']:,}", "", f"{total['flops']:.3g}", "", "")
    table.add_row("all", *sums, f"{total['hours']:.3g}")
    Console(width=None if sys.stdout.isatty() else 200).print(table)  # a pipe has no width to keep to


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(distill)
