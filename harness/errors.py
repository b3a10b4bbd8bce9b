"""The one error that is meant for a person."""


class UserError(Exception):
    """A user's mistake, told in one sentence: what was wrong, with the value, what exists, what to type.

    The command line prints it without a traceback and ends with exit code 2.
    """


def choices(names: list[str]) -> str:
    """Spell a list of names for an error sentence: `a, b, c`, or `none` when it is empty."""
    return ", ".join(sorted(names)) if names else "none"
