"""Whether a run would have code run here: what its manifest names was typed by whoever made it, perhaps a stranger."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness import plugins
from harness.errors import UserError
from harness.plugin_options import options_of

CODE_OPTIONS = ("include_path", "trust_remote_code")
"""Options of tasks and engines that are here which have somebody's code run."""


def code_of_task(spec: Mapping[str, Any]) -> str | None:
    """What of a run's spec has its task run code that is not installed here; None when nothing does."""
    task: str = spec["task_plugin"]
    return task if plugins.is_reference(task) else code_option("tasks", task.partition(":")[0], spec["task_options"])


def code_of_model(spec: Mapping[str, Any]) -> str | None:
    """What of a run's spec has its model or engine run code that is not installed here; None when nothing does."""
    for name in (spec["model"], spec["engine"]):
        if plugins.is_reference(name):
            return str(name)
    return code_option("models", spec["engine"], spec["model_options"])


def code_option(group: plugins.Group, name: str, pairs: Sequence[str]) -> str | None:
    """The first option that has code run. What an engine takes without declaring it, it hands on to who knows whom."""
    try:
        declared = options_of(plugins.load_function(group, name))
    except UserError:
        declared = {}
    for pair in pairs:
        option = pair.partition("=")[0]
        if option in CODE_OPTIONS or option not in declared:
            return pair
    return None
