"""A run as a log of Inspect (`.eval`, a zip of JSON files) that its viewer and `inspect_ai.log.read_eval_log` open.

A problem is a sample and its completions are the sample's epochs. The scorer is called `ttc`; its values are C and I by
the verdicts that the run has. What Inspect has no place for stands in a sample's metadata under `ttc`.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.exporting.samples import Sample, each_problem, mean_and_error, moment, plain_json
from harness.interchange.inspect_logs import OWN
from harness.storage.manifest import digest
from harness.storage.runs import Run

VERSION = 2
SCORER = "ttc"
STOPS = {"stop": "stop", "length": "max_tokens"}
LIMITS = {"seconds": "time", "tokens": "token", "flops": "custom"}
SHOWN = 200
"""Characters of a prompt in the list of samples."""


def write_inspect(run: Run, folder: Path) -> list[Path]:
    """Write the log; returns it."""
    created = moment(run.manifest["created_unix_s"])
    spec = eval_spec(run, created)
    stamp = created.partition(".")[0].replace(":", "-")
    file = folder / f"{stamp}-00-00_{re.sub(r'[^A-Za-z0-9]+', '-', run.spec['task'])[:60]}_{spec['eval_id']}.eval"
    means: list[float] = []
    solved: list[float] = []
    tokens = [0, 0]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as log:

        def put(name: str, value: Any) -> None:
            log.writestr(name, plain_json(value))

        plan = {"name": "plan", "steps": [], "config": {}}
        put("_journal/start.json", {"version": VERSION, "eval": spec, "plan": plan})
        summaries = []
        for problem, samples in each_problem(run):
            for sample in samples:
                epoch = sample.row["sample_index"] + 1
                put(f"samples/{problem['problem_id']}_epoch_{epoch}.json", sample_of(run, problem, sample))
                summaries.append(summary_of(run, problem, sample))
                tokens[0] += sample.row["prompt_tokens"]
                tokens[1] += sample.row["completion_tokens"]
            asked = len(samples) if run.spec["engine"] == "recorded" else run.spec["samples"]
            correct = sum(sample.is_correct for sample in samples)
            means.append(correct / asked if asked else 0.0)
            solved.append(float(correct > 0))
        put("summaries.json", summaries)
        put("header.json", {
            "version": VERSION, "status": "success", "eval": spec, "plan": plan,
            "results": results(run, len(summaries), means, solved),
            "stats": {"started_at": f"{created}+00:00", "completed_at": completed(run), "model_usage":
                      {run.spec["model"]: usage(*tokens)}},
        })  # fmt: skip
    return [file]


def completed(run: Run) -> str:
    """When sampling ended, as far as the run tells: its sittings one after the other."""
    names = ("load_s", "warmup_s", "generate_s", "grade_s")
    seconds = sum(segment.get(name) or 0.0 for segment in run.manifest["segments"] for name in names)
    return f"{moment(run.manifest['created_unix_s'] + seconds)}+00:00"


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Token counts in Inspect's words."""
    return {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion}


def eval_spec(run: Run, created: str) -> dict[str, Any]:
    """What was evaluated."""
    spec, manifest = run.spec, run.manifest
    sampling = spec.get("sampling") or {}
    name = digest([spec, manifest["created_unix_s"]])[:22]
    config = {
        "temperature": sampling.get("temperature"),
        "top_p": sampling.get("top_p"),
        "top_k": sampling.get("top_k") or None,
        "max_tokens": sampling.get("max_tokens"),
        "seed": sampling.get("seed"),
        "stop_seqs": list(sampling.get("stop") or ()) or None,
    }
    revision = manifest["git_commit"]
    return {
        "eval_id": name,
        "run_id": name,
        "created": f"{created}+00:00",
        "task": spec["task"],
        "task_id": name,
        "task_version": 0,
        "task_args": {},
        "dataset": {"name": spec["task"], "samples": manifest["problems"]["count"], "shuffled": False},
        "model": spec["model"],
        "model_generate_config": {key: value for key, value in config.items() if value is not None},
        "model_args": {"engine": spec["engine"], "options": list(spec["model_options"])},
        "config": {"epochs": spec["samples"], "epochs_reducer": ["mean", f"pass_at_{spec['samples']}"]},
        "revision": revision and {"type": "git", "origin": "", "commit": revision},
        "packages": dict(manifest["versions"]),
        "metadata": {
            "ttc_spec": spec,
            "validity": manifest["validity"],
            "engine": manifest["engine"],
            "machine": manifest["machine"],
        },
    }


