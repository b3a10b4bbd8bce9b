"""What `ttc check` asks of a strategy: it is run on an engine that writes by rule, with a reward model of that kind."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.budgets import Budget, Clock, Deadline, monotonic
from harness.checks.check import Finding, attempt
from harness.nouns import Completion, PlainRewardModel, Prompt, Request, Sampling
from harness.running.drafts import Ask, Draft
from harness.running.scoring import Judge
from harness.running.searching import Searcher, load_strategy

SAMPLES = 4
LINES = 3
MOST_TOKENS = 200
"""Far more than a reply of the engine below has."""


class Rule:
    """An engine whose replies are `LINES` lines and an answer, a word at a time, side by side; the seed says which."""

    name = "rule"

    def extend(self, waiting: deque[Ask], deadline: Deadline) -> Iterator[Draft]:
        """See `harness.running.drafts`."""
        flying: list[tuple[Ask, list[str], float]] = []
        while (waiting or flying) and not deadline.expired:
            while waiting:
                flying.append((waiting.popleft(), [], deadline.elapsed_s))
            deadline.charge(tokens=len(flying), flops=float(len(flying)))
            for one in list(flying):
                ask, words, began = one
                text = ask.draft.text + "".join(words)
                words.append(next_word(text, ask.request.seed))
                sampling = ask.request.sampling
                is_end = words[-1].startswith("\\boxed")
                if is_end or any(stop in words[-1] for stop in sampling.stop) or len(words) >= sampling.max_tokens:
                    flying.remove(one)
                    whole = is_end or any(stop in words[-1] for stop in sampling.stop)
                    yield written(ask, words, began, deadline, "stop" if whole else "length", is_end)
        for ask, words, began in flying:
            yield written(ask, words, began, deadline, "deadline", False)

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        """Whole replies, for a strategy that asks for nothing else."""
        asks = deque(Ask(Draft(), one, (), one.sampling.max_tokens, one.sampling.max_tokens) for one in requests)
        for draft in self.extend(asks, deadline):
            yield replace(draft.pieces[-1], text=draft.text)


def next_word(text: str, seed: int) -> str:
    """What the engine writes after a text."""
    if text.count("\n") >= LINES:
        return f"\\boxed{{{seed % 3}}}"
    return ("step ", f"{seed % 7} ", "done\n")[len(text.rpartition("\n")[2].split()) % 3]


def written(ask: Ask, words: Sequence[str], began: float, deadline: Deadline, reason: str, ended: bool) -> Draft:
    """The draft of a piece."""
    request, now = ask.request, deadline.elapsed_s
    piece = Completion(
        request.problem_id, request.sample_index, "".join(words), reason, 3, len(words), request.seed,  # type: ignore[arg-type]
        began, began, began, now, 1.0, 0.0, float(len(words)), 0.0,
    )  # fmt: skip
    return ask.longer(piece, ask.draft.text + piece.text, ended=ended)


def by_rule(prompt: Prompt, completions: Sequence[str]) -> list[list[float]]:
    """A score for every step: the smaller, the larger the numbers in it."""
    return [[1.0 / (1 + sum(map(int, filter(str.isdigit, one)))) for one in text.split("\n")] for text in completions]


def check_strategy(reference: str, options: Sequence[str], clock: Clock = monotonic) -> list[Finding]:
    """It gives what it is asked for, repeats itself under one seed, and ends with its deadline. Raises UserError."""
    strategy = load_strategy(reference, options)
    judge = Judge("rule", (), PlainRewardModel("rule", by_rule), clock)
    model = Searcher(Rule(), strategy, SAMPLES, [judge])
    sampling = Sampling(max_tokens=MOST_TOKENS, seed=7)
    requests = [Request("check/0", index, "2 + 3 =", sampling) for index in range(SAMPLES)]
    try:
        rows, again = (list(model.generate(requests, Deadline(None, clock))) for _ in range(2))
        brief = Deadline(Budget(10, "tokens"), clock)
        cut = list(model.generate(requests, brief))
    except Exception as error:
        return [Finding("it searches", False, f"it raises {type(error).__name__}: {error}")]
    finally:
        for other in strategy.models:
            if close := getattr(other, "close", None):
                close()
    found = [row for row in rows if row.finish_reason == "stop"]
    return [
        Finding("it finds candidates", bool(found), f"{len(found)} of {SAMPLES}"),
        Finding("each sample has one row", sorted(row.sample_index for row in rows) == list(range(SAMPLES))),
        attempt("one seed, one outcome", lambda: texts_of(rows) == texts_of(again)),
        Finding(
            "a token budget of 10 stops it", brief.tokens <= 10 + 2 * SAMPLES, f"{brief.tokens} tokens charged"
        ),
        Finding(
            "a row that the deadline cut says so", all(row.finish_reason != "length" or row.text for row in cut)
        ),
    ]  # fmt: skip


def texts_of(rows: Sequence[Completion]) -> dict[int, str]:
    """The texts by sample."""
    return {row.sample_index: row.text for row in rows}
