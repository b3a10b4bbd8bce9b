"""Grading with a memo and the pool: the functions that tasks and the command line use."""

from collections.abc import Callable, Sequence

from harness.errors import UserError
from harness.nouns import Verdict

from .classes import classes, voting
from .judge import judge
from .memo import Memo
from .nodes import Undecided
from .pool import shared_pool
from .rules import DEFAULT, Rules

LIMIT_S = 1.0
"""Seconds that a worker may spend on one answer."""

memo = Memo()


def grade_by(rules: Rules, gold: str, answer: str, limit_s: float = LIMIT_S) -> Verdict:
    """The verdict on one answer by these rules, from the memo, in place, or from a worker."""
    if not gold.strip():
        raise UserError("the gold answer is empty; give the answer that is right")
    known = memo.get(rules, gold, answer)
    if known is not None:
        return known
    try:
        verdict = judge(gold, answer, rules)
    except Undecided:
        return memo.once(rules, gold, answer, lambda: shared_pool().grade(gold, answer, rules, limit_s))
    return memo.keep(rules, gold, answer, verdict)


def grade(gold: str, answer: str) -> Verdict:
    """Compare an answer with the gold answer by the default rules.

    Any text is accepted as answer; an empty one is `no_answer`, one that cannot be read `unparsed`, one that takes more
    than a second `timeout`, each with its reason. Safe from any thread. Raises UserError when the gold answer is empty.
    """
    return grade_by(DEFAULT, gold, answer)


def grader(rules: Rules = DEFAULT, limit_s: float = LIMIT_S) -> Callable[[str, str], Verdict]:
    """`grade` with a task's own rules and time limit, to be put into a Task."""

    def grade_with_rules(gold: str, answer: str) -> Verdict:
        return grade_by(rules, gold, answer, limit_s)

    return grade_with_rules


def group(answers: Sequence[str]) -> list[int]:
    """Number the classes of equivalent answers of one problem: equal numbers vote together.

    Classes are numbered by first appearance; which answers share one does not depend on the order. Answers that cannot
    be read are equivalent only to the same text.
    """
    return grouper()(answers)


def grouper(rules: Rules = DEFAULT, limit_s: float = LIMIT_S) -> Callable[[Sequence[str]], list[int]]:
    """`group` with a task's own rules and time limit."""
    strict = voting(rules)
    return lambda answers: classes(answers, strict, lambda gold, answer: grade_by(strict, gold, answer, limit_s))
