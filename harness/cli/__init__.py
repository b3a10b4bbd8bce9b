"""The `ttc` command. Each module here parses and prints; the work is done elsewhere in the core.

Nothing heavier than Typer is imported before a command runs, so that `ttc --help` stays fast.
"""

import sys

import typer

from harness import __version__
from harness.cli import bench, compare, distill, export, grade, inspect_, records, score, speed
from harness.errors import UserError

app = typer.Typer(
    name="ttc",
    help="How accurate is a reasoning model for the time it is given?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (bench, grade, records, score, compare, speed, export, distill, inspect_):
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
    """Run the command; a user's mistake ends in one sentence on stderr and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"ttc: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
