r"""`arithmetic`: generated multi-step word problems with worked solutions, for models that can be trained in an hour.

Each problem follows one count through `difficulty + 1` events. The worked solution computes one event per line and
ends in `\boxed{}`. Whether a question belongs to the test or the train split is decided by a hash of its text, so the
two never share a question, whatever their seeds and difficulties.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from harness.errors import UserError
from harness.nouns import Problem, Task

from .grading import extract_explicit, extract_explicit_cut, grade
from .prompts import chat

Split = Literal["test", "train"]

NAMES = (
    "Ada",
    "Ben",
    "Cleo",
    "Dan",
    "Eve",
    "Finn",
    "Gus",
    "Hana",
    "Ivo",
    "Jana",
    "Kai",
    "Lena",
    "Max",
    "Nora",
    "Omar",
    "Pia",
)
ITEMS = (
    "apples",
    "books",
    "cards",
    "coins",
    "eggs",
    "flowers",
    "marbles",
    "pens",
    "shells",
    "stamps",
    "stones",
    "toys",
)
LARGEST = 400
HARDEST = 16


class Event(NamedTuple):
    """One thing that happens to the count: how it is told, how it is worked out, and the count after it."""

    told: str
    worked: str
    after: int


def gain(count: int, item: str, rng: random.Random) -> Event:
    """Add a number."""
    more = rng.randint(2, 60)
    verb = rng.choice(("finds", "buys", "gets"))
    return Event(f"{verb} {more} more {item}", f"{count} + {more} = {count + more}", count + more)


def lose(count: int, item: str, rng: random.Random) -> Event:
    """Take a number away."""
    fewer = rng.randint(1, max(1, count - 1))
    verb = rng.choice(("loses", "gives away", "sells"))
    return Event(f"{verb} {fewer} {item}", f"{count} - {fewer} = {count - fewer}", count - fewer)


def gain_packs(count: int, item: str, rng: random.Random) -> Event:
    """Add so many packs of so many: a product, then a sum."""
    packs, each = rng.randint(2, 9), rng.randint(2, 12)
    pack = rng.choice(("bags", "boxes", "packs"))
    total = packs * each
    told = f"buys {packs} {pack} with {each} {item} in each"
    return Event(told, f"{packs} * {each} = {total}, {count} + {total} = {count + total}", count + total)


def multiply(count: int, item: str, rng: random.Random) -> Event:
    """Two, three or four times as many."""
    factor, told = rng.choice(((2, "doubles"), (3, "triples"), (4, "quadruples")))
    return Event(f"{told} the number of {item}", f"{count} * {factor} = {count * factor}", count * factor)


def share(count: int, item: str, rng: random.Random) -> Event:
    """Divide equally and keep one share; the divisor divides the count."""
    divisors = [n for n in range(2, 10) if count % n == 0]
    if not divisors:
        return gain(count, item, rng)
    shares = rng.choice(divisors)
    told = f"splits the {item} into {shares} equal parts and keeps one part"
    return Event(told, f"{count} / {shares} = {count // shares}", count // shares)


EVENTS: tuple[Callable[[int, str, random.Random], Event], ...] = (gain, lose, gain_packs, multiply, share)


class Worked(NamedTuple):
    """A question with its worked solution and answer."""

    question: str
    solution: str
    answer: int


def worked_problem(difficulty: int, rng: random.Random) -> Worked:
    """Draw one problem of `difficulty + 1` events, every count between 1 and LARGEST."""
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    count = rng.randint(5, 40)
    told, lines = [f"{name} has {count} {item}."], [f"{name} starts with {count} {item}."]
    for step in range(1, difficulty + 2):
        event = rng.choice(EVENTS)(count, item, rng)
        while not 1 <= event.after <= LARGEST:
            event = rng.choice(EVENTS)(count, item, rng)
        count = event.after
        told.append(f"{'Then ' if step > 1 else ''}{name} {event.told}.")
        lines.append(f"Step {step}: {name} {event.told}: {event.worked}.")
    question = " ".join([*told, f"How many {item} does {name} have now?"])
    solution = "\n".join([*lines, rf"The answer is \boxed{{{count}}}."])
    return Worked(question, solution, count)


def split_of(question: str) -> Split:
    """The split a question belongs to: one in eight is test, by the first byte of its SHA-256."""
    return "test" if hashlib.sha256(question.encode()).digest()[0] % 8 == 0 else "train"


def worked_problems(split: Split, difficulty: int, seed: int) -> Iterator[Worked]:
    """An endless seeded stream of distinct problems of one split."""
    rng = random.Random(f"arithmetic/{split}/{difficulty}/{seed}")
    seen: set[str] = set()
    while True:
        drawn = worked_problem(difficulty, rng)
        if split_of(drawn.question) == split and drawn.question not in seen:
            seen.add(drawn.question)
            yield drawn


def arithmetic(
    split: Split = "test", difficulty: int = 5, num_problems: int = 200, seed: int = 0, num_fewshot: int = 0
) -> Task:
    r"""Generated multi-step word problems; `difficulty` 1 to 16 is the number of steps less one.

    Few-shot examples come from the train split. Raises UserError on a difficulty or a count out of range.
    """
    if not 1 <= difficulty <= HARDEST:
        raise UserError(f"arithmetic: difficulty must be 1 to {HARDEST}, got {difficulty}")
    if num_problems < 1:
        raise UserError(f"arithmetic: num_problems must be at least 1, got {num_problems}")
    shots = worked_problems("train", difficulty, seed + 1)
    examples = [(shot.question, shot.solution) for shot, _ in zip(shots, range(num_fewshot), strict=False)]
    drawn = worked_problems(split, difficulty, seed)
    problems = [
        Problem(
            f"arithmetic/{split}/{difficulty}/{seed}/{index}",
            chat(each.question, examples),
            str(each.answer),
            {"difficulty": difficulty, "solution": each.solution},
        )
        for index, each in zip(range(num_problems), drawn, strict=False)
    ]
    return Task("arithmetic", problems, extract_explicit, grade, extract_explicit_cut)
