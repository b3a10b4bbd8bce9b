"""The card of an exported data set: README.md with YAML on top, as the hub and the `datasets` library read it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.inert import inert_line, json_line
from harness.storage.runs import Run

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))


def write_card(run: Run, folder: Path, completions: pa.Schema, problems: pa.Schema, split: str) -> Path:
    """Write README.md; returns it."""
    card = folder / "README.md"
    count = run.completion_columns("sample_index").num_rows
    text = [
        "---",
        *front(run, count, split),
        "---",
        "",
        f"# {heading(run)}",
        "",
        f"{count} completions of {code(run.spec['model'])} on {run.manifest['problems']['count']} problems of "
        f"{code(run.spec['task'])}, with every one's text, times, tokens, extracted answer and verdict; measured and "
        "exported by `ttc` (ttc-harness). The whole manifest of the run is in `manifest.json`.",
        "",
        *validity(run),
        "",
        "## Reading it",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'completions = load_dataset("THIS_REPOSITORY", split="{split}")',
        f'problems = load_dataset("THIS_REPOSITORY", "problems", split="{split}")',
        "```",
        "",
        "## How it was made",
        "",
        *table(conditions(run)),
        "",
        "## Columns of `completions`",
        "",
        *columns(completions),
        "",
        "## Columns of `problems`",
        "",
        *columns(problems),
        "",
        "The prompts and answers of the problems are those of the task's own data set, under its licence; the "
        "completions are what the model wrote, under the model's.",
    ]
    card.write_text("\n".join(text) + "\n", encoding="utf-8")
    return card


def heading(run: Run) -> str:
    """The title, in plain characters."""
    return f"{plain(run.spec['model'])} on {plain(run.spec['task'])}"


def front(run: Run, count: int, split: str) -> Iterator[str]:
    """The YAML lines; strings are written as JSON, which is YAML."""
    yield f"pretty_name: {json_line(heading(run))}"
    yield f"size_categories: [{next((name for most, name in SIZES if count < most), 'n>10M')!r}]"
    yield "task_categories: [text-generation]"
    yield "tags: [ttc-harness, reasoning, test-time-compute, evaluation]"
    yield "configs:"
    for name in ("completions", "problems"):
        yield f"- config_name: {name}"
        if name == "completions":
            yield "  default: true"
        yield "  data_files:"
        yield f"  - split: {split}"
        yield f"    path: {name}/{split}-*.parquet"


def validity(run: Run) -> list[str]:
    """Whether the times may be believed."""
    found = run.manifest["validity"]
    reasons = "".join(f"\n- {plain(reason)}" for reason in found["reasons"])
    return [f"The run is **{found['verdict']}**{':' if reasons else '.'}{reasons}"]


def conditions(run: Run) -> dict[str, Any]:
    """What was asked for and where it ran."""
    spec, manifest = run.spec, run.manifest
    engine, machine = manifest["engine"], manifest["machine"]
    sampling = spec.get("sampling") or {}
    return {
        "engine": engine.get("engine"),
        "engine version": engine.get("engine_version"),
        "dtype": engine.get("dtype"),
        "device": engine.get("device_name"),
        "processor": machine["cpu"],
        "protocol": spec["protocol"],
        "budget": spec["budget"] or "none",
        "samples per problem": spec["samples"],
        **{name.replace("_", " "): sampling[name] for name in sampling if name != "stop"},
        "ttc": manifest["versions"]["ttc"],
        "commit": manifest["git_commit"],
    }


def table(rows: Mapping[str, Any]) -> Iterator[str]:
    """A Markdown table of two columns; what is not known is left out."""
    yield "| what | value |"
    yield "| --- | --- |"
    for name, value in rows.items():
        if value is not None:
            yield f"| {plain(name)} | {plain(value)} |"


def columns(schema: pa.Schema) -> Iterator[str]:
    """The columns with their types and units."""
    yield "| column | type | unit |"
    yield "| --- | --- | --- |"
    for field in schema:
        unit = (field.metadata or {}).get(b"unit", b"").decode()
        yield f"| `{field.name}` | {plain(field.type)} | {plain(unit)} |"


def plain(value: Any) -> str:
    """A stranger's words as one line of Markdown that means only itself."""
    text = inert_line(" ".join(str(value).split()))
    return "".join(f"\\{each}" if each in "\\`*_[]<>|#" else each for each in text)


def code(value: Any) -> str:
    """A name in the type of code."""
    return f"`{inert_line(' '.join(str(value).split())).replace('`', chr(39))}`"
