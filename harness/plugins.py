"""Plug-in look-up: a name becomes a function, a function becomes a task, a model or a selector.

A reference is a built-in name, an installed entry point's name, `file.py:name` or `module:name`. A built-in is a module
of a room that holds a function of the module's own name (`tasks/gsm8k.py: gsm8k`); a trailing underscore keeps a
module's name clear of a library's (`tasks/math_.py: math`). There is no registry: a file in the room is enough.
"""

import ast
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.errors import UserError, choices
from harness.faults import boundary, told
from harness.lines import is_file
from harness.nouns import Model, PlainRewardModel, RewardModel, Selector, Task
from harness.plugin_options import options_of, positional_names, read_options

Group = Literal["tasks", "models", "selectors", "reward_models", "strategies", "reports"]

PACKAGES: dict[Group, str] = {
    "tasks": "harness.tasks",
    "models": "harness.models",
    "selectors": "harness.selectors",
    "reward_models": "harness.models.reward_models",
    "strategies": "harness.models.strategies",
    "reports": "harness.reports",
}
SINGULAR: dict[Group, str] = {
    "tasks": "task",
    "models": "engine",
    "selectors": "selector",
    "reward_models": "reward model",
    "strategies": "strategy",
    "reports": "report",
}


FILE_MODULE = "ttc_plugin_"
"""How the modules made of users' files begin, which no other process can import by name."""
CHECKPOINTS = "reward"
"""The built-in reward model that loads any checkpoint of one."""


class Builtin(NamedTuple):
    """A built-in plug-in as read from its source, without importing it."""

    module: str
    function: str
    summary: str


COLLECTIONS = ("lm_eval:",)
"""What precedes the name of a task in a collection that another package has."""


def folder_of(group: Group) -> Path:
    """Where a room's modules lie."""
    return Path(__file__).parent.joinpath(*PACKAGES[group].split(".")[1:])


def builtins(group: Group) -> dict[str, Builtin]:
    """The built-in plug-ins of a room by name. The sources are parsed, not run, so that looking costs no imports."""
    found: dict[str, Builtin] = {}
    for file in sorted(folder_of(group).glob("*.py")):
        name = file.stem.rstrip("_")
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                found[name] = Builtin(f"{PACKAGES[group]}.{file.stem}", name, summary)
    return found


def installed(group: Group) -> dict[str, EntryPoint]:
    """The plug-ins that installed packages offer in the entry-point group `ttc.GROUP`, by name."""
    return {point.name: point for point in entry_points(group=f"ttc.{group}")}


def names(group: Group) -> list[str]:
    """Every name that `load_function` finds in this group without a file or a module."""
    return sorted({*builtins(group), *installed(group)})


def is_reference(text: str) -> bool:
    """True for `file.py:name` and `module:name`, which say where the function is."""
    if text.startswith(COLLECTIONS):
        return False
    place, colon, name = text.rpartition(":")
    return (
        bool(colon) and name.isidentifier() and (place.endswith(".py") or all(map(str.isidentifier, place.split("."))))
    )


def load_function(group: Group, reference: str) -> Callable[..., Any]:
    """Find the plug-in function. Raises UserError that says what was looked for, where, and what exists."""
    place, _, name = reference.rpartition(":")
    if place.endswith(".py"):
        return function_in(load_file(Path(place)), name, place)
    if is_reference(reference):
        return function_in(import_module(place), name, place)
    if reference.endswith(".py"):
        raise UserError(f"'{reference}' names a file; write which function of it is meant: {reference}:NAME")
    if reference in (known := builtins(group)):
        return function_in(importlib.import_module(known[reference].module), known[reference].function, reference)
    if reference in (points := installed(group)):
        loaded: Callable[..., Any] = points[reference].load()
        return loaded
    raise UserError(
        f"no {SINGULAR[group]} named '{reference}'; there is {choices(names(group))}, "
        "or write ./file.py:name or module:name"
    )


def load_file(path: Path) -> Any:
    """Import a user's Python file by path. Raises UserError when it is not there or fails to run."""
    if not is_file(path):
        raise UserError(f"no file '{path}' to take the plug-in from (looked from {Path.cwd()})")
    name = f"{FILE_MODULE}{path.stem}_{abs(hash(path.resolve())):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"cannot import '{path}' as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"the plug-in file '{path}' fails when imported: {told(error)}") from error
    return module


def import_module(name: str) -> Any:
    """Import a module that is installed or lies in the current folder (looked at last, so it hides nothing)."""
    sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"no module '{error.name}' to take the plug-in from; install it or write ./file.py:name"
        ) from error
    except Exception as error:
        raise UserError(f"the plug-in module '{name}' fails when imported: {told(error)}") from error
    finally:
        sys.path.remove(str(Path.cwd()))


def function_in(module: Any, name: str, place: str) -> Callable[..., Any]:
    """The function `name` of a module. Raises UserError naming the functions that are there."""
    function = getattr(module, name, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if callable(value) and value.__module__ == module.__name__]
        raise UserError(f"'{place}' has no function '{name}'; it has {choices(there)}")
    found: Callable[..., Any] = function
    return found


