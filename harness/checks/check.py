"""Conformance checks that third-party plug-ins can run: `ttc check REF`.

A plug-in is what its function returns: a task, a selector (or a plain function of prompt and candidates), or a model.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, get_args

from harness import plugins
from harness.analysis.curves import value_of, value_of_choice
from harness.budgets import Budget, Clock, Deadline, monotonic
from harness.errors import UserError
from harness.faults import boundary
from harness.nouns import (
    Candidate,
    Choice,
    Completion,
    FinishReason,
    Graded,
    Model,
    Problem,
    Request,
    Sampling,
    Selector,
    Task,
)
from harness.plugin_options import options_of, positional_names, read_options

QUESTION = "2 + 3 ="
SHOWN = 3
"""How many offenders a finding names."""


class Finding(NamedTuple):
    """One rule of the contract: kept or broken, and by what."""

    what: str
    ok: bool
    detail: str = ""


def check_reference(reference: str, options: Sequence[str], data: str | None, checkpoint: str | None) -> list[Finding]:
    """Find the plug-in in whichever room has it and check it. Raises UserError when no room has it."""
    group = group_of(reference)
    function = plugins.load_function(group, reference)
    if group == "reward_models" or is_reward_function(function):
        from harness.checks.reward_checks import check_reward_model

        if positional_names(function) == ["checkpoint"] and checkpoint is None:
            raise UserError(f"'{reference}' loads checkpoints; name one to check it with: --checkpoint zoo/orm")
        return check_reward_model(plugins.load_reward_model(checkpoint or reference, options))
    if group == "strategies" or positional_names(function) == ["search"]:
        from harness.checks.strategy_checks import check_strategy

        return check_strategy(reference, options)
    if positional_names(function) == ["checkpoint"]:
        if checkpoint is None:
            raise UserError(f"'{reference}' is an engine; name a checkpoint to check it with: --checkpoint zoo/teacher")
        return check_model(plugins.load_model(checkpoint, reference, options))
    if len(positional_names(function)) == 2:
        return check_selector(plugins.load_selector(reference, options))
    if data is not None and "data" in options_of(function):
        options = [*options, f"data={data}"]
    read = read_options(function, f"plug-in {reference}", options)
    with boundary(f"plug-in {reference}"):
        value = function(**read)
    checks: list[tuple[type, Callable[[Any], list[Finding]]]] = [(Task, check_task), (Selector, check_selector)]
    for kind, run_check in checks:
        if isinstance(value, kind):
            return run_check(value)
    if hasattr(value, "generate"):
        return check_model(value)
    if hasattr(value, "search"):
        from harness.checks.strategy_checks import check_strategy

        return check_strategy(reference, options)
    if hasattr(value, "score"):
        from harness.checks.reward_checks import check_reward_model

        return check_reward_model(value)
    raise UserError(f"'{reference}' returned {type(value).__name__}, which is no Task, Selector, Model or RewardModel")


def is_reward_function(function: Callable[..., Any]) -> bool:
    """Whether a plain function is a reward model, of (prompt, completions), or a selector, of (prompt, candidates)."""
    return positional_names(function)[1:] == ["completions"]


def group_of(reference: str) -> plugins.Group:
    """The room that has the name; any room will do for a file or a module. Raises UserError when none has it."""
    if plugins.is_reference(reference):
        return "tasks"
    groups: list[plugins.Group] = ["tasks", "models", "selectors", "reward_models", "strategies"]
    for group in groups:
        if reference in plugins.names(group):
            return group
    raise UserError(
        f"no plug-in named '{reference}'; `ttc list` says what there is, or write ./file.py:name or module:name"
    )


def named(offenders: Sequence[str]) -> str:
    """Some offenders and how many more."""
    more = f" and {len(offenders) - SHOWN} more" if len(offenders) > SHOWN else ""
    return ", ".join(offenders[:SHOWN]) + more


def check_task(task: Task) -> list[Finding]:
    """Ids are unique, golds are read from a boxed completion and grade correct, and a wrong answer does not."""
    problems = list(task.problems)
    twice = [name for name, count in Counter(problem.id for problem in problems).items() if count > 1]
    read = {problem.id: readings(task, problem.gold) for problem in problems}
    unread = [problem.id for problem in problems if not read[problem.id]]
    ungraded = [p.id for p in problems if not any(task.grade(p.gold, a).outcome == "correct" for a in read[p.id])]
    fooled = [p.id for p in problems if task.grade(p.gold, "ttc-no-such-answer").outcome == "correct"]
    raised = list(raisers(task))
    return [
        Finding(f"{len(problems)} problems", bool(problems)),
        Finding("ids are unique", not twice, named(twice)),
        Finding("the gold is extracted from a completion that states it", not unread, named(unread)),
        Finding("what was extracted grades correct against the gold", not ungraded, named(ungraded)),
        Finding("a wrong answer does not grade correct", not fooled, named(fooled)),
        Finding("no text makes extract or grade raise", not raised, named(raised)),
    ]


def readings(task: Task, gold: str) -> list[str]:
    """What the task extracts from completions that state the gold in the usual ways."""
    stated = (f"So the answer is \\boxed{{{gold}}}.", f"The answer is {gold}", f"#### {gold}", gold)
    return [answer for text in stated if (answer := task.extract(text)) is not None]


def raisers(task: Task) -> Iterator[str]:
    """The hostile texts on which the task's functions raise."""
    gold = next(iter(task.problems)).gold if task.problems else "1"
    for text in (
        "",
        "\0",
        "\\boxed{",
        "\\boxed{" * 50,
        "9" * 5000,
        "2^{2^{2^{2^{99}}}}",
        "__import__('os')",
        "\\input{x}",
    ):
        try:
            task.extract(text)
            task.grade(gold, text)
        except Exception as error:
            yield f"{text[:20]!r} raises {type(error).__name__}"


