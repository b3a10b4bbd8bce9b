"""`ttc score`: reward scores for runs that are stored already."""

from typing import Annotated, Any

import typer

from harness.cli.options import Json, Quiet, RewardModels, RewardOptions, Runs


def score(
    runs: Runs,
    reward_model: RewardModels = None,
    reward_arg: RewardOptions = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="T", help="The runs' task where it is a plug-in file or module: it runs only when named here."
        ),
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score the completions of runs with reward models; what is scored already stays as it is.

    What scoring takes is measured, and charged to the selectors that read the scores.
    """
    import json

    from harness.errors import UserError
    from harness.inert import inert_line
    from harness.progress import chooser
    from harness.running.interrupts import stoppable
    from harness.running.rescoring import score_runs
    from harness.storage.runs import find_runs

    if not reward_model:
        raise UserError("no reward model to score with; write for example --reward-model zoo/orm")
    with stoppable():
        told = score_runs(find_runs(runs), reward_model, reward_arg or [], chooser(quiet), task=task)
    if json_:
        print(json.dumps({"runs": told}))
    else:
        print("\n".join(inert_line(line) for one in told for line in lines_of(one)))


def lines_of(told: dict[str, Any]) -> list[str]:
    """What was done, in words."""
    what = f"{told['run']} by {told['reward_model']}: {told['scored']} scored"
    cost = f" in {told['score_s']:.2f} s, {told['flops']:.3g} FLOP" if told["scored"] else ""
    lines = [f"{what}{cost}; {told['already']} before"]
    if told["unscored"]:
        lines.append(f"  {told['unscored']} cannot be scored: they are longer than the context, or blank")
    if told["failed"]:
        lines.append(f"  {told['failed']} failed: {'; '.join(told['errors'])}")
    return lines


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(score)
