"""Reads the gold answer out of a data set's own solution text. Model text is read by `grading`, not here."""

import re


def last_boxed(solution: str) -> str | None:
    r"""The content of the last `\boxed{...}`, `\fbox{...}` or `\framebox{...}` that closes, or None."""
    for opening in reversed(list(re.finditer(r"\\(?:boxed|fbox|framebox)\s*{", solution))):
        closing = closing_brace(solution, opening.end())
        if closing is not None:
            return solution[opening.end() : closing].strip()
    return None


def closing_brace(text: str, start: int) -> int | None:
    """Where the brace that was opened just before `start` closes; an escaped brace does not count."""
    depth = 1
    for brace in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return start + brace.start()
    return None
