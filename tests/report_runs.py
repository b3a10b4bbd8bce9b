"""Runs on disk whose every text, verdict and time is a fixed function of its place."""

from pathlib import Path
from typing import Any

import numpy as np

from harness.nouns import Completion
from harness.storage.runs import Run, make_run

HOSTILE_TEXT = (
    "<script>window.broken = true</script><img src=x onerror='window.broken = true'> "
    "</div></details><a href='javascript:window.broken = true'>click</a> \x1b[31mred \u202eevil "
    r"$\text{<img src=https://example.invalid/x.png onerror=window.broken=true>}$ \href{javascript:alert(1)}{here}"
)
SAMPLING = {"temperature": 0.8, "top_p": 1.0, "top_k": 0, "max_tokens": 200, "stop": [], "seed": 0}


def spec_of(model: str, problems: int, samples: int, **changes: Any) -> dict[str, Any]:
    return {
        "model": model, "engine": "native", "model_options": [], "task": "sums", "task_plugin": "./mine.py:sums",
        "task_options": [], "data": None, "limit": None, "protocol": "latency", "budget": "8s", "samples": samples,
        "sampling": SAMPLING,
    } | changes  # fmt: skip


def write_run(
    path: Path, model: str = "zoo/teacher", problems: int = 12, samples: int = 8, skill: float = 0.5,
    step_s: float = 0.1, hostile: bool = False, length: int = 40, scored: bool = False, **changes: Any,
) -> Run:  # fmt: skip
    """A run in which problem i has the gold 3 i; the share of right samples falls from easy to hard problems."""
    path.mkdir(parents=True)
    rows = [
        {"problem_id": f"sums/{i}", "prompt": f"What is ${i} + {2 * i}$? Answer with \\boxed{{}}.", "gold": str(3 * i),
         "meta": {}}
        for i in range(problems)
    ]  # fmt: skip
    run = make_run(path, spec_of(model, problems, samples, **changes), rows)
    for first in range(0, problems, 50):
        add_problems(
            run, range(first, min(problems, first + 50)), problems, samples, skill, step_s, hostile, length, scored
        )
    run.manifest |= {
        "engine": {
            "engine": "native",
            "engine_version": "0.1.0",
            "torch": "2.11.0",
            "dtype": "float32",
            "parameters": 1_250_000,
        },
        "validity": {"verdict": "VALID", "reasons": [], "mend": []},
        "git_commit": "0123abc",
    }
    run.manifest["machine"] |= {"cpu": "a processor", "usable_cores": 2, "gpus": []}
    run.save()
    return run


def add_problems(
    run: Run, chosen: range, problems: int, samples: int, skill: float, step_s: float, hostile: bool, length: int,
    scored: bool,
) -> None:  # fmt: skip
    completions, verdicts, scores = [], [], []
    for i in chosen:
        rng = np.random.default_rng(i)
        ease = min(1.0, max(0.0, skill * 2 * (1 - (i + 1) / problems)))
        for j in range(samples):
            right = bool(rng.random() < ease)
            answer = 3 * i if right else 3 * i + 1 + int(rng.integers(3))
            none = not right and j % 7 == 6
            text = f"First, ${i} + {2 * i} = \\frac{{{6 * i}}}{{2}}$. " + "So it goes on. " * (
                length * (1 + j % 3) // 15
            )
            text += HOSTILE_TEXT if hostile and j < 2 else ""
            text += "" if none else f"The answer is \\boxed{{{answer}}}."
            finished = step_s * (10 + 7 * ((j * 5 + i) % samples))
            completions.append(Completion(
                f"sums/{i}", j, text, "stop", 12, 20 + j, 1, 0.0, 0.0, 0.01, finished, float(samples), 1e9,
                1e10 + j * 1e9,
            ))  # fmt: skip
            verdicts.append({
                "problem_id": f"sums/{i}", "sample_index": j, "answer": None if none else str(answer),
                "answer_class": None if none else answer - 3 * i, "ms": 0.1,
                "verdict": "no_answer" if none else "correct" if right else "wrong",
                "reason": "" if none else HOSTILE_TEXT if hostile else "equal" if right else "not equal",
            })  # fmt: skip
            if scored:
                scores.append({
                    "problem_id": f"sums/{i}", "sample_index": j, "reward_model": "zoo/orm",
                    "scores": [0.5, round(0.3 + 0.4 * right + 0.2 * float(rng.random()), 3)], "scored_s": None,
                    "reward_s": 0.05, "reward_flops": 1e9,
                })  # fmt: skip
    run.add_completions(completions)
    run.add_verdicts(verdicts)
    if scores:
        run.add_scores(scores)
