"""The paragraph under a figure: what was run, on what, and what the marks mean."""

from collections.abc import Sequence

from harness.analysis.summary import RunSummary

from .lines import arm_names

FACTS: dict[str, str] = {
    "engine": "engine",
    "engine_version": "engine version",
    "dtype": "dtype",
    "device": "device",
    "torch": "torch",
    "torch_version": "torch",
    "python": "Python",
    "gpu": "GPU",
    "cpu": "CPU",
    "cores": "cores",
    "seed": "seed",
    "temperature": "temperature",
    "top_p": "top-p",
    "top_k": "top-k",
    "max_tokens": "at most so many tokens",
    "ttc": "ttc version",
    "git_commit": "git commit",
}
"""The facts that a caption states, and what it calls them."""


def caption_text(summaries: Sequence[RunSummary]) -> str:
    """One paragraph: a sentence for each task and protocol, then the facts, then the INVALID runs and why.

    A fact that not all runs share is said of each run by its name.
    """
    names = arm_names(summaries)
    keys = dict.fromkeys((summary.task, summary.protocol) for summary in summaries)
    sentences = [setting(summaries, names, task, protocol) for task, protocol in keys]
    sentences.append("Bands are 95% intervals over problems.")
    if any(curve.kind == "modelled" for summary in summaries for curve in summary.curves):
        sentences.append("Dashed lines with hollow markers are modelled from recorded lengths and a timing table.")
    stated = [fact(summaries, names, key) for key in FACTS if any(key in summary.facts for summary in summaries)]
    sentences += [f"{capital('; '.join(stated))}."] if stated else []
    for summary, name in zip(summaries, names, strict=True):
        if summary.validity == "INVALID":
            reasons = "; ".join(summary.reasons) or "no reason was recorded"
            sentences.append(f"INVALID: {name.removesuffix(' (INVALID)')}: {reasons}.")
    return " ".join(" ".join(sentences).split())


def setting(summaries: Sequence[RunSummary], names: Sequence[str], task: str, protocol: str) -> str:
    """Who was measured on a task under a protocol, over how many problems and samples, under which budget."""
    members = [(summary, name) for summary, name in zip(summaries, names, strict=True) if summary.task == task]
    members = [(summary, name) for summary, name in members if summary.protocol == protocol]
    who = joined([name.removesuffix(" (INVALID)") for _, name in members])
    problems = joined([str(summary.problems) for summary, _ in members])
    samples = joined([str(summary.samples) for summary, _ in members])
    budgets = [summary.budget for summary, _ in members if summary.budget]
    scope = "problem" if protocol == "latency" else "run"
    budget = f", budget {joined(budgets)} per {scope}" if budgets else ", no budget"
    return f"Accuracy of {who} on {task}: {problems} problems, {samples} samples{budget}, {protocol} protocol."


def joined(values: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`, each value once."""
    once = list(dict.fromkeys(values))
    return once[0] if len(once) == 1 else f"{', '.join(once[:-1])} and {once[-1]}"


def fact(summaries: Sequence[RunSummary], names: Sequence[str], key: str) -> str:
    """A fact with its value; with the runs that each value belongs to where they differ."""
    holders: dict[str, list[str]] = {}
    for summary, name in zip(summaries, names, strict=True):
        holders.setdefault(str(summary.facts.get(key, "not recorded")), []).append(name.removesuffix(" (INVALID)"))
    if len(holders) == 1:
        return f"{FACTS[key]} {next(iter(holders))}"
    return f"{FACTS[key]} " + ", ".join(f"{value} ({joined(who)})" for value, who in holders.items())


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
