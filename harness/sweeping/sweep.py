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
`[speed]` has every model's speed measured too, `[plan]` is what a dry run reckons with (`harness.sweeping.sweep_plan`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness import plugins
from harness.budgets import parse_budget
from harness.errors import UserError, choices
from harness.nouns import Sampling, Task
from harness.plugin_options import options_of, positional_names, read_options
from harness.running.bench import OWN_ENGINE, Arm, Plan, arms_of, slug, spec_of
from harness.running.searching import check_strategy
from harness.storage.runs import open_run
from harness.sweeping.sweep_fields import (
    OPTIONS,
    PARTS,
    PLAN,
    SPEED,
    WHOLE,
    read_changes,
    read_each,
    read_fields,
    read_toml,
    saying,
    sub_table,
)
from harness.timing.speed import Grid, default_contexts
from harness.workers.team import Crew

State = Literal["new", "unfinished", "finished"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep: a model on a task.

    `panel` is the part of the report it belongs to, "" when there are no parts; `label` the model's name in folders;
    `shape` a preset of the model's shape and `problems` the size of the task, for a dry run without weights or data.
    """

    name: str
    arm: Arm
    asked: Plan
    crew: Crew | None = None
    label: str = ""
    panel: str = ""
    shape: str | None = None
    problems: int | None = None

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
    crew: Crew | None = None
    """The largest that a cell wants."""
    grid: Grid | None = None
    """Where every model's speed is measured."""
    assumed: Mapping[str, Any] = field(default_factory=dict)
    """The fields of `[plan]`."""

    @property
    def panels(self) -> list[str]:
        """The parts of the report, in the file's order."""
        return list(dict.fromkeys(cell.panel for cell in self.cells))


def unasked(gold: str, answer: str) -> Any:
    """Stands for a grader where only the task's name is wanted."""
    raise AssertionError


def read_sweep(path: Path, out: Path | None = None, changes: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and check every field of it; nothing is loaded but plug-in functions.

    `out` stands for the folder that the file's name gives; `changes` are `FIELD=VALUE` or `LABEL.FIELD=VALUE`, which
    stand before what the file says (`sweep_fields.read_changes`). Raises UserError that names the field.
    """
    table = read_toml(path)
    whole = {name: value for name, value in table.items() if name not in PARTS}
    defaults = read_fields(sub_table(table, "defaults", path), OPTIONS, f"{path}: [defaults]")
    wishes = read_fields(whole, WHOLE, f"{path}", PARTS)
    models = read_each(path, table, "model")
    tasks = read_each(path, table, "task")
    changed = read_changes(changes, [model["model_label"] for model in models], [task["task_label"] for task in tasks])
    wishes |= {name: value for name, value in changed.get("", {}).items() if name in WHOLE}
    folder = out or Path("results") / slug(wishes.get("name", path.stem))
    cells = [
        cell_of({**defaults, **task, **model, **own}, folder, wishes.get("ray_address"), f"{path}: {name}")
        for model in models
        for task in tasks
        if "panels" not in task or model.get("panel") in task["panels"]
        for name in [f"model '{model['model']}' on task '{task['task']}'"]
        for own in [changes_of(changed, model["model_label"], task["task_label"])]
    ]
    check_panels(models, tasks, path)
    check_names(cells, path)
    crews = [cell.crew for cell in cells if cell.crew is not None]
    if wishes.get("ray_address") and not crews:
        raise UserError(f"{path}: ray_address says where workers are and none are asked for; add workers = N")
    largest = max(crews, key=lambda crew: crew.workers, default=None)
    assumed = read_fields(sub_table(table, "plan", path), PLAN, f"{path}: [plan]") | changed.get("plan", {})
    selectors, options = wishes.get("selector", ()), wishes.get("selector_arg", ())
    return Sweep(folder, cells, selectors, options, largest, grid_of(table, changed.get("speed", {}), path), assumed)


def changes_of(changed: Mapping[str, Mapping[str, Any]], model: str, task: str) -> dict[str, Any]:
    """What was changed for the run of this model and task, the more particular last."""
    return {**changed.get("", {}), **changed.get(task, {}), **changed.get(model, {})}


def grid_of(table: Mapping[str, Any], changed: Mapping[str, Any], path: Path) -> Grid | None:
    """The grid of `[speed]` with what was changed of it; None without one. Raises UserError."""
    if "speed" not in table and not changed:
        return None
    asked = {**read_fields(sub_table(table, "speed", path), SPEED, f"{path}: [speed]"), **changed}
    prompts = tuple(sorted(asked.get("prompt", (512,))))
    generated = asked.get("generate", 512)
    contexts = asked.get("context") or default_contexts(prompts, generated)
    batches = tuple(sorted(set(asked.get("batch", (1, 8, 64)))))
    repeated = {name: asked[name] for name in ("passes", "repeats") if name in asked}
    return Grid(batches, prompts, tuple(sorted(set(contexts))), generated, **repeated)


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
        own = (wishes["model_label"], wishes.get("panel", ""), wishes.get("shape"), wishes.get("problems"))
        return Cell(name, arm, asked, crew, *own)


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


def check_panels(models: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Refuse a task for a panel that no model is in. Raises UserError."""
    known = {model["panel"] for model in models if "panel" in model}
    for number, task in enumerate(tasks):
        for panel in task.get("panels", ()):
            if panel not in known:
                raise UserError(
                    f"{path}: task[{number}]: panels names '{panel}', which is the panel of no model; there is "
                    f"{choices(sorted(known))}"
                )


def check_names(cells: Sequence[Cell], path: Path) -> None:
    """Refuse two runs in one folder. Raises UserError."""
    names: set[str] = set()
    for cell in cells:
        if cell.name in names:
            raise UserError(
                f"{path}: two runs would share the folder '{cell.name}'; give a [[model]] or [[task]] a label"
            )
        names.add(cell.name)


def paper_file(scale: str) -> Path:
    """The file of the paper's experiment that ships with the program: `zoo` or `full`."""
    name = "thinking-slow-fast.toml" if scale == "full" else f"thinking-slow-fast-{scale}.toml"
    return Path(__file__).resolve().parents[1] / "recipes" / name
