"""Label the steps of a stored run by roll-outs of the model that made it: the training data of a PRM.

    ttc bench zoo/teacher --task arithmetic -T split=train -T num_problems=10000 -T seed=7 --samples 1 --out build/train
    python -m harness.models.distillation.label_steps build/train --out build/steps.jsonl

Typed again, the command goes on where it stopped. `rollouts` says what is written.
"""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from harness import plugins
from harness.errors import UserError
from harness.foreign import code_of_model, code_of_task
from harness.nouns import Sampling
from harness.storage.runs import open_run

from .rollouts import finished_completions, label_steps


def main(
    run: Annotated[Path, typer.Argument(help="A run of a task's train split.")],
    out: Annotated[Path, typer.Option(help="The JSON lines of labelled steps.")],
    limit: Annotated[int, typer.Option(min=1, help="How many completions are labelled at most.")] = 1600,
    samples: Annotated[int, typer.Option(min=1, help="Completions of a problem that are labelled.")] = 1,
    continuations: Annotated[int, typer.Option(min=1, help="Roll-outs from the end of every step.")] = 4,
    halving: Annotated[bool, typer.Option(help="Look for the first bad step only, by halving.")] = False,
    problems_at_once: Annotated[int, typer.Option(min=1, help="Problems whose roll-outs share a call.")] = 32,
    trust_plugins: Annotated[bool, typer.Option(help="Run the code that the run names.")] = False,
) -> None:
    """Roll out from every step, with the run's own model, engine and sampling."""
    spec = open_run(run).spec
    code = code_of_task(spec) or code_of_model(spec)
    if code and not trust_plugins:
        raise UserError(f"'{run}' names code of its own ({code}); add --trust-plugins to run it")
    task = plugins.load_task(spec["task_plugin"], spec["task_options"], spec["data"])
    model = plugins.load_model(spec["model"], spec["engine"], spec["model_options"])
    sampling = Sampling(**spec["sampling"] | {"stop": tuple(spec["sampling"]["stop"])})
    completions = list(islice(finished_completions(run, samples), limit))
    label_steps(
        model, task, completions, out,
        continuations=continuations, halving=halving, sampling=sampling, problems_at_once=problems_at_once,
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