def load_task(reference: str, pairs: Sequence[str] = (), data: str | None = None) -> Task:
    """Build a task; `data` is the user's file for tasks that read one. Raises UserError.

    `lm_eval:NAME` is the task `lm_eval` with its option `name`.
    """
    if reference.startswith(COLLECTIONS):
        collection, _, name = reference.partition(":")
        return load_task(collection, [f"name={name}", *pairs], data)
    function = load_function("tasks", reference)
    label = f"task {reference}"
    options = read_options(function, label, pairs)
    if data is not None:
        if "data" not in options_of(function):
            raise UserError(f"{label} reads no data file; leave out --data '{data}'")
        options["data"] = data
    with boundary(label):
        task = function(**options)
    if not isinstance(task, Task):
        raise UserError(f"{label} returned {type(task).__name__}, not a Task (from harness.nouns import Task)")
    return task


def load_selector(reference: str, pairs: Sequence[str] = ()) -> Selector:
    """Build a selector from a plain function `(prompt, candidates, *, options)` or one that returns a Selector."""
    function = load_function("selectors", reference)
    options = read_options(function, f"selector {reference}", pairs)
    name = reference.rpartition(":")[2]
    if len(positional_names(function)) == 2:
        return Selector(name, select=functools.partial(function, **options))
    with boundary(f"selector {reference}"):
        selector = function(**options)
    if not isinstance(selector, Selector):
        raise UserError(
            f"selector {reference} is neither a function of (prompt, candidates) nor one that returns a Selector; "
            f"it returned {type(selector).__name__}"
        )
    return replace(selector, name=name)


def load_selectors(references: Sequence[str], pairs: Sequence[str] = ()) -> list[Selector]:
    """Build several selectors; each option goes to those that take it. Raises UserError when none takes it."""
    taken: dict[str, list[str]] = {reference: [] for reference in references}
    for pair in pairs:
        takers = [r for r in taken if pair.partition("=")[0] in options_of(load_function("selectors", r))]
        if not takers:
            raise UserError(f"no selector among {choices(list(taken))} takes the option '{pair}'")
        for reference in takers:
            taken[reference].append(pair)
    return [load_selector(reference, options) for reference, options in taken.items()]


def names_reward_model(reference: str) -> bool:
    """True when a reward model is a plug-in function, False when it is a checkpoint."""
    return is_reference(reference) or reference in names("reward_models")


def reward_function(reference: str) -> Callable[..., Any]:
    """The function behind a reward model: the plug-in's, or the loader of checkpoints. Raises UserError."""
    return load_function("reward_models", reference if names_reward_model(reference) else CHECKPOINTS)


def load_reward_model(reference: str, pairs: Sequence[str] = ()) -> RewardModel:
    """Build a reward model from a plug-in function or a checkpoint (hub id, folder, `zoo/NAME`).

    A plug-in function is `(prompt, completions, *, options)` and gives a number or a list of step scores for each
    completion, or it takes only options and returns a RewardModel. Raises UserError.
    """
    function, label = reward_function(reference), f"reward model {reference}"
    options = read_options(function, label, pairs)
    if not names_reward_model(reference):
        with boundary(label):
            loaded: RewardModel = function(reference, **options)
        return loaded
    if len(positional_names(function)) == 2:
        return PlainRewardModel(reference, functools.partial(function, **options))
    if positional_names(function) == ["checkpoint"]:
        raise UserError(
            f"'{reference}' loads checkpoints of reward models; write the checkpoint itself, for example zoo/orm"
        )
    with boundary(label):
        model = function(**options)
    if not hasattr(model, "score"):
        raise UserError(
            f"{label} is neither a function of (prompt, completions) nor one that returns something with a method "
            f"score; it returned {type(model).__name__}"
        )
    made: RewardModel = model
    return made


def reward_options(references: Sequence[str], pairs: Sequence[str] = ()) -> dict[str, list[str]]:
    """The options of each reward model: a pair goes to those that take it. Raises UserError for one that none takes."""
    functions = {reference: reward_function(reference) for reference in references}
    taken: dict[str, list[str]] = {reference: [] for reference in references}
    for pair in pairs:
        takers = [r for r in taken if pair.partition("=")[0] in options_of(functions[r])]
        if not takers:
            raise UserError(f"no reward model among {choices(list(taken))} takes the option '{pair}'")
        for reference in takers:
            taken[reference].append(pair)
    return taken


def names_checkpoint(model: str) -> bool:
    """True when MODEL is a checkpoint for an engine, False when it is a model plug-in of its own."""
    if is_reference(model):
        return positional_names(load_function("models", model)) != []
    if model in builtins("models") and not Path(model).exists():
        return positional_names(load_function("models", model)) != []
    return model not in installed("models")


def load_model(model: str, engine: str, pairs: Sequence[str] = ()) -> Model:
    """Load a checkpoint into an engine, or build the model plug-in that `model` names. Raises UserError."""
    if not names_checkpoint(model):
        function = load_function("models", model)
        own = read_options(function, f"model {model}", pairs)
        with boundary(f"model {model}"):
            plain: Model = function(**own)
        return plain
    function = load_function("models", engine)
    if not positional_names(function):
        raise UserError(f"engine {engine} takes no checkpoint; write its name in the place of '{model}'")
    options = read_options(function, f"engine {engine}", pairs)
    with boundary(f"engine {engine}"):
        loaded: Model = function(model, **options)
    return loaded


def default_engine(model: str) -> str:
    """The engine for a checkpoint when none is asked for: a stored run is replayed, else the models' room chooses.

    Raises UserError when there is no such checkpoint.
    """
    folder = Path(model)
    if (folder / "manifest.json").is_file() and (folder / "completions").is_dir():
        return "replay"
    chosen: str = importlib.import_module("harness.models.engine_choice").choose_engine(model)
    return chosen
