"""The texts that a student learns from: an endless numbered sequence out of any source.

    task:NAME?difficulty=3,4,4,5   solved problems of a task; where the task draws them (it takes `seed` and
                                   `num_problems`) they never repeat; one of several values is drawn for every few
    file:PATH.jsonl                lines {"prompt", "completion"}, {"text"} or {"messages": [{"role", "content"}, ...]}
    run:DIR                        the correct completions of a stored run
    hub:ID?name=en&prompt=problem&completion=generated_solution
                                   a data set of the hub or a local folder of files, streamed; `name` is its
                                   configuration, and `prompt`, `completion`, `text`, `messages` name its columns

Which text has which number depends on the source and the seed alone. A finite source begins again when it is through,
in a new order unless it is streamed. Messages count up to the assistant's last, which is the completion.
"""

import functools
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from harness.errors import UserError, choices
from harness.inert import read_json
from harness.lines import open_lines
from harness.nouns import Message, Problem, Prompt, stream_seed
from harness.plugin_options import options_of, read_options
from harness.plugins import load_function
from harness.storage.runs import open_run

IGNORED = -100
"""The label of a token that is not learnt."""

BLOCK = 16
"""How many problems a task draws with one seed and one value of each option."""

SHUFFLED = 1000
"""From how many rows of a streamed data set the next one is drawn."""

COLUMNS = ("prompt", "completion", "text", "messages")


class Example(NamedTuple):
    """A text in two parts; a plain text has the prompt ""."""

    prompt: Prompt
    completion: str


class Document(NamedTuple):
    """A text as tokens, ended by the end token; `labels` are the same ids, or IGNORED, at the same places."""

    token_ids: list[int]
    labels: list[int]


Examples = Callable[[int], Example]
"""The example of any number from 0."""


def open_examples(source: str, split: str, seed: int) -> Examples:
    """The numbered examples of a source as a recipe spells it.

    Raises UserError when there is no such source, it is empty, or an option of it does not exist; and later, when a row
    that is read has none of the forms.
    """
    kind, _, rest = source.partition(":")
    place, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if kind == "task":
        return open_task(place, options, split, seed)
    if kind == "hub":
        return open_hub(place, options, split, seed)
    if kind not in ("file", "run"):
        raise UserError(f"there is no data source '{source}'; write task:NAME, file:PATH.jsonl, run:DIR or hub:ID")
    if options:
        raise UserError(f"the data source '{source}' takes no option '{next(iter(options))}'; leave out '?{query}'")
    return listed(read_file(Path(place)) if kind == "file" else read_run(Path(place)), source, seed)


