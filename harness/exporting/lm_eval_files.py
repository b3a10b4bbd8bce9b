"""A run as lm-evaluation-harness 0.4 writes one with --log_samples, in a folder named after the model.

`results_DATE.json` holds the scores and the configuration, `samples_TASK_DATE.jsonl` a line for each document: a
document is a problem, its repeats are the completions. `exact_match` is the share of them that are correct, `pass@N`
whether one is, both by the verdicts that the run has; what lm-eval has no place for stands under `ttc_samples`, where
`ttc import` finds it again.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.exporting.samples import Sample, each_problem, mean_and_error, moment, plain_json
from harness.interchange.lm_eval import OWN
from harness.storage.runs import Run

FILTER = "none"
UNSAFE = re.compile(r"[\"<>:/|\\?*\[\]]+")
"""What lm-eval takes out of a model's name to make a folder's."""
LONGEST_NAME = 60
"""Characters of the folder's name: no more than 240 bytes, of the 255 that file systems allow."""


def write_lm_eval(run: Run, folder: Path) -> list[Path]:
    """Write the two files; returns them."""
    date = moment(run.manifest["created_unix_s"]).replace(":", "-")
    task = run.spec["task"]
    place = folder / folder_name(run.spec["model"])
    place.mkdir()
    samples_file, results_file = place / f"samples_{safe(task)}_{date}.jsonl", place / f"results_{date}.json"
    values: dict[str, list[float]] = {"exact_match": [], coverage_name(run): []}
    hashes = hashlib.sha256()
    with samples_file.open("w", encoding="utf-8") as file:
        for number, (problem, samples) in enumerate(each_problem(run)):
            line = sample_line(run, number, problem, samples)
            file.write(plain_json(line) + "\n")
            hashes.update((line["doc_hash"] + line["prompt_hash"] + line["target_hash"]).encode())
            for name, found in values.items():
                found.append(line[name])
    document = results(run, values) | {"task_hashes": {task: hashes.hexdigest()}}
    results_file.write_text(json.dumps(document, indent=2, ensure_ascii=False, default=str), encoding="utf-8")
    return [results_file, samples_file]


def folder_name(model: str) -> str:
    """A model's name as the name of a folder, printable, not too long, and never that of the folder above."""
    name = "".join(sign for sign in UNSAFE.sub("__", model) if sign.isprintable())[:LONGEST_NAME]
    return name if name.strip(". ") else "model"


def safe(task: str) -> str:
    """A task's name as lm-eval writes it into a file's."""
    return re.sub(r"\W", "_", task)[:LONGEST_NAME]


def coverage_name(run: Run) -> str:
    """`pass@16` of a run of 16 samples a problem."""
    return f"pass@{run.spec['samples']}"


def sha256(text: str) -> str:
    """The hash by which lm-eval names documents, prompts and targets."""
    return hashlib.sha256(text.encode()).hexdigest()


def sample_line(run: Run, number: int, problem: Mapping[str, Any], samples: Sequence[Sample]) -> dict[str, Any]:
    """One document with every response. An absent sample is a wrong one: its problem's budget was used up."""
    doc = {"id": problem["problem_id"], "problem": problem["prompt"], "answer": problem["gold"], **problem["meta"]}
    correct = sum(sample.is_correct for sample in samples)
    asked = len(samples) if run.spec["engine"] == "recorded" else run.spec["samples"]
    metrics = {"exact_match": correct / asked if asked else 0.0, coverage_name(run): float(correct > 0)}
    return {
        "doc_id": number,
        "doc": doc,
        "target": problem["gold"],
        "arguments": {"gen_args_0": {"arg_0": problem["prompt"], "arg_1": generation(run)}},
        "resps": [[sample.row["text"] for sample in samples]],
        "filtered_resps": [[sample.answer or "" for sample in samples]],
        "filter": FILTER,
        "metrics": list(metrics),
        "doc_hash": sha256(json.dumps(doc, indent=2, ensure_ascii=False, default=str)),
        "prompt_hash": sha256(problem["prompt"]),
        "target_hash": sha256(problem["gold"]),
        **metrics,
        OWN: [sample.as_recorded for sample in samples],
    }


def generation(run: Run) -> dict[str, Any]:
    """The sampling in lm-eval's words; empty where it was not recorded."""
    sampling = run.spec.get("sampling")
    if not sampling:
        return {}
    return {
        "until": list(sampling["stop"]),
        "do_sample": sampling["temperature"] > 0,
        "temperature": sampling["temperature"],
        "top_p": sampling["top_p"],
        "top_k": sampling["top_k"],
        "max_gen_toks": sampling["max_tokens"],
    }


def results(run: Run, values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The results file: `values` has a number for each document by metric."""
    spec, manifest, task = run.spec, run.manifest, run.spec["task"]
    count = manifest["problems"]["count"]
    scores: dict[str, Any] = {"name": task, "alias": task, "sample_len": count}
    for name, numbers in values.items():
        mean, error = mean_and_error(numbers)
        scores |= {f"{name},{FILTER}": mean, f"{name}_stderr,{FILTER}": "N/A" if error is None else error}
    seconds = sum(segment.get("generate_s") or 0.0 for segment in manifest["segments"])
    seed = (spec.get("sampling") or {}).get("seed")
    return {
        "results": {task: scores},
        "group_subtasks": {task: []},
        "configs": {
            task: {
                "task": task,
                "output_type": "generate_until",
                "repeats": spec["samples"],
                "num_fewshot": 0,
                "generation_kwargs": generation(run),
                "metadata": {"version": manifest["versions"]["ttc"], "ttc_spec": spec},
            }
        },
        "versions": {task: manifest["versions"]["ttc"]},
        "n-shot": {task: 0},
        "higher_is_better": {task: dict.fromkeys(values, True)},
        "n-samples": {task: {"original": count, "effective": count}},
        "config": {
            "model": f"ttc-{spec['engine']}",
            "model_args": f"pretrained={spec['model']}",
            "batch_size": None,
            "device": manifest["engine"].get("device"),
            "limit": spec.get("limit"),
            "bootstrap_iters": 0,
            "gen_kwargs": generation(run),
            "random_seed": seed,
            "numpy_seed": seed,
            "torch_seed": seed,
            "fewshot_seed": None,
        },
        "git_hash": manifest["git_commit"],
        "date": manifest["created_unix_s"],
        "model_source": f"ttc-{spec['engine']}",
        "model_name": spec["model"],
        "model_name_sanitized": UNSAFE.sub("__", spec["model"]),
        "transformers_version": manifest["versions"].get("transformers"),
        "total_evaluation_time_seconds": str(seconds),
        "ttc": {"validity": manifest["validity"], "engine": manifest["engine"], "machine": manifest["machine"]},
    }
