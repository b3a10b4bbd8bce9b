"""`ttc list`, `ttc check` and `ttc doctor`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from harness.cli.options import Json

if TYPE_CHECKING:
    from harness.checks.check import Finding

Room = Literal["tasks", "models", "selectors", "reward-models", "strategies"]


def list_(
    room: Annotated[Room | None, typer.Argument(help="Only this kind.")] = None,
    json_: Json = False,
) -> None:
    """List the tasks, models, selectors, reward models and strategies that can be named."""
    import json

    from harness.inert import inert_line
    from harness.listing import known

    rooms = [room] if room else get_args(Room)
    found = {name: known(name) for name in rooms}
    if json_:
        print(json.dumps(found))
        return
    for name, entries in found.items():
        print(f"{name}:" if entries else f"{name}: none")
        width = max((len(entry["name"]) for entry in entries), default=0)
        for entry in entries:
            print(inert_line(f"  {entry['name']:{width}}  {entry['summary']}"))
            for option in entry["options"]:
                print(inert_line(f"  {'':{width}}    {option}"))


def check(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A plug-in: a name, file.py:name or module:name.")],
    option: Annotated[list[str] | None, typer.Option("-O", metavar="K=V", help="An option of the plug-in.")] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="FILE", help="A task's data file.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A checkpoint to check an engine with.")
    ] = None,
    json_: Json = False,
) -> None:
    """Check that a plug-in keeps its contract: golds grade correct, a selector chooses fairly, a model keeps time."""
    from harness.checks.check import check_reference

    tell(check_reference(reference, option or [], data, checkpoint), json_)


def doctor(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run to verify instead of the machine.")] = None,
    repair: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Make a new run there of what is whole in RUN, which is left alone."),
    ] = None,
    json_: Json = False,
) -> None:
    """Check the machine: versions, memory, disk, clock, threads, engines, plug-ins. Or verify a run.

    Of a run it says what is missing, damaged or stored twice.
    """
    from harness.errors import UserError

    if repair is not None:
        from harness.storage.repairing import repair as rebuild

        if run is None:
            raise UserError("--repair wants a run to take what is whole from; write ttc doctor RUN --repair DIR")
        tell(rebuild(run, repair), json_)
    elif run is not None:
        from harness.storage.integrity import examine_run

        tell(examine_run(run), json_)
    else:
        from harness.checks.doctor import examine_machine

        tell(examine_machine(), json_)


def tell(findings: "list[Finding]", json_: bool) -> None:
    """Print the findings; exit code 1 when one is not as it should be."""
    import json

    from harness.inert import inert_line

    if json_:
        print(json.dumps([finding._asdict() for finding in findings]))
    else:
        for finding in findings:
            told = f"{'ok  ' if finding.ok else 'FAIL'} {finding.what}{': ' + finding.detail if finding.detail else ''}"
            print(inert_line(told))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command(name="list")(list_)
    app.command()(check)
    app.command()(doctor)
