"""The `ttc` command. Each module here parses and prints; the work is done elsewhere in the core.

Nothing heavier than Typer is imported before a command runs, so that `ttc --help` stays fast.
"""

import io
import logging
import os
import sys
import traceback
import warnings
from contextlib import suppress
from functools import cache
from typing import Any

import typer

from harness import __version__
from harness.cli import bench, compare, distill, export, grade, inspect_, records, score, speed, sweep
from harness.errors import UserError
from harness.faults import without_secrets
from harness.inert import inert, inert_line

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
    tame_libraries()
    try:
        app()
    except BrokenPipeError:
        sys.exit(0)
    except (UserError, OSError) as error:
        told = str(error) if isinstance(error, UserError) else gone(error)
        print(inert_line(without_secrets(f"ttc: {told}")), file=sys.stderr)
        if os.environ.get("TTC_TRACEBACK"):
            show_traceback(error)
        sys.exit(2)
    except Exception as error:
        show_traceback(error)
        sys.exit(1)


@cache
def tame_libraries() -> None:
    """Have what libraries log and warn of come to the terminal inert: transformers quotes a config's own words."""
    make = logging.getLogRecordFactory()

    def inert_record(*given: Any, **more: Any) -> logging.LogRecord:
        record = make(*given, **more)
        with suppress(Exception):  # of a record whose arguments do not fit it, which logging itself tells
            record.msg, record.args = inert(record.getMessage()), None
        return record

    logging.setLogRecordFactory(inert_record)
    spelled = warnings.formatwarning

    def inert_warning(*given: Any, **more: Any) -> str:
        return inert(spelled(*given, **more))

    warnings.formatwarning = inert_warning


def show_traceback(error: Exception) -> None:
    """Print a traceback on stderr, with no secret in it and nothing that the terminal would obey."""
    print(inert(without_secrets("".join(traceback.format_exception(error)))), end="", file=sys.stderr)


def gone(error: OSError) -> str:
    """What to say when a file system fails where nothing else was to be expected of it."""
    where = f" at '{error.filename}'" if error.filename else ""
    return (
        f"the file system failed{where} ({error.strerror or error}); what was stored before is whole: see to the disk "
        "or the network it lies on, then type the same command again (TTC_TRACEBACK=1 shows where it failed)"
    )