def results(run: Run, count: int, means: list[float], solved: list[float]) -> dict[str, Any]:
    """Accuracy over the epochs, and whether one epoch of N is correct, each with its standard error over problems."""
    scores = []
    for reducer, values in (("mean", means), (f"pass_at_{run.spec['samples']}", solved)):
        mean, error = mean_and_error(values)
        found = {"accuracy": mean} | ({} if error is None else {"stderr": error})
        scores.append({
            "name": SCORER, "scorer": SCORER, "reducer": reducer, "params": {},
            "metrics": {name: {"name": name, "value": value, "params": {}} for name, value in found.items()},
        })  # fmt: skip
    return {"total_samples": len(means) * run.spec["samples"], "completed_samples": count, "scores": scores}


def score_of(sample: Sample) -> dict[str, Any]:
    """The verdict as a score; none where the completion was not graded."""
    if sample.verdict is None:
        return {}
    explanation = f"{sample.outcome}: {sample.verdict['reason']}".rstrip(": ")
    value = "C" if sample.is_correct else "I"
    return {SCORER: {"value": value, "answer": sample.answer, "explanation": explanation}}


def sample_of(run: Run, problem: Mapping[str, Any], sample: Sample) -> dict[str, Any]:
    """One completion as Inspect stores it."""
    row, model = sample.row, run.spec["model"]
    used = usage(row["prompt_tokens"], row["completion_tokens"])
    said = {"role": "assistant", "content": row["text"], "source": "generate", "model": model}
    output = {
        "model": model,
        "choices": [{"message": said, "stop_reason": STOPS.get(row["finish_reason"], "unknown")}],
        "completion": row["text"],
        "usage": used,
    }
    stored = {name: value for name, value in row.items() if name != "text"}
    stored_sample: dict[str, Any] = clean({
        "id": problem["problem_id"],
        "epoch": row["sample_index"] + 1,
        "input": problem["prompt"],
        "target": problem["gold"],
        "messages": [{"role": "user", "content": problem["prompt"], "source": "input"}, said],
        "output": output | ({"error": row["error"]} if row["error"] else {}),
        "scores": score_of(sample),
        "metadata": {**problem["meta"], OWN: sample.as_recorded, "ttc_row": stored, "ttc_scores": dict(sample.scores)},
        "store": {},
        "events": [],
        "model_usage": {model: used},
        "total_time": seconds_of(row),
        "working_time": seconds_of(row),
        **ending(run, row),
        "attachments": {},
    })  # fmt: skip
    return stored_sample


def seconds_of(row: Mapping[str, Any]) -> float | None:
    """Seconds from the completion's start to its end; None where they were not recorded."""
    seconds = float(row["finished_s"] - row["started_s"])
    return seconds if seconds >= 0 else None


def ending(run: Run, row: Mapping[str, Any]) -> dict[str, Any]:
    """The limit or the failure that ended a completion; empty where it ended by itself."""
    if row["finish_reason"] == "error":
        told = row["error"] or "the engine failed"
        return {"error": {"message": told, "traceback": told, "traceback_ansi": told}}
    if row["finish_reason"] != "deadline" or run.budget is None:
        return {}
    return {"limit": {"type": LIMITS[run.budget.unit], "limit": run.budget.amount}}


def summary_of(run: Run, problem: Mapping[str, Any], sample: Sample) -> dict[str, Any]:
    """One completion in the viewer's list."""
    whole = sample_of(run, problem, sample)
    kept = {name: whole[name] for name in ("id", "epoch", "target", "scores", "model_usage", "total_time")}
    return kept | {
        "input": problem["prompt"][:SHOWN],
        "metadata": {},
        "completed": True,
        "message_count": 2,
        "working_time": whole["working_time"],
        "error": (whole.get("error") or {}).get("message"),
        "limit": (whole.get("limit") or {}).get("type"),
    }


def clean(value: Any) -> Any:
    """JSON has no NaN: what was not recorded is null."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {name: clean(part) for name, part in value.items()}
    return [clean(part) for part in value] if isinstance(value, list | tuple) else value
