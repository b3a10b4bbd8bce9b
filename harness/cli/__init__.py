"""The `ttc` command. Each module here parses and prints; the work is done elsewhere in the core.

Nothing heavier than Typer is imported before a command runs, so that `ttc --help` stays fast.
"""

import io
import os
import sys
import traceback

import typer

from harness import __version__
from harness.cli import bench, compare, distill, export, grade, inspect_, records, score, speed, sweep
from harness.errors import UserError
from harness.inert import inert_line

app = typer.Typer(
    name="ttc",
    help="How accurate is a reasoning model for the time it is given?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (bench, sweep, grade, records, score, compare, speed, export, distill, inspect_):
    module.add_to(app)


def show_version(asked: bool) -> None:
    """Print the version and end."""
    if asked:
        print(f"ttc {__version__}")
        raise typer.Exit


@app.callback()
def ttc(
    version: bool = typer.Option(
        False, "--version", callback=show_version, is_eager=True, help="Print the version and end."
    ),
) -> None:
    """How accurate is a reasoning model for the time it is given?"""


def main() -> None:
    """Run the command; a user's mistake ends in one sentence on stderr and exit code 2.

    With TTC_TRACEBACK set it is followed by the traceback, for authors of plug-ins.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's encoding does not have is spelled out rather than raised.
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except BrokenPipeError:
        sys.exit(0)
    except (UserError, OSError) as error:
        told = str(error) if isinstance(error, UserError) else gone(error)
        print(inert_line(f"ttc: {told}"), file=sys.stderr)
        if os.environ.get("TTC_TRACEBACK"):
            traceback.print_exception(error)
        sys.exit(2)


def gone(error: OSError) -> str:
    """What to say when a file system fails where nothing else was to be expected of it."""
    where = f" at '{error.filename}'" if error.filename else ""
    return (
        f"the file system failed{where} ({error.strerror or error}); what was stored before is whole: see to the disk "
        "or the network it lies on, then type the same command again (TTC_TRACEBACK=1 shows where it failed)"
    )
