"""Words in figures: names made printable, measured in inches, shortened and wrapped to fit."""

import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font

FACE = "DejaVu Sans"
POINTS_PER_INCH = 72
MEASURE_DPI = 720
"""Ten times the points of an inch, so that hinting does not round a width up or down."""


@lru_cache(maxsize=1)
def glyphs() -> frozenset[int]:
    """The code points that the face can draw."""
    return frozenset(FT2Font(findfont(FACE)).get_charmap())


def printable(text: str) -> str:
    r"""The text with every character that the face lacks, or that has no shape of its own, as its `\u` escape."""
    return "".join(char if drawable(char) else escape(char) for char in text)


def drawable(char: str) -> bool:
    """Whether a character has a glyph and takes part in a line: no controls, no line breaks, no direction marks."""
    return ord(char) in glyphs() and unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def escape(char: str) -> str:
    r"""A character as `\xNN`, `\uNNNN` or `\UNNNNNNNN`, whichever is shortest."""
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@lru_cache(maxsize=1)
def measuring_renderer() -> Any:
    """A renderer that draws nothing and knows the face's metrics."""
    renderer: Any = RendererAgg
    return renderer(1, 1, MEASURE_DPI)


@lru_cache(maxsize=4096)
def width_in(text: str, size_pt: float = 8, weight: str = "normal") -> float:
    """The width of one line of text, in inches."""
    properties = FontProperties(family=FACE, size=size_pt, weight=weight)
    width, _, _ = measuring_renderer().get_text_width_height_descent(text, properties, ismath=False)
    return float(width) / MEASURE_DPI


def shorten(text: str, room_in: float, size_pt: float = 8, weight: str = "normal") -> str:
    """The text itself if it fits, else as much of both ends as does, with an ellipsis between."""
    if width_in(text, size_pt, weight) <= room_in:
        return text

    def cut(kept: int) -> str:
        head = (kept + 1) // 2
        return text[:head] + "…" + text[len(text) - (kept - head) :]

    kept = largest(len(text) - 1, lambda count: width_in(cut(count), size_pt, weight) <= room_in)
    return cut(kept)


def shorten_all(texts: Sequence[str], room_in: float, size_pt: float = 8) -> list[str]:
    """Shorten each; where two different texts come out alike, both get their number in front."""
    short = [shorten(text, room_in, size_pt) for text in texts]
    if len(set(short)) == len(set(texts)):
        return short
    numbered = [f"[{number}] {text}" for number, text in enumerate(texts, 1)]
    return [
        shorten(numbered[place], room_in, size_pt) if short.count(text) > 1 else text
        for place, text in enumerate(short)
    ]


def wrap(text: str, room_in: float, size_pt: float = 8, lines: int = 3, weight: str = "normal") -> list[str]:
    """Break the text into at most `lines` lines that fit, at blanks where there are any; the last is cut if need be."""
    broken: list[str] = []
    rest = text
    while rest and len(broken) < lines - 1 and width_in(rest, size_pt, weight) > room_in:
        fitting = longest_start(rest, room_in, size_pt, weight)
        blank = rest.rfind(" ", 1, fitting + 1)
        stop = blank if blank > 0 else max(1, fitting)
        broken.append(rest[:stop].rstrip())
        rest = rest[stop:].lstrip()
    return [*broken, shorten(rest, room_in, size_pt, weight)] if rest else broken


def longest_start(text: str, room_in: float, size_pt: float, weight: str) -> int:
    """How many of the first characters fit into the room."""
    return largest(len(text), lambda count: width_in(text[:count], size_pt, weight) <= room_in)


def largest(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest count in 0..limit that still fits, by bisection; 0 when none does."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
