"""`ttc speed`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.options import Json, Quiet

if TYPE_CHECKING:
    from harness.timing.speed import Grid

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]


def speed(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="A hub id, a folder, zoo/NAME, preset/SHAPE, or a plug-in.")
    ],
    batch: Annotated[str, typer.Option(metavar="N,N,...", help="Rows in flight.")] = "1,8,64",
    prompt: Annotated[str, typer.Option(metavar="N,N,...", help="Prompt lengths in tokens.")] = "512",
    generate: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens generated after a prompt.")] = 512,
    context: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Tokens per row before a decode pass; otherwise from prompt to end."),
    ] = None,
    cover: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Measure what the lengths of this run need instead.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="E", help="An engine of `ttc list models`, or a plug-in.")
    ] = None,
    engine_arg: Annotated[
        list[str] | None, typer.Option("-M", "--engine-arg", metavar="K=V", help="An option of the engine.")
    ] = None,
    dtype: Annotated[DtypeName, typer.Option(help="Of the weights; the engine chooses for auto.")] = "auto",
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Only the shape counts: no weights are downloaded or read.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="Times the grid is gone through.")] = 5,
    passes: Annotated[int, typer.Option(min=1, metavar="N", help="Decode passes timed together.")] = 16,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.8,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The table's folder (several models: one inside it each).")
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure how fast models are: prompts, decode passes, the machine's ceilings and the share of them reached.

    The table that is stored turns recorded lengths into modelled time. With several models the first is the one that
    the others' speed-ups are taken over.
    """
    from harness.nouns import Sampling
    from harness.progress import chooser
    from harness.timing.speed_arms import Asked, folders, measure_arm
    from harness.timing.speed_report import show, write_figure

    grid = read_grid(batch, prompt, generate, context, cover, passes, repeats)
    asked = Asked(engine, tuple(engine_arg or ()), dtype, random_weights, grid, Sampling(temperature=temperature))
    places = folders(models, out)
    tables = [measure_arm(model, asked, place, chooser(quiet)) for model, place in zip(models, places, strict=True)]
    written = write_figure(tables, out or places[0].parent)
    show(tables, [*places, *written], json_)


def read_grid(
    batch: str, prompt: str, generate: int, context: str | None, cover: Path | None, passes: int, repeats: int
) -> "Grid":
    """The grid that the options ask for. Raises UserError on numbers that cannot be read."""
    from harness.storage.runs import open_run
    from harness.timing.speed import Grid, default_contexts
    from harness.timing.speed_arms import covering

    if cover is not None:
        return covering(open_run(cover), passes, repeats)
    prompts = read_numbers("--prompt", prompt)
    contexts = default_contexts(prompts, generate) if context is None else read_numbers("--context", context)
    return Grid(read_numbers("--batch", batch), prompts, contexts, generate, passes, repeats)


def read_numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers apart by commas, each once. Raises UserError."""
    from harness.errors import UserError

    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise UserError(
            f"{option} wants whole numbers apart by commas, got '{text}'; write for example 1,8,64"
        ) from None


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(speed)
