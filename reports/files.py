"""Writing a report's files so that nobody ever reads half of one."""

import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from harness.errors import UserError
from harness.storage.replacing import replace_file

from .tex import spelled_for_latex

UNDATED: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""What to leave out of a format so that the same curves always give the same bytes."""


def save_figure(figure: Figure | None, out: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write the figure in each format; nothing where there is none. Call it inside `paper_style()`."""
    if figure is None:
        return []
    return [replace_file(out / f"{name}.{form}", rendered(figure, form)) for form in formats]


def rendered(figure: Figure, form: str) -> bytes:
    """The figure's file in memory; call it inside `paper_style()`. Raises UserError on PGF without a LaTeX program."""
    buffer = BytesIO()
    try:
        with spelled_for_latex(figure) if form == "pgf" else nullcontext():
            dated: dict[str, Any] = {"metadata": UNDATED[form]} if form in UNDATED else {}
            figure.savefig(buffer, format=form, **dated)
    except (FileNotFoundError, RuntimeError, subprocess.SubprocessError) as error:
        if form != "pgf":
            raise
        raise UserError(
            f"cannot write PGF, for no pdflatex with the pgf package runs here ({str(error).splitlines()[0][:80]}); "
            "install a LaTeX or leave out --format pgf"
        ) from None
    return buffer.getvalue()
