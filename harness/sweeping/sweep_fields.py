"""The fields of a sweep file: read from TOML, or from `FIELD=VALUE` typed beside it, each checked by its kind."""

import tomllib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import UserError, choices
from harness.running.bench import short, slug

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["text", "texts", "pairs", "whole", "wholes", "number"]
Known = Mapping[str, tuple[Kind, float]]
OPTIONS: dict[str, tuple[Kind, float]] = {
    "budget": ("text", 0), "samples": ("whole", 1), "protocol": ("text", 0), "engine": ("text", 0),
    "engine_arg": ("pairs", 0), "base_url": ("text", 0), "task_arg": ("pairs", 0), "data": ("text", 0),
    "limit": ("whole", 1), "reward_model": ("texts", 0), "reward_arg": ("pairs", 0), "strategy": ("text", 0),
    "strategy_arg": ("pairs", 0), "temperature": ("number", 0), "top_p": ("number", 0), "top_k": ("whole", 0),
    "max_tokens": ("whole", 1), "stop": ("texts", 0), "seed": ("whole", 0), "workers": ("whole", 1),
}  # fmt: skip
"""What defaults, a model or a task may set: how it is written, and the least value of a number."""
WHOLE: dict[str, tuple[Kind, float]] = {
    "name": ("text", 0), "selector": ("texts", 0), "selector_arg": ("pairs", 0), "ray_address": ("text", 0),
}  # fmt: skip
"""What is the same for the whole sweep."""
SPEED: dict[str, tuple[Kind, float]] = {
    "batch": ("wholes", 1), "prompt": ("wholes", 1), "context": ("wholes", 1), "generate": ("whole", 1),
    "passes": ("whole", 1), "repeats": ("whole", 1),
}  # fmt: skip
"""What `[speed]` may set, named as the options of `ttc speed`."""
PLAN: dict[str, tuple[Kind, float]] = {
    "hardware": ("text", 0), "prompt_tokens": ("whole", 1), "completion_tokens": ("whole", 1),
    "reward_shape": ("text", 0),
}  # fmt: skip
"""What `[plan]` may set: the device, the mean lengths and the reward model's preset that a dry run reckons with."""
OWN: dict[Literal["model", "task"], dict[str, tuple[Kind, float]]] = {
    "model": {"label": ("text", 0), "panel": ("text", 0), "shape": ("text", 0)},
    "task": {"label": ("text", 0), "panels": ("texts", 0), "problems": ("whole", 1)},
}
"""What a model or a task may say beside options: its name in folders; the panel of the report it belongs to, or the
panels whose models it is for; for a dry run without weights or data a preset of its shape, or how many problems."""
REPLACED: dict[Literal["model", "task"], dict[str, tuple[Kind, float]]] = {
    kind: {kind: ("text", 0.0), **{name: known for name, known in own.items() if name != "label"}}
    for kind, own in OWN.items()
}
"""What may be set beside options of one model or task: another checkpoint or data set under the same label, too."""
SPOKEN = {"text": "a text", "texts": "a text or a list of texts", "pairs": "a table or a list of 'key=value'",
          "whole": "a whole number", "wholes": "a list of whole numbers", "number": "a number"}  # fmt: skip
PARTS = ("defaults", "model", "task", "speed", "plan")


def read_toml(path: Path) -> dict[str, Any]:
    """The file's table. Raises UserError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the sweep '{path}' ({error.strerror}; looked from {Path.cwd()})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is no TOML ({error})") from None


def sub_table(table: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    """A table inside the file, empty when it is not there. Raises UserError."""
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise UserError(f"{path}: {name} wants a table; write [{name}] above its fields")
    return found


def read_each(path: Path, table: Mapping[str, Any], name: Literal["model", "task"]) -> list[dict[str, Any]]:
    """The `[[model]]` or `[[task]]` tables, each with its reference under its own name. Raises UserError."""
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found) or not found:
        raise UserError(f'{path} has no [[{name}]]; write at least one, with {name} = "..." below it')
    known: dict[str, tuple[Kind, float]] = {name: ("text", 0.0), **OWN[name], **OPTIONS}
    tables = []
    for number, one in enumerate(found):
        where = f"{path}: {name}[{number}]"
        read = read_fields(one, known, where)
        if name not in read:
            raise UserError(f'{where} names no {name}; write {name} = "..."')
        label = read.pop("label", None)
        tables.append({**read, f"{name}_label": slug(label) if label else short(read[name])})
    return tables


def read_fields(table: Mapping[str, Any], known: Known, where: str, besides: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of one table, `max-tokens` and `max_tokens` alike. Raises UserError naming the field."""
    found = {}
    for written, value in table.items():
        name = written.replace("-", "_")
        if name not in known:
            raise UserError(f"{where} has no field '{written}'; it has {choices([*known, *besides])}")
        kind, least = known[name]
        found[name] = read_field(value, kind, least, f"{where}: {name}")
    return found


def read_field(value: Any, kind: Kind, least: float, where: str) -> Any:
    """One value: texts, pairs and lists as tuples. Raises UserError when it is of another kind, or too small."""
    if kind == "pairs" and isinstance(value, dict):
        return tuple(f"{name}={spelled(one)}" for name, one in value.items())
    if kind in ("texts", "pairs") and isinstance(value, str | list):
        texts = (value,) if isinstance(value, str) else tuple(value)
        if all(isinstance(text, str) for text in texts):
            return texts
    if kind == "wholes":
        listed = value if isinstance(value, list) and value else [value]
        return tuple(read_field(one, "whole", least, where) for one in listed)
    number = isinstance(value, int if kind == "whole" else int | float) and not isinstance(value, bool)
    if (kind == "text" and isinstance(value, str)) or (kind in ("whole", "number") and number):
        if kind != "text" and not value >= least:
            raise UserError(f"{where} must be at least {least:g}, got {value}")
        return value
    raise UserError(f"{where} wants {SPOKEN[kind]}, got {value!r}")


def read_changes(texts: Sequence[str], models: Sequence[str], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`FIELD=VALUE` for every run or the whole sweep, under "", `LABEL.FIELD=VALUE` for the runs of a model or a task.

    `speed` and `plan` stand for the tables of these names. A value is written as in TOML; what is none is a text.
    Raises UserError.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        label, _, field = target.rpartition(".")
        if not equals:
            raise UserError(f"--set wants FIELD=VALUE or LABEL.FIELD=VALUE, got '{text}'; write for example limit=2")
        places = {
            "": {**OPTIONS, **WHOLE}, "speed": SPEED, "plan": PLAN,
            **{name: {**OPTIONS, **REPLACED["task"]} for name in tasks},
            **{name: {**OPTIONS, **REPLACED["model"]} for name in models},
        }  # fmt: skip
        if label not in places:
            raise UserError(f"--set {target}: nothing is labelled '{label}'; there is {choices([*places][1:])}")
        found.setdefault(label, {}).update(read_fields({field: typed(value)}, places[label], f"--set {target}"))
    return found


def typed(text: str) -> Any:
    """A value as TOML reads it, or the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def spelled(value: Any) -> str:
    """A TOML value as `ttc bench` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@contextmanager
def saying(where: str) -> "Iterator[None]":
    """Begin the sentences of errors with the place in the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
