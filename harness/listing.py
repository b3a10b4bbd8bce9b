"""What can be named: for `ttc list`, read from the sources without importing them."""

import inspect
import json
import typing
from pathlib import Path
from typing import Any

from harness import plugins
from harness.plugin_options import options_of, positional_names, spell_type


def known(room: str) -> list[dict[str, Any]]:
    """Every plug-in of a room that can be named: name, summary, options; and the shipped checkpoints of its kind."""
    group: plugins.Group = room.replace("-", "_")  # type: ignore[assignment]
    entries: list[dict[str, Any]] = [
        {"name": name, "summary": found.summary, "options": option_lines(plugins.load_function(group, name))}
        for name, found in plugins.builtins(group).items()
    ]
    entries += [
        {"name": name, "summary": f"installed: {point.value}", "options": []}
        for name, point in plugins.installed(group).items()
    ]
    return entries + (shipped_checkpoints(group) if group in ("models", "reward_models") else [])


def option_lines(function: Any) -> list[str]:
    """The options of a plug-in as `name=type (default)`."""
    hints = typing.get_type_hints(function)
    lines = [
        f"{name}={spell_type(hints.get(name, str))} ({spell_default(parameter)})"
        for name, parameter in options_of(function).items()
    ]
    return ["takes a checkpoint", *lines] if positional_names(function) == ["checkpoint"] else lines


def kind_of(config: Path) -> plugins.Group:
    """The room of a checkpoint: one that classifies, by the class that its config.json names, is a reward model."""
    named = json.loads(config.read_text(encoding="utf-8")).get("architectures") or [""]
    return "reward_models" if str(named[0]).endswith("Classification") else "models"


def spell_default(parameter: inspect.Parameter) -> str:
    """A default as it would be typed."""
    default = parameter.default
    if default is inspect.Parameter.empty:
        return "required"
    return default if isinstance(default, str) else str(default).lower()


def shipped_checkpoints(group: plugins.Group) -> list[dict[str, Any]]:
    """The language models, or the reward models, that ship with the package, `zoo/NAME`."""
    zoo = plugins.folder_of("models") / "zoo"
    names = sorted(path.parent.name for path in zoo.glob("*/config.json") if group == kind_of(path))
    return [
        {"name": f"zoo/{name}", "summary": "a shipped checkpoint; see its README.md", "options": []} for name in names
    ]
