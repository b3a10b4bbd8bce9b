"""Grading with a memo and the pool: the functions that tasks and the command line use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from harness.budgets import monotonic
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
WINDOW = 512
"""Pairs that `grade_pairs` may be ahead of the one it yields."""

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


def grade_pairs(
    pairs: Iterable[tuple[str, str]], rules: Rules = DEFAULT, limit_s: float = LIMIT_S
) -> Iterator[tuple[Verdict, float]]:
    """Grade (gold, answer) pairs as they come: yields (verdict, milliseconds) in their order.

    Easy pairs are graded in place while workers take the hard ones; at most 512 pairs are held at once. Raises
    UserError when a gold answer is empty.
    """
    waiting: deque[Future[tuple[Verdict, float]]] = deque()
    with ThreadPoolExecutor(shared_pool().size) as threads:
        for gold, answer in pairs:
            waiting.append(submitted(threads, gold, answer, rules, limit_s))
            while waiting and (waiting[0].done() or len(waiting) >= WINDOW):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def submitted(
    threads: ThreadPoolExecutor, gold: str, answer: str, rules: Rules, limit_s: float
) -> "Future[tuple[Verdict, float]]":
    """The verdict and its time, at once for an easy pair and later for a hard one."""
    start = monotonic()
    if not gold.strip():
        raise UserError("the gold answer is empty; give the answer that is right")
    try:
        verdict = memo.get(rules, gold, answer) or memo.keep(rules, gold, answer, judge(gold, answer, rules))
    except Undecided:
        return threads.submit(timed, gold, answer, rules, limit_s)
    done: Future[tuple[Verdict, float]] = Future()
    done.set_result((verdict, 1000 * (monotonic() - start)))
    return done


def timed(gold: str, answer: str, rules: Rules, limit_s: float) -> tuple[Verdict, float]:
    """A hard pair with the milliseconds it took, waiting for a worker included."""
    start = monotonic()
    return grade_by(rules, gold, answer, limit_s), 1000 * (monotonic() - start)
