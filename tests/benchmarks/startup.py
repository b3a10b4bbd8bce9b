"""How long `ttc --help` takes beside the help of a bare Typer app, in pairs, whole processes.

    python tests/benchmarks/startup.py

Prints the medians, their ratio, and as the floor the median of an interpreter that does nothing.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

PAIRS = 15
BARE = """
import typer
app = typer.Typer()

@app.command()
def hello(name: str) -> None:
    '''Say hello.'''

@app.command()
def bye(name: str) -> None:
    '''Say good-bye.'''

app()
"""


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one process."""
    began = perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return perf_counter() - began


def main() -> None:
    """Time the commands in turn and print one line."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        commands = {
            "ttc --help": [str(Path(sys.executable).with_name("ttc")), "--help"],
            "bare Typer --help": [sys.executable, str(bare), "--help"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        for command in commands.values():
            seconds(command)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(PAIRS):
            for name, command in commands.items():
                times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:18} {1e3 * value:7.1f} ms")
    print(f"ratio              {medians['ttc --help'] / medians['bare Typer --help']:7.2f}")


if __name__ == "__main__":
    main()