def check_selector(selector: Selector) -> list[Finding]:
    """It chooses among what it was given, takes an empty list and candidates without answers, and is deterministic.

    What it claims to expect over subsets is compared with choosing from every subset.
    """
    answers = ["4", None, "5", "4", None, "6"]
    classes = [0, None, 1, 0, None, 2]
    candidates = tuple(
        Candidate(i, f"text {i}", answer, answer_class, 10 + i, 0.5 + i, -1.0 * i, (0.1 * i,))
        for i, (answer, answer_class) in enumerate(zip(answers, classes, strict=True))
    )
    graded = graded_as(candidates, [number == 0 for number in classes])
    sets = {
        "six candidates": graded,
        "no answers": graded_as(candidates[1:2], [False]),
        "one": graded_as(candidates[:1], [True]),
    }
    findings = [
        attempt(f"a value in 0..1 for {label}", functools.partial(sane, selector, some)) for label, some in sets.items()
    ]
    findings.append(
        attempt("deterministic", lambda: value_of(selector, "Q", graded) == value_of(selector, "Q", graded))
    )
    if selector.select is not None:
        select = selector.select
        findings.append(attempt("no candidates give no choice", lambda: empty(select("Q", ()))))
    if selector.expected is not None:
        findings.append(attempt("a value in 0..1 for each k", lambda: sane_for_each_k(selector, graded)))
    if selector.expected is not None and selector.select is not None and not selector.draws and not selector.value:
        findings.append(
            attempt("what it expects is the mean over all subsets", lambda: expects_the_mean(selector, graded))
        )
    return findings


def graded_as(candidates: tuple[Candidate, ...], correct: Sequence[bool]) -> Graded:
    """Candidates with their verdicts."""
    import numpy as np

    return Graded(candidates, np.array(correct))


def sane(selector: Selector, graded: Graded) -> bool:
    """The selector's value is a fraction."""
    return 0.0 <= value_of(selector, "Q", graded) <= 1.0


def sane_for_each_k(selector: Selector, graded: Graded) -> bool:
    """`expected` gives one fraction for each k that it is asked for."""
    assert selector.expected is not None
    ks = range(1, len(graded) + 1)
    values = list(selector.expected(graded, ks))
    return len(values) == len(ks) and all(-1e-9 <= value <= 1 + 1e-9 for value in values)


def expects_the_mean(selector: Selector, graded: Graded) -> bool:
    """`expected` equals what `select` comes to over every subset of each size."""
    import numpy as np

    assert selector.expected is not None
    ks = range(1, len(graded) + 1)
    for k, value in zip(ks, selector.expected(graded, ks), strict=True):
        subsets = [np.array(places) for places in itertools.combinations(range(len(graded)), k)]
        values = [value_of_choice(selector, "Q", graded.take(places)) for places in subsets]
        if abs(value - sum(values) / len(values)) > 1e-9:
            return False
    return True


def empty(choice: Choice | Candidate | None) -> bool:
    """No choice at all."""
    return choice is None or (isinstance(choice, Choice) and not choice.candidates)


def attempt(what: str, claim: Callable[[], bool]) -> Finding:
    """A finding from a claim that may be false or raise."""
    try:
        return Finding(what, claim())
    except Exception as error:
        return Finding(what, False, f"{type(error).__name__}: {error}")


def check_model(model: Model, clock: Clock = monotonic) -> list[Finding]:
    """It answers each request once, tells true times, repeats itself under one seed, and keeps a deadline."""
    try:
        return model_findings(model, clock)
    except Exception as error:
        return [Finding("it generates", False, f"on the prompt {QUESTION!r} it raises {type(error).__name__}: {error}")]


def model_findings(model: Model, clock: Clock) -> list[Finding]:
    """The findings on a model that does not raise."""
    sampling = Sampling(max_tokens=24, seed=7)
    problem = Problem("check/0", QUESTION, "5")
    requests = [Request(problem.id, index, problem.prompt, sampling) for index in range(3)]
    rows, again, alone = (
        list(model.generate(some, Deadline(None, clock))) for some in (requests, requests, requests[1:2])
    )
    texts = {row.sample_index: row.text for row in rows}
    brief = Deadline(Budget(6, "tokens"), clock)
    cut = list(model.generate(requests, brief))
    return [
        Finding("each request is answered once", sorted(texts) == [0, 1, 2] and len(rows) == 3, f"{len(rows)} rows"),
        Finding("finish reasons are known", all(row.finish_reason in get_args(FinishReason) for row in [*rows, *cut])),
        Finding("at most max_tokens tokens", all(row.completion_tokens <= 24 for row in rows)),
        Finding("times are in order", all(map(in_order, rows))),
        Finding("the row carries its request's seed", all(row.seed == requests[row.sample_index].seed for row in rows)),
        Finding("one seed, one text", {row.sample_index: row.text for row in again} == texts),
        Finding(
            "a sample does not depend on its batch", all(row.text == texts[1] for row in alone), "in exact arithmetic"
        ),
        Finding("a token budget of 6 stops it", brief.tokens <= 6 + len(requests), f"{brief.tokens} tokens charged"),
        Finding(
            "a row that the deadline cut says so",
            all(row.finish_reason == "deadline" or row.text == texts[row.sample_index] for row in cut),
        ),
    ]


def in_order(row: Completion) -> bool:
    """Submitted, started, first token, finished."""
    first = row.started_s if row.first_token_s is None else row.first_token_s
    return 0 <= row.submitted_s <= row.started_s <= first <= row.finished_s
