"""Sample logs of lm-evaluation-harness 0.4 (`samples_TASK_DATE.jsonl`, written with --log_samples): generation tasks.

A line is one document under one filter; of a document's lines those of the first filter count. Its responses are the
samples. A verdict is taken over where there is one response and a metric that is 0 or 1.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.inert import read_json
from harness.interchange.reading import json_lines, plain_text

METRICS = ("exact_match", "math_verify", "acc")
"""The metric that is the verdict, the first that is there; else the line's first."""
OWN = "ttc_samples"
"""Where our own export keeps what lm-eval has no place for."""


def is_results(head: bytes) -> bool:
    """Whether a file begins like lm-eval's results, which have no completions in them."""
    return head.lstrip().startswith(b"{") and b'"results"' in head[:64]


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every response of every document. Raises UserError naming the line that holds none."""
    first_filter: Any = None
    for where, line in json_lines(file):
        filter_name = line.get("filter", "none")
        first_filter = filter_name if first_filter is None else first_filter
        if filter_name == first_filter:
            for row in rows_of(where, line):
                yield where, row


def rows_of(where: str, line: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The responses of one document."""
    texts = responses(where, line)
    shared: dict[str, Any] = {"problem_id": str(line.get("doc_id", "")), "gold": gold_of(line)}
    arguments = line.get("arguments")
    if isinstance(arguments, dict) and isinstance(arguments.get("gen_args_0"), dict):
        shared["prompt"] = prompt_text(arguments["gen_args_0"].get("arg_0"))
    own = line.get(OWN)
    if isinstance(own, list) and len(own) == len(texts) and all(isinstance(each, dict) for each in own):
        document = line.get("doc")
        shared["problem_id"] = str(document.get("id", shared["problem_id"]) if isinstance(document, dict) else "")
        for text, more in zip(texts, own, strict=True):
            yield shared | {"text": text} | more
        return
    verdict = verdict_of(line) if len(texts) == 1 else None
    for text in texts:
        yield shared | {"text": text} | ({} if verdict is None else {"correct": verdict})


def responses(where: str, line: Mapping[str, Any]) -> list[str]:
    """The texts of a document, every repeat of every request. Raises UserError where they are no texts."""
    found: Any = line.get("resps")
    texts = [text for request in found for text in request] if nested(found) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"{where}: resps holds no generated text; only generation tasks of lm-eval can be imported, not those "
            "that compare the likelihood of choices"
        )
    return texts


def nested(found: Any) -> bool:
    """Whether this is a list of lists."""
    return isinstance(found, list) and all(isinstance(request, list) for request in found)


def gold_of(line: Mapping[str, Any]) -> str:
    """The target; of one in GSM8K's form, a solution that ends in `#### 18`, only the answer."""
    target = line.get("target", "")
    text = target if isinstance(target, str) else json.dumps(target)
    return text.rpartition("####")[2].strip() if "####" in text else text.strip()


def prompt_text(argument: Any) -> str:
    """The prompt; chat messages, as a list or as its JSON, become their texts."""
    if isinstance(argument, str) and argument.startswith("[{"):
        try:
            return plain_text(read_json(argument))
        except ValueError:
            return argument
    return plain_text(argument)


def verdict_of(line: Mapping[str, Any]) -> bool | None:
    """What the line's metric says of its one response, None where it is neither right nor wrong."""
    listed = line.get("metrics")
    there = listed if isinstance(listed, list) else []
    names = [name for name in METRICS if name in there] or there
    value = line.get(str(names[0])) if names else None
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None
