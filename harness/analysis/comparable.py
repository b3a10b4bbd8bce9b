"""Which runs may share a figure or a table: those that asked the same problems in the same way with the same sampling.

Runs of other settings are shown apart, and the reason is said. A seed or a budget of its own sets no run apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.analysis.summary import RunSummary
from harness.storage.manifest import digest
from harness.storage.runs import Run

SAMPLING = ("temperature", "top_p", "top_k", "max_tokens", "stop")
"""What of the sampling must be equal."""

Setting = Mapping[str, str]


def setting_of(run: Run) -> dict[str, str]:
    """What a run shares with those it may be compared with, each as a word or a number to read.

    The prompt itself counts for recorded completions. A bench renders it with each model's own chat template, so there
    the task's options stand for it.
    """
    problems = run.problems()
    sampling: Mapping[str, Any] = run.spec.get("sampling") or {}
    golds = digest([(row["problem_id"], row["gold"]) for row in problems])
    setting = {
        "problems": f"{len(problems)} problems, set {golds[:6]}",
        "task options": " ".join(sorted(run.spec.get("task_options") or [])) or "none",
        **{name.replace("_", " "): spelled(sampling.get(name, "not recorded")) for name in SAMPLING},
    }
    if run.spec.get("engine") == "recorded":
        setting["prompts"] = f"set {digest([row['prompt'] for row in problems])[:6]}"
    return setting


def spelled(value: Any) -> str:
    """A value in a sentence: numbers without padding, nothing as `none`."""
    if isinstance(value, list | tuple):
        return ", ".join(map(repr, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def together(summaries: Sequence[RunSummary], settings: Sequence[Setting] = ()) -> list[list[int]]:
    """The places of the runs that may share a figure, group by group in order of appearance.

    `settings` is one `setting_of` for each run; without it task and protocol alone decide.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, summary in enumerate(summaries):
        setting = tuple(sorted(settings[place].items())) if settings else ()
        groups.setdefault((summary.task, summary.protocol, setting), []).append(place)
    return list(groups.values())


def reasons_apart(summaries: Sequence[RunSummary], settings: Sequence[Setting]) -> list[str]:
    """A sentence for each task and protocol whose runs could not share a figure: what differs, and how."""
    sentences = []
    heads: dict[tuple[str, str], list[int]] = {}
    for group in together(summaries, settings) if settings else []:
        heads.setdefault((summaries[group[0]].task, summaries[group[0]].protocol), []).append(group[0])
    for (task, _), places in heads.items():
        names = dict.fromkeys(name for place in places for name in settings[place])
        values = {name: list(dict.fromkeys(settings[p].get(name, "not recorded") for p in places)) for name in names}
        differing = [f"{name} ({' against '.join(found)})" for name, found in values.items() if len(found) > 1]
        if differing:
            sentences.append(f"The runs on {task} are shown in {len(places)} groups, for they differ in "
                             f"{'; '.join(differing)}.")  # fmt: skip
    return sentences
