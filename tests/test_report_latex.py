"""What a paper takes over: the table and its caption compile, PGF figures too, and PDF figures embed TrueType fonts."""

import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest
import report_samples as samples
from report_tables import timing_table

from harness.reporting import Material
from harness.reports import multiples, pareto, scoring_time, speed
from harness.reports.figures import figures
from harness.reports.files import rendered
from harness.reports.grouping import groups
from harness.reports.sheet import draw, paper_style
from harness.reports.tables import tables

HAS_LATEX = shutil.which("pdflatex") is not None
needs_latex = pytest.mark.skipif(
    not HAS_LATEX, reason="no pdflatex here (apt: texlive-latex-base texlive-latex-recommended texlive-pictures)"
)


def compiled(folder: Path, body: str, packages: str) -> str:
    source = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (folder / "paper.tex").write_text(source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
    log = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, log[-2000:]
    return log


@pytest.mark.slow
@needs_latex
@pytest.mark.parametrize("case", ["paper", "one-invalid", "modelled", "hostile", "non-ascii", "long"])
def test_table_and_caption_compile(case: str, tmp_path: Path) -> None:
    tables(samples.cases()[case], tmp_path)
    body = r"\begin{table}\input{caption}\resizebox{\textwidth}{!}{\input{table}}\end{table}"
    log = compiled(tmp_path, body, r"\usepackage{booktabs,graphicx}")
    assert "Undefined control sequence" not in log
    assert "Missing character" not in log


@pytest.mark.slow
@needs_latex
def test_pgf_figures_compile_whatever_the_names(tmp_path: Path) -> None:
    if not subprocess.run(["kpsewhich", "pgf.sty"], capture_output=True, check=False).stdout:
        pytest.skip("no pgf package here (apt: texlive-pictures)")
    runs = [samples.run(samples.HOSTILE), samples.run("模型_%"), samples.scored()]
    written = figures(runs, tmp_path, Material(formats=("pgf",)))
    body = "\n\n".join(rf"\input{{{path.name}}}" for path in written[:2])
    assert written
    compiled(tmp_path, body, r"\usepackage{pgf}")


def test_every_pdf_embeds_truetype_outlines() -> None:
    with paper_style():
        made = {
            "accuracy": draw(samples.paper(), ["seconds", "k"]),
            "front": pareto.draw_fronts(groups(samples.paper())[0], "seconds"),
            "scoring": scoring_time.draw_pairs([samples.scored()]),
            "multiples": multiples.draw_cells(
                multiples.cells_of(samples.distillates(), "latency"), "majority", "seconds"
            ),
            "speed": speed.draw_speeds([timing_table("a"), timing_table("b", 0.5)]),
        }
        for name, figure in made.items():
            assert figure is not None
            content = uncompressed(rendered(figure, "pdf"))
            assert b"/Type3" not in content, name
            assert b"/FontFile2" in content, name


def uncompressed(pdf: bytes) -> bytes:
    """The file with its compressed streams, object streams among them, laid open behind it."""
    opened = [pdf]
    for found in re.finditer(rb"stream\r?\n", pdf):
        try:
            opened.append(zlib.decompressobj().decompress(pdf[found.end() :]))
        except zlib.error:
            continue
    return b"".join(opened)
