"""The nouns that every room speaks: frozen dataclasses and Protocols, standard library only.

Nothing here reads a clock, a file or a tensor. A plug-in is a function that returns one of these values.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from harness.budgets import Deadline

if TYPE_CHECKING:
    import numpy as np

    from harness.analysis.columns import Columns, StepScores

Outcome = Literal["correct", "wrong", "unparsed", "no_answer", "timeout"]
FinishReason = Literal["stop", "length", "deadline", "error", "dropped"]
"""`dropped`: a strategy gave it up, see `harness.running.strategies`."""


class Message(NamedTuple):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


Prompt = str | tuple[Message, ...]
"""Plain text, or chat messages that the model renders with its own template."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One question. Only `prompt` ever reaches a model or a selector; `gold` and `meta` stay with the grader."""

    id: str
    prompt: Prompt
    gold: str
    meta: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the grader says of an answer, and the rule or the obstacle that decided it."""

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    r"""A set of problems and the two functions that judge a text.

    `extract(text)` gives the final answer of a completion that ended by itself, or None. `extract_cut(text)` does the
    same for a text that the token limit cut, where only an explicit answer (a closed `\boxed{...}`) may count; without
    it a cut text has no answer. `grade(gold, answer)` compares two answers, never raises on a model's text and may be
    called from any thread. `group(answers)` numbers the classes of equivalent answers of one problem; without it
    answers that grade correct against each other share a class.
    """

    name: str
    problems: Sequence[Problem]
    extract: Callable[[str], str | None]
    grade: Callable[[str, str], Verdict]
    extract_cut: Callable[[str], str | None] | None = None
    group: Callable[[Sequence[str]], Sequence[int]] | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 are off."""

    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 2048
    stop: tuple[str, ...] = ()
    seed: int = 0