def in_turn(sources: Sequence[Examples]) -> Examples:
    """One example of each source after another, every source in its own order."""
    return lambda number: sources[number % len(sources)](number // len(sources))


def tokenise(example: Example, tokenizer: Any, context: int, learns_prompt: bool) -> Document:
    """A text as tokens, cut after `context` of them.

    The prompt goes through the tokenizer's chat template like any prompt, and is read apart from the completion, as it
    is when the model answers. Raises UserError when the tokenizer has no end token.
    """
    from harness.models.text import encode

    if tokenizer.eos_token_id is None:
        raise UserError("the teacher's tokenizer has no eos_token to end a text with; name it in tokenizer_config.json")
    prompt = list(encode(tokenizer, example.prompt))
    completion = [*tokenizer(example.completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    labels = (prompt if learns_prompt else [IGNORED] * len(prompt)) + completion
    return Document((prompt + completion)[:context], labels[:context])


def listed(examples: Sequence[Example], source: str, seed: int) -> Examples:
    """A finite list over and over, shuffled anew each time. Raises UserError when it is empty."""
    if not examples:
        raise UserError(f"the data source '{source}' holds no text to learn from; name another one")

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> list[int]:
        return random.Random(f"{seed}/{epoch}").sample(range(len(examples)), len(examples))

    def example(number: int) -> Example:
        epoch, place = divmod(number, len(examples))
        return examples[order(epoch)[place]]

    return example


def open_task(name: str, options: Mapping[str, str], split: str, seed: int) -> Examples:
    """Problems of a task with the solutions in their `meta`. Raises UserError for an option it does not take."""
    function = load_function("tasks", name)
    taken = options_of(function)
    given = dict(options)
    if "split" in taken:
        given["split"] = split
    values = {key: read_values(function, f"task {name}", key, text) for key, text in given.items()}
    if not {"seed", "num_problems"} <= taken.keys():
        problems = function(**{key: several[0] for key, several in values.items()}).problems
        return listed([solved(problem) for problem in problems], f"task:{name}", seed)

    @functools.lru_cache(maxsize=4)
    def block(number: int) -> list[Example]:
        drawn = stream_seed(seed, name, number)
        rng = random.Random(drawn)
        chosen = {key: rng.choice(several) for key, several in values.items()}
        task = function(**{"num_problems": BLOCK, "seed": drawn, **chosen})
        return [solved(problem) for problem in task.problems]

    block(0)
    return lambda number: block(number // BLOCK)[number % BLOCK]


def read_values(function: Callable[..., Any], label: str, name: str, text: str) -> list[Any]:
    """The one value of an option, or several that commas part."""
    if name in ("seed", "num_problems"):
        raise UserError(f"{label}: the recipe's seed decides which problems are drawn; leave out {name}={text}")
    try:
        return [read_options(function, label, [f"{name}={text}"])[name]]
    except UserError:
        if "," not in text:
            raise
        return [read_options(function, label, [f"{name}={one.strip()}"])[name] for one in text.split(",")]


def solved(problem: Problem) -> Example:
    """A problem with its solution. Raises UserError when it has none."""
    if "solution" not in problem.meta:
        raise UserError(f"problem '{problem.id}' has no worked solution to learn from; use another task or a file:")
    return Example(problem.prompt, str(problem.meta["solution"]))


def read_file(path: Path) -> list[Example]:
    """Every line of a JSON-lines file. Raises UserError naming the line that is none of the forms."""
    examples = []
    with open_lines(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = read_json(line)
                except ValueError as error:
                    raise UserError(f"{path}:{number} is not valid JSON ({error})") from None
                examples.append(read_row(row, f"{path}:{number}", {}))
    return examples


def read_run(path: Path) -> list[Example]:
    """The completions of a run that were graded correct and ended by themselves, after the prompts they were given."""
    run = open_run(path)
    prompts = {row["problem_id"]: row["prompt"] for row in run.problems()}
    correct = {(row["problem_id"], row["sample_index"]) for row in run.verdicts() if row["verdict"] == "correct"}
    rows = [row for row in run.completions() if (row["problem_id"], row["sample_index"]) in correct]
    rows = sorted(rows, key=lambda row: (row["problem_id"], row["sample_index"]))
    return [Example(prompts[row["problem_id"]], row["text"]) for row in rows if row["finish_reason"] == "stop"]


def read_row(row: Any, where: str, columns: Mapping[str, str]) -> Example:
    """An example out of a row; `columns` are its own names for the fields. Raises UserError for another form."""
    held = row if isinstance(row, Mapping) else {}
    prompt, completion, text, messages = (held.get(columns.get(name, name)) for name in COLUMNS)
    if isinstance(prompt, str) and isinstance(completion, str):
        return Example((Message("user", prompt),), completion)
    if isinstance(text, str):
        return Example("", text)
    if isinstance(messages, list) and all(is_message(message) for message in messages):
        turns = [Message(message["role"], message["content"]) for message in messages]
        while turns and turns[-1].role != "assistant":
            turns.pop()
        if turns:
            return Example(tuple(turns[:-1]), turns[-1].content)
    raise UserError(
        f"{where} has neither texts 'prompt' and 'completion', nor a 'text', nor 'messages' with an assistant's "
        f"(it has {choices(list(held))})"
    )


def is_message(message: Any) -> bool:
    """Whether a value is one turn of a chat."""
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
        return False
    return message.get("role") in ("system", "user", "assistant")


def open_hub(name: str, options: Mapping[str, str], split: str, seed: int) -> Examples:
    """A streamed data set, shuffled within a buffer. Raises UserError when it cannot be opened."""
    from datasets import load_dataset

    known = ["name", *COLUMNS]
    for option in options:
        if option not in known:
            raise UserError(f"hub:{name} takes no option '{option}'; it takes {choices(known)}")
    try:
        rows = load_dataset(name, options.get("name"), split=split, streaming=True)
    except Exception as error:  # the library lets errors of many types through
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the data set hub:{name} cannot be opened ({reason}); check its name and the network"
        ) from error
    return Stream(rows.shuffle(seed=seed, buffer_size=SHUFFLED), name, options)


class Stream:
    """The examples of a streamed data set; going on is cheap, going back begins anew and skips."""

    def __init__(self, rows: Any, name: str, columns: Mapping[str, str]) -> None:
        self.rows = rows.repeat(None)
        self.name, self.columns = name, columns
        self.next = 0
        self.iterator: Iterator[Any] | None = None

    def __call__(self, number: int) -> Example:
        """The example of a number."""
        if self.iterator is None or number < self.next:
            self.iterator, self.next = iter(self.rows.skip(number)), number
        row = next(itertools.islice(self.iterator, number - self.next, None))
        self.next = number + 1
        return read_row(row, f"row {number} of hub:{self.name}", self.columns)
