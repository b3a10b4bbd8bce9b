"""`ttc sweep FILE`: many models on many tasks from one TOML file, each pair a run of its own, read and checked whole.

    name = "small"                      # the runs lie in results/small/
    selector = ["coverage", "majority"]
    [defaults]
    budget = "60s"
    samples = 64
    [[model]]
    model = "zoo/teacher"
    [[task]]
    task = "arithmetic"
    limit = 40

Fields are named as the options of `ttc bench`. A model's own stand before its task's, and those before the defaults.
"""

import tomllib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness import plugins
from harness.budgets import parse_budget
from harness.errors import UserError, choices
from harness.nouns import Sampling, Task
from harness.plugin_options import options_of, positional_names, read_options
from harness.running.bench import OWN_ENGINE, Arm, Plan, arms_of, short, slug, spec_of
from harness.running.searching import check_strategy
from harness.storage.runs import open_run
from harness.workers.team import Crew

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["text", "texts", "pairs", "whole", "number"]
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
NAMED: dict[str, tuple[Kind, float]] = {"label": ("text", 0)}
SPOKEN = {"text": "a text", "texts": "a text or a list of texts", "pairs": "a table or a list of 'key=value'",
          "whole": "a whole number", "number": "a number"}  # fmt: skip

State = Literal["new", "unfinished", "finished"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep: a model on a task."""

    name: str
    arm: Arm
    asked: Plan
    crew: Crew | None = None

    @property
    def state(self) -> State:
        """How far its run is. Raises UserError when the folder holds a run of other settings."""
        if not (self.arm.path / "manifest.json").exists():
            return "new"
        run = open_run(self.arm.path)
        wanted = spec_of(self.arm, self.asked, Task(run.spec.get("task", ""), (), str, unasked))
        for name in {**wanted, **run.spec}:
            if run.spec.get(name) != wanted.get(name):
                raise UserError(
                    f"'{self.arm.path}' holds a run with {name} = {run.spec.get(name)!r}, not {wanted.get(name)!r}; "
                    "give the model or the task another label, or the sweep another name"
                )
        return "finished" if run.manifest.get("missing") == 0 else "unfinished"


@dataclass(frozen=True, slots=True)
class Sweep:
    """A whole file: its runs in order, model by model, and what is the same for all of them."""

    folder: Path
    cells: Sequence[Cell]
    selectors: Sequence[str] = ()
    selector_options: Sequence[str] = ()
    crew: Crew | None = field(default=None)
    """The largest that a cell wants."""


def unasked(gold: str, answer: str) -> Any:
    """Stands for a grader where only the task's name is wanted."""
    raise AssertionError


def read_sweep(path: Path, out: Path | None = None) -> Sweep:
    """Read a sweep file and check every field of it; nothing is loaded but plug-in functions.

    `out` stands for the folder that the file's name gives. Raises UserError that names the field.
    """
    table = read_toml(path)
    whole = {name: value for name, value in table.items() if name not in ("defaults", "model", "task")}
    defaults = read_fields(sub_table(table, "defaults", path), OPTIONS, f"{path}: [defaults]")
    wishes = read_fields(whole, WHOLE, f"{path}", ("defaults", "model", "task"))
    models = read_each(path, table, "model")
    tasks = read_each(path, table, "task")
    folder = out or Path("results") / slug(wishes.get("name", path.stem))
    cells = [
        cell_of({**defaults, **task, **model}, folder, wishes.get("ray_address"), f"{path}: {name}")
        for model in models
        for task in tasks
        for name in [f"model '{model['model']}' on task '{task['task']}'"]
    ]
    check_names(cells, path)
    crews = [cell.crew for cell in cells if cell.crew is not None]
    if wishes.get("ray_address") and not crews:
        raise UserError(f"{path}: ray_address says where workers are and none are asked for; add workers = N")
    largest = max(crews, key=lambda crew: crew.workers, default=None)
    return Sweep(folder, cells, wishes.get("selector", ()), wishes.get("selector_arg", ()), largest)


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
    known = {name: ("text", 0.0), **NAMED, **OPTIONS}
    tables = []
    for number, one in enumerate(found):
        where = f"{path}: {name}[{number}]"
        read = read_fields(one, known, where)
        if name not in read:
            raise UserError(f'{where} names no {name}; write {name} = "..."')
        label = read.pop("label", None)
        tables.append({**read, f"{name}_label": slug(label) if label else short(read[name])})
    return tables


def read_fields(
    table: Mapping[str, Any], known: Mapping[str, tuple[Kind, float]], where: str, besides: Sequence[str] = ()
) -> dict[str, Any]:
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
    """One value: texts and pairs as tuples. Raises UserError when it is of another kind, or too small."""
    if kind == "pairs" and isinstance(value, dict):
        return tuple(f"{name}={spelled(one)}" for name, one in value.items())
    if kind in ("texts", "pairs") and isinstance(value, str | list):
        texts = (value,) if isinstance(value, str) else tuple(value)
        if all(isinstance(text, str) for text in texts):
            return texts
    number = isinstance(value, int if kind == "whole" else int | float) and not isinstance(value, bool)
    if (kind == "text" and isinstance(value, str)) or (kind in ("whole", "number") and number):
        if kind != "text" and not value >= least:
            raise UserError(f"{where} must be at least {least:g}, got {value}")
        return value
    raise UserError(f"{where} wants {SPOKEN[kind]}, got {value!r}")


def spelled(value: Any) -> str:
    """A TOML value as `ttc bench` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def cell_of(wishes: Mapping[str, Any], folder: Path, ray_address: str | None, where: str) -> Cell:
    """The run that these fields ask for. Raises UserError naming model and task."""
    with saying(where):
        asked = plan_of(wishes)
        check_plan(asked)
        base_url = wishes.get("base_url")
        engine = wishes.get("engine") or (None if base_url is None else "openai")
        options = [*wishes.get("engine_arg", ()), *([] if base_url is None else [f"base_url={base_url}"])]
        name = f"{wishes['task_label']}-{wishes['model_label']}"
        (arm,) = arms_of([wishes["model"]], engine, options, folder / name, asked)
        check_arm(arm)
        crew = Crew(wishes["workers"], ray_address) if "workers" in wishes else None
        return Cell(name, arm, asked, crew)


@contextmanager
def saying(where: str) -> "Iterator[None]":
    """Begin the sentences of errors with the place in the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def plan_of(wishes: Mapping[str, Any]) -> Plan:
    """What a bench would be asked. Raises UserError."""
    protocol = wishes.get("protocol", "latency")
    if protocol not in ("latency", "throughput"):
        raise UserError(f"protocol wants latency or throughput, got '{protocol}'")
    if not 0 < wishes.get("top_p", 1.0) <= 1:
        raise UserError(f"top_p must lie above 0 and at most 1, got {wishes['top_p']:g}; 1 is off")
    drawn = {name: wishes[name] for name in ("top_k", "max_tokens", "stop", "seed") if name in wishes}
    drawn |= {name: float(wishes[name]) for name in ("temperature", "top_p") if name in wishes}
    scope: Literal["run", "problem"] = "run" if protocol == "throughput" else "problem"
    budget = parse_budget(wishes["budget"], scope) if "budget" in wishes else None
    return Plan(
        wishes["task"], wishes.get("task_arg", ()), wishes.get("data"), wishes.get("limit"), protocol, budget,
        wishes.get("samples", 16), Sampling(**drawn), tuple(dict.fromkeys(wishes.get("reward_model", ()))),
        wishes.get("reward_arg", ()), wishes.get("strategy", ""), wishes.get("strategy_arg", ()),
    )  # fmt: skip


def check_plan(asked: Plan) -> None:
    """Look up every plug-in of a plan and read its options, without calling it. Raises UserError."""
    function = plugins.load_function("tasks", asked.task)
    read_options(function, f"task {asked.task}", asked.task_options)
    if asked.data is not None and "data" not in options_of(function):
        raise UserError(f"task {asked.task} reads no data file; leave out data = '{asked.data}'")
    plugins.reward_options(asked.reward_models, asked.reward_options)
    check_strategy(asked)


def check_arm(arm: Arm) -> None:
    """Look up a model's engine and read its options, without loading it. Raises UserError."""
    own = arm.engine == OWN_ENGINE
    function = plugins.load_function("models", arm.model if own else arm.engine)
    read_options(function, f"model {arm.model}" if own else f"engine {arm.engine}", arm.options)
    if not own and not positional_names(function):
        raise UserError(f"engine {arm.engine} takes no checkpoint; write its name in the place of '{arm.model}'")


def check_names(cells: Sequence[Cell], path: Path) -> None:
    """Refuse two runs in one folder. Raises UserError."""
    names: set[str] = set()
    for cell in cells:
        if cell.name in names:
            raise UserError(
                f"{path}: two runs would share the folder '{cell.name}'; give a [[model]] or [[task]] a label"
            )
        names.add(cell.name)