def stream_seed(seed: int, problem_id: str, sample_index: int, step: int = 0) -> int:
    """The 63-bit key of one completion's random stream; what a strategy goes on with has a stream for each step.

    It depends on nothing else, so that batching, resuming and adding workers never change the variates a sample sees.
    """
    steps = f"\0{step}" if step else ""
    digest = hashlib.sha256(f"{seed}\0{problem_id}\0{sample_index}{steps}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True, slots=True)
class Request:
    """One completion that is asked of a model."""

    problem_id: str
    sample_index: int
    prompt: Prompt
    sampling: Sampling
    step: int = 0

    @property
    def seed(self) -> int:
        """The key of this completion's random stream (`stream_seed`)."""
        return stream_seed(self.sampling.seed, self.problem_id, self.sample_index, self.step)


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished, cut or failed completion. Times are seconds since the scope's clock began.

    `batch_size` is the mean number of rows in flight while it was decoded; `logprob` is the sum over its tokens under
    the distribution that was sampled from, None where the engine does not know it; `segment` counts the sittings of a
    run; `spent_flops` and `spent_tokens` are what the whole scope had spent when it finished, where a strategy counts.
    """

    problem_id: str
    sample_index: int
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    seed: int
    submitted_s: float
    started_s: float
    first_token_s: float | None
    finished_s: float
    batch_size: float
    prefill_flops: float = 0.0
    decode_flops: float = 0.0
    logprob: float | None = None
    error: str | None = None
    segment: int = 0
    spent_flops: float | None = None
    spent_tokens: int | None = None


class Model(Protocol):
    """A warm engine with a checkpoint in it.

    It may also offer `render(prompt) -> str` (the exact text the model reads; without it the messages' contents are
    joined), `prepare(calls)` (allocate and compile, outside every clock, for calls of `generate` with these requests),
    `facts` (a mapping for the manifest: engine, version, dtype, ...), and `close()`.
    """

    name: str

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        """Yield each completion when it finishes, batching as the engine likes; `deadline.elapsed_s` is the clock.

        The engine reports its work with `deadline.charge`, looks at `deadline.expired` once per decode step, and when
        it is true stops and yields what is unfinished, with the text so far and `finish_reason="deadline"`. Requests
        that were never started are not yielded.
        """
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a selector may look at: never the gold answer, never a verdict.

    `answer_class` numbers the classes of equivalent answers within the problem (1/2 and 0.5 share one); it is None
    exactly when `answer` is None. `scores` holds the reward model's per-step scores when the run has them;
    `scores_are_logits` is set when that model's scores in the run can be negative, so that they are no weights.
    """

    sample_index: int
    text: str
    answer: str | None
    answer_class: int | None
    completion_tokens: int
    finished_s: float
    logprob: float | None = None
    scores: tuple[float, ...] = ()
    scores_are_logits: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidates a selector holds equally good; its accuracy is the mean over them, so ties are shared."""

    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, eq=False)
class Graded:
    """Candidates of one problem with the grader's word on each: what statistics work on.

    `candidates` may be any sequence, such as one that reads a text only when it is asked for. `correct` is kept as a
    boolean array (n,). The other columns are those of `Columns`; they are read off the candidates unless `stored`.
    """

    candidates: Sequence[Candidate]
    correct: "np.ndarray"
    stored: "Columns | None" = None

    def __post_init__(self) -> None:
        import numpy as np

        object.__setattr__(self, "correct", np.asarray(self.correct, bool))

    def __len__(self) -> int:
        return len(self.correct)

    @functools.cached_property
    def columns(self) -> "Columns":
        """Everything but the texts, as arrays."""
        from harness.analysis.columns import columns_of

        return columns_of(self.candidates) if self.stored is None else self.stored

    @property
    def sample_index(self) -> "np.ndarray":
        """(n,) the number of the sample within the problem."""
        return self.columns.sample_index

    @property
    def classes(self) -> "np.ndarray":
        """(n,) the class of equivalent answers, -1 for no answer."""
        return self.columns.classes

    @property
    def completion_tokens(self) -> "np.ndarray":
        """(n,) tokens."""
        return self.columns.completion_tokens

    @property
    def finished_s(self) -> "np.ndarray":
        """(n,) seconds since the scope's clock began; infinite or NaN where there is no such time."""
        return self.columns.finished_s

    @property
    def scores(self) -> "StepScores | None":
        """The reward model's step scores, None when there are none."""
        return self.columns.scores

    def take(self, places: "np.ndarray") -> "Graded":
        """The candidates at these places, in this order."""
        from harness.analysis.columns import Picked

        return Graded(Picked(self.candidates, places), self.correct[places], self.columns.take(places))


@dataclass(frozen=True, slots=True)
class Selector:
    """A rule that chooses among candidates.

    `select(prompt, candidates)` returns a `Choice`, one candidate, or None for no answer. `expected(graded, ks)`, where
    it is known in closed form, gives for each k of `ks` the expected value over all subsets of `k` of the candidates; a
    bound that needs the truth, such as coverage, has only this. At least one of the two is there.

    `reads_scores` says that the rule needs a reward model; it is then evaluated once for each that scored the run.
    `draws` is None when `expected` is exact, else how many random subsets it averages over. `stop(classes, asked)`, of
    a rule that need not wait for every candidate, is how many of them it waits for: `classes` (n,) are the answers in
    order of finishing (-1: no answer) out of `asked` that were begun; `select` is given those, and what the others
    would have cost is saved. `value(graded)` is the accuracy on exactly these candidates, for a rule whose expectation
    over all of them is another (one that looks at the order of the samples).
    """

    name: str
    select: Callable[[Prompt, Sequence[Candidate]], Choice | Candidate | None] | None = None
    expected: "Callable[[Graded, Sequence[int]], Sequence[float] | np.ndarray] | None" = None
    reads_scores: bool = False
    draws: int | None = None
    stop: "Callable[[np.ndarray, int], int] | None" = None
    value: Callable[[Graded], float] | None = None


class RewardModel(Protocol):
    """Scores completions of one prompt; its time and FLOPs are charged to the budget and shown with and without.

    It may also offer `score_all(asked)`, the same for (prompt, completion) pairs of several prompts at once;
    `max_batch_size`, how many completions it takes in a call; `flops`, the FLOPs of all its scoring so far, whose
    growth over a call is what the call cost; `facts`, a mapping for the manifest; and `close()`.
    """

    name: str

    def score(self, prompt: Prompt, completions: Sequence[str]) -> Sequence[Sequence[float]]:
        """Per-step scores, one sequence per completion, empty for one that cannot be scored.

        An outcome model gives sequences of length one. Scores are probabilities, or logits if any can be negative.
        """
        ...


@dataclass(slots=True)
class PlainRewardModel:
    """A reward model that is a function of (prompt, completions) and gives a number or step scores for each."""

    name: str
    score: Callable[[Prompt, Sequence[str]], Sequence[Any]]


Facts = Mapping[str, Any]
"""What a model tells the manifest: JSON values by name."""
