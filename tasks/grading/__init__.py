"""Grading: extraction of answers, reading of LaTeX, equivalence, and the killable pool behind it."""

from .extraction import (
    Extraction,
    extract_choice,
    extract_explicit,
    extract_explicit_cut,
    extract_number,
    find_answer,
)
from .grading import grade, grader, group, grouper, memo
from .rules import Rules

__all__ = [
    "Extraction",
    "Rules",
    "extract_choice",
    "extract_explicit",
    "extract_explicit_cut",
    "extract_number",
    "find_answer",
    "grade",
    "grader",
    "group",
    "grouper",
    "memo",
]
