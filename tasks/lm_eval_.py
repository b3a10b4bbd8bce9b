"""`lm_eval:NAME`: a generation task of lm-evaluation-harness 0.4, with its prompts, few-shot form and stop texts.

The package is read where it is installed (`pip install lm-eval`); it loads the task's data set as it always does. What
a task's YAML file says is followed: the text of a document, the examples before it, where a reply ends.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from harness.errors import UserError, choices
from harness.nouns import Message, Problem, Prompt, Task, Verdict

from .data import plain_number
from .grading import extract_explicit, extract_explicit_cut, extract_number, grade, group

INVALID = "[invalid]"
"""What lm-eval's regular-expression filter gives where it finds nothing."""


def lm_eval(
    name: str = "",
    include_path: str | None = None,
    num_fewshot: int | None = None,
    chat: bool = False,
    grading: Literal["ours", "theirs"] = "ours",
    filter_name: str | None = None,
) -> Task:
    """A generation task of lm-evaluation-harness, by its name there (`--task lm_eval:NAME`).

    Args:
        name: as in `lm_eval ls tasks`.
        include_path: a folder of your own task files.
        num_fewshot: None for what the task says.
        chat: whether the prompt goes through the model's chat template, as one user message.
        grading: `ours` extracts and compares as all tasks here do; `theirs` takes the text that the task's filter
            leaves, and its first metric, which must be 0 or 1.
        filter_name: of several filters the one to use; None is the first.

    Raises UserError without lm-eval, for a name it does not have, one of several tasks, one that does not generate, and
    an unknown filter.
    """
    if not name:
        raise UserError("lm_eval holds many tasks; write which, for example --task lm_eval:gsm8k")
    asked = load(name, include_path)
    docs = list(asked.eval_docs)
    asked.set_fewshot_seed(1234)  # lm-eval's own default
    shots = asked.config.num_fewshot or 0 if num_fewshot is None else num_fewshot
    stops = [stop for stop in (asked.config.generation_kwargs or {}).get("until", []) if stop]
    targets = [target_of(asked, doc) for doc in docs]
    problems = [
        Problem(
            f"lm_eval/{name}/{index}",
            prompt_of(asked.fewshot_context(doc, num_fewshot=shots), chat),
            gold_of(target) if grading == "ours" else target,
            {"target": target},
        )
        for index, (doc, target) in enumerate(zip(docs, targets, strict=True))
    ]
    if grading == "theirs":
        doc_of = dict(zip(targets, docs, strict=True))
        return Task(f"lm_eval:{name}", problems, *their_judges(asked, doc_of, stops, filter_name))
    extract = extract_number if all(is_number(problem.gold) for problem in problems) else extract_explicit
    return Task(
        f"lm_eval:{name}", problems, lambda text: extract(cut(text, stops)), grade,
        lambda text: extract_explicit_cut(cut(text, stops)), group,
    )  # fmt: skip


def load(name: str, include_path: str | None) -> Any:
    """The task object of lm-eval. Raises UserError when there is none that generates."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(f"lm-evaluation-harness is not installed ({error}); type: pip install lm-eval") from error
    manager = TaskManager(include_path=include_path)
    if name not in manager.all_tasks:
        near = [other for other in manager.all_tasks if name.partition("_")[0] in other][:5]
        known = choices(near) if near else "those that `lm_eval ls tasks` tells"
        raise UserError(f"lm-eval has no task '{name}'; it has {known}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the data set's loader
        tasks: Mapping[str, Any] = manager.load([name])["tasks"]
    if len(tasks) != 1:
        raise UserError(f"'{name}' is several tasks of lm-eval; write one of {choices(sorted(tasks)[:8])}")
    (found,) = tasks.values()
    if found.OUTPUT_TYPE != "generate_until":
        raise UserError(f"lm-eval's task '{name}' compares likelihoods ({found.OUTPUT_TYPE}); name one that generates")
    return found


def prompt_of(context: str, chat: bool) -> Prompt:
    """What a model is asked: the text as it stands, or as one user message."""
    return (Message("user", context),) if chat else context


def target_of(task: Any, doc: Any) -> str:
    """A document's answer as lm-eval has it, the first of several."""
    target = task.doc_to_target(doc)
    return str(target[0] if isinstance(target, list) else target)


def gold_of(target: str) -> str:
    """The final answer of a target, which may be a worked solution."""
    return extract_explicit(target) or target.strip()


def is_number(gold: str) -> bool:
    """Whether an answer is a plain decimal number."""
    try:
        plain_number(gold)
    except ValueError:
        return False
    return True


def cut(text: str, stops: Sequence[str]) -> str:
    """A reply up to the first of the texts that end it."""
    return text[: min((place for place in map(text.find, stops) if place >= 0), default=len(text))]


Extract = Callable[[str], str | None]
Grade = Callable[[str, str], Verdict]


def their_judges(
    task: Any, doc_of: Mapping[str, Any], stops: Sequence[str], filter_name: str | None
) -> tuple[Extract, Grade]:
    """Extraction by one of the task's filters and grading by its first metric. Raises UserError for an unknown filter.

    A metric sees the document by its target: documents with equal targets are taken to judge alike.
    """
    filters = {ensemble.name: ensemble for ensemble in task._filters}
    chosen = filters.get(filter_name or next(iter(filters)))
    if chosen is None:
        raise UserError(f"the task has no filter '{filter_name}'; it has {choices(list(filters))}")
    any_doc = next(iter(doc_of.values()), None)

    def extract(text: str) -> str | None:
        (request,) = requests_of(task, any_doc)
        request.resps = [cut(text, stops)]
        chosen.apply([request])
        left = request.filtered_resps[chosen.name]
        return None if left == INVALID or not str(left).strip() else str(left)

    def judge(gold: str, answer: str) -> Verdict:
        metric, value = next(iter(task.process_results(doc_of[gold], [answer]).items()))
        if value not in (0, 1):
            return Verdict("unparsed", f"lm-eval's {metric} is {value}, neither 0 nor 1")
        return Verdict("correct" if value == 1 else "wrong", f"lm-eval's {metric}")

    return extract, judge


def requests_of(task: Any, doc: Any) -> Iterator[Any]:
    """The requests that lm-eval would make of a document."""
    made = task.construct_requests(doc=doc, ctx="")
    yield from made if isinstance(made, list) else [made]
