"""A strategy at work: a model that searches, which the measured loop takes for any other."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from harness.budgets import Deadline
from harness.errors import UserError
from harness.grading import answer_of, classes_of
from harness.nouns import Completion, Facts, Model, Prompt, Request, RewardModel, Task, stream_seed
from harness.plugin_options import positional_names, read_options
from harness.plugins import load_function
from harness.running.drafts import Draft, completion_of
from harness.running.scoring import Judge
from harness.running.strategies import LONGEST_ADDED, OutOfTime, Search, Strategy, rendered

if TYPE_CHECKING:
    from harness.running.bench import Plan


def load_strategy(reference: str, pairs: Sequence[str] = ()) -> Strategy:
    """Build a strategy from a function `(search, *, options)` or one of options that returns it. Raises UserError."""
    function = load_function("strategies", reference)
    options = read_options(function, f"strategy {reference}", pairs)
    name = reference.rpartition(":")[2]
    if len(positional_names(function)) == 1:
        return Strategy(name, partial(function, **options))
    strategy = function(**options)
    if not isinstance(strategy, Strategy):
        raise UserError(
            f"strategy {reference} is neither a function of (search) nor one that returns a Strategy (from "
            f"harness.running.strategies import Strategy); it returned {type(strategy).__name__}"
        )
    return replace(strategy, name=name)


def check_strategy(asked: "Plan") -> None:
    """Refuse a strategy that is not there, options that it does not take, and a protocol. Raises UserError."""
    if not asked.strategy:
        if asked.strategy_options:
            raise UserError(f"'{asked.strategy_options[0]}' is an option of no strategy; add --strategy NAME")
        return
    function = load_function("strategies", asked.strategy)
    read_options(function, f"strategy {asked.strategy}", asked.strategy_options)
    if asked.protocol != "latency":
        raise UserError(
            f"the strategy {asked.strategy} searches one problem at a time; use --protocol latency, not "
            f"{asked.protocol}"
        )


class Remembered:
    """A reward model that scores no text of the present prompt twice: what a search has scored is not scored again.

    One that has `keep_beginnings` is told to read no beginning twice either.
    Everything but scores is the inner model's.
    """

    def __init__(self, inner: RewardModel) -> None:
        self.inner = inner
        self.known: dict[str, Sequence[float]] = {}
        self.prompt: Prompt | None = None
        self.fresh = 0
        """Texts that the last call had to score."""
        if keep := getattr(inner, "keep_beginnings", None):
            keep()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def score(self, prompt: Prompt, completions: Sequence[str]) -> list[Sequence[float]]:
        """See `harness.nouns.RewardModel`."""
        if prompt != self.prompt:
            self.prompt, self.known = prompt, {}
        fresh = [text for text in completions if text not in self.known]
        self.fresh = len(fresh)
        if fresh:
            self.known |= dict(zip(fresh, self.inner.score(prompt, fresh), strict=True))
        return [self.known[text] for text in completions]

    def score_all(self, asked: Sequence[tuple[Prompt, str]]) -> list[Sequence[float]]:
        """The same for completions of any prompts."""
        return [self.score(prompt, [text])[0] for prompt, text in asked] if differing(asked) else self.alike(asked)

    def alike(self, asked: Sequence[tuple[Prompt, str]]) -> list[Sequence[float]]:
        """All of one prompt, in one call."""
        return self.score(asked[0][0], [text for _, text in asked]) if asked else []


def differing(asked: Sequence[tuple[Prompt, str]]) -> bool:
    """Whether there are completions of several prompts."""
    return any(prompt != asked[0][0] for prompt, _ in asked)


def searching(model: Model, asked: "Plan", judges: Sequence[Judge], task: Task) -> Model:
    """The model as the plan wants it asked: as it is, or through a strategy. Raises UserError."""
    if not asked.strategy:
        return model
    strategy = load_strategy(asked.strategy, asked.strategy_options)
    if strategy.reads_scores and not judges:
        raise UserError(
            f"the strategy {strategy.name} is guided by a reward model; add --reward-model R "
            "(`ttc list reward-models` names them)"
        )
    for judge in judges:
        judge.model = cast(RewardModel, Remembered(judge.model))
    return Searcher(model, strategy, asked.samples, judges, task, asked.strategy_options)


class Searcher:
    """A `harness.nouns.Model` that answers each call by searching one problem.

    Args:
        model: the engine.
        strategy: what it does.
        samples: candidates that are wanted of a problem. A call for fewer, after an interruption, repeats the whole
            search and yields those; its clock goes on where the interrupted one stood.
        judges: reward models; the strategy uses the first.
        task: says what is an answer and which are equivalent.
        options: as the user wrote them, for the manifest.
    """

    def __init__(
        self,
        model: Model,
        strategy: Strategy,
        samples: int,
        judges: Sequence[Judge] = (),
        task: Task | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.name, self.model, self.strategy, self.samples = model.name, model, strategy, samples
        self.judges, self.task, self.options = judges, task, list(options)

    @property
    def facts(self) -> Facts:
        """The engine's own and those of the strategy."""
        return {
            **getattr(self.model, "facts", {}),
            "strategy": self.strategy.name,
            "strategy_options": self.options,
            "strategy_replays": self.strategy.replays,
            "strategy_models": [
                {"name": model.name, **getattr(model, "facts", {})} for model in self.strategy.models
            ],
        }  # fmt: skip

    def render(self, prompt: Prompt) -> str:
        """The exact text that the model reads."""
        return rendered(self.model, prompt)

    def prepare(self, calls: Sequence[Sequence[Request]]) -> None:
        """Let every engine make room for replies with what a strategy may put into them."""
        longer = [[self.longer(request) for request in call] for call in calls]
        for model in (self.model, *self.strategy.models):
            if hasattr(model, "prepare"):
                model.prepare(longer)

    def longer(self, request: Request) -> Request:
        """The request with room for added texts."""
        tokens = request.sampling.max_tokens + LONGEST_ADDED
        return replace(request, sampling=replace(request.sampling, max_tokens=tokens))

    def close(self) -> None:
        """Free the engines."""
        for model in (self.model, *self.strategy.models):
            if close := getattr(model, "close", None):
                close()

    def classes(self, drafts: Sequence[Draft]) -> list[int | None]:
        """The classes of the drafts' answers, by the task's own word."""
        assert self.task is not None
        answers = [answer_of(self.task, draft.text, draft.ending or "stop")[0] for draft in drafts]
        return classes_of(self.task, answers)

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        """Search, and yield the candidates that are wanted; see `harness.nouns.Model`.

        Samples that the strategy gives no draft for become rows that are `dropped`, or cut by the deadline.
        """
        first = requests[0]
        if any(request.problem_id != first.problem_id for request in requests):
            raise UserError(f"the strategy {self.strategy.name} searches one problem at a time; use --protocol latency")
        for model in (self.model, *self.strategy.models):
            if forget := getattr(model, "forget", None):
                forget()
        wanted = {request.sample_index for request in requests}
        samples = max(self.samples, *(index + 1 for index in wanted)) if len(wanted) else 0
        search = Search(first.problem_id, first.prompt, samples, first.sampling, deadline, self.model, self.judges)
        if self.task is not None:
            search.classes = self.classes
        for row in self.rows(search):
            if row.sample_index in wanted:
                before = deadline.flops
                yield row
                search.outside_flops.append(deadline.flops - before)

    def rows(self, search: Search) -> Iterator[Completion]:
        """A row for every sample, those first that the strategy gives a draft for."""
        free = dict.fromkeys(range(search.samples))
        used: set[int] = set()
        is_cut = False
        drafts = self.strategy.search(search)
        try:
            while free:
                draft = next(drafts)
                used.add(id(draft))
                index = draft.stream if draft.stream in free else next(iter(free))
                del free[index]
                yield search.handed_over(draft, completion_of(draft, index, seed_of(search, index)))
        except StopIteration:
            pass
        except OutOfTime:
            is_cut = True
        is_cut |= search.deadline.expired
        left = [draft for draft in search.latest if id(draft) not in used and draft.ending in (None, "deadline")]
        for index in free:
            yield unfinished(search, left.pop(0) if left else None, index, is_cut)


def seed_of(search: Search, index: int) -> int:
    """The key of a sample's own random stream."""
    return stream_seed(search.sampling.seed, search.problem_id, index)


def unfinished(search: Search, draft: Draft | None, index: int, is_cut: bool) -> Completion:
    """The row of a sample that has no answer: what was being written, or nothing."""
    seed = seed_of(search, index)
    if draft is not None and draft.pieces:
        return replace(completion_of(draft, index, seed), finish_reason="deadline" if is_cut else "dropped")
    now = search.deadline.elapsed_s
    return Completion(
        search.problem_id, index, "", "deadline" if is_cut else "dropped", 0, 0, seed, now, now, None, now, 1.0
    )  # fmt: skip
