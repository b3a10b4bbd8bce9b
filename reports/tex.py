"""Text for LaTeX: in tables and captions, and in figures that are written as PGF."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter

from .lettering import escape
from .scales import SUPERSCRIPTS

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "−": r"\ensuremath{-}",
    "≈": r"\ensuremath{\approx}",
    "…": r"\dots{}",
    "–": r"\textendash{}",
    **{sign: f"\\{sign}" for sign in "{}$&#_%"},
    **{chr(raised): rf"\ensuremath{{^{{{chr(plain)}}}}}" for plain, raised in SUPERSCRIPTS.items()},
}


def latex_text(text: str) -> str:
    """The text with every sign that LaTeX would act on, or join with the next, spelled out.

    So are letters beyond the Latin ones, which pdflatex does not know without further packages.
    """
    line = re.sub(r"[\s\x00-\x1f\x7f]+", " ", text)
    signs = (LATEX.get(sign) or (sign if is_latin(sign) else latex_text(escape(sign))) for sign in line)
    return "".join(signs).replace("--", "-{}-").replace("--", "-{}-")


def is_latin(sign: str) -> bool:
    """Whether a character is a printable one of Latin script."""
    return ord(sign) < 0x180 and sign.isprintable()


@contextmanager
def spelled_for_latex(figure: Figure) -> Iterator[None]:
    """Every word of a figure as `latex_text` while it is written as PGF, which takes words for LaTeX's own."""
    words = [(text, text.get_text()) for text in figure.findobj(Text) if isinstance(text, Text)]
    axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]
    ticks = [(axis, axis.get_major_formatter()) for axis in axes]
    try:
        for text, plain in words:
            text.set_text("\n".join(latex_text(line) for line in plain.split("\n")))
        for axis, formatter in ticks:
            if isinstance(formatter, FixedFormatter):
                axis.set_major_formatter(FixedFormatter([latex_text(label) for label in formatter.seq]))
        yield
    finally:
        for text, plain in words:
            text.set_text(plain)
        for axis, formatter in ticks:
            axis.set_major_formatter(formatter)
