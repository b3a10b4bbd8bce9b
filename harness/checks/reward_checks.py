"""Conformance checks of reward models, for `ttc check`."""

import functools
import math
from collections.abc import Callable, Sequence

from harness.checks.check import Finding
from harness.nouns import Message, Prompt, RewardModel
from harness.running.scoring import check_scores

CHAT: Prompt = (Message("user", "2 + 2 + 3 ="),)
COMPLETIONS = ["First, 2 + 2 = 4.\n\nThen, 4 + 3 = 7.\n\nThe answer is 7.", "It is 8.", "The answer is 7."]
TOLERANCE = 0.02
"""How far a score may lie from what the same completion gets in another batch: half-precision products round."""


def check_reward_model(model: RewardModel) -> list[Finding]:
    """It scores every completion with finite numbers, takes all kinds of text, and repeats itself in any batch."""
    again = functools.partial(scores_of, model)
    claims: list[tuple[str, Callable[[], bool]]] = [
        ("finite scores for each completion", lambda: all(again(CHAT, COMPLETIONS))),
        ("no completions give no scores", lambda: again(CHAT, []) == []),
        ("a prompt may be plain text", lambda: all(again("2 + 2 + 3 =", COMPLETIONS))),
        ("a blank completion does not make it raise", lambda: len(again(CHAT, [" \n", *COMPLETIONS])) == 4),
        ("the same scores a second time", lambda: close(again(CHAT, COMPLETIONS), again(CHAT, COMPLETIONS))),
        (
            "a score does not depend on its batch",
            lambda: close(again(CHAT, COMPLETIONS), [again(CHAT, [one])[0] for one in COMPLETIONS]),
        ),
    ]
    if hasattr(model, "flops"):
        claims.append(("its count of FLOPs grows with every call", lambda: grows(model)))
    return [attempt(what, claim) for what, claim in claims]


def attempt(what: str, claim: Callable[[], bool]) -> Finding:
    """A finding from a claim that may be false or raise."""
    try:
        return Finding(what, claim())
    except Exception as error:
        return Finding(what, False, f"{type(error).__name__}: {error}")


def scores_of(model: RewardModel, prompt: Prompt, completions: Sequence[str]) -> list[list[float]]:
    """The scores as they would be stored. Raises ValueError when they could not be."""
    return check_scores(model.score(prompt, completions), len(completions))


def close(some: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> bool:
    """Whether scores are equal but for rounding."""
    alike = functools.partial(math.isclose, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return all(len(a) == len(b) and all(map(alike, a, b)) for a, b in zip(some, others, strict=True))


def grows(model: RewardModel) -> bool:
    """Whether the count of FLOPs is larger after a call."""
    before = float(getattr(model, "flops", 0.0))
    model.score(CHAT, COMPLETIONS)
    return float(getattr(model, "flops", 0.0)) > before
