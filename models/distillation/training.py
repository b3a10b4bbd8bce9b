"""Training: the stages of a recipe in order, on whatever devices `accelerate` finds.

On one device a plain call; on several, `accelerate launch -m harness distill RECIPE.toml`, with DDP or FSDP 2 as
accelerate's own settings say. The stage matrix-orientation works on parts of blocks, so that FSDP must not wrap these
(fsdp_auto_wrap_policy NO_WRAP). A run that was stopped or killed goes on from its newest checkpoint, on a CPU to the
bit. `trainees` says what a recipe trains, `run_folder` what lies in the folder, and this module how a step is taken.
"""

import functools
import math
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from harness.budgets import Clock, monotonic
from harness.errors import UserError
from harness.nouns import stream_seed
from harness.progress import ShowProgress, chooser

from .batches import Batches, NumberedBatches, TrainingBatch, read_ahead
from .recipes import Recipe, Stage, Weights
from .run_folder import Metrics, Place, claimed, load_state, newest_place, save_state
from .schedules import learning_rate, make_optimizer
from .trainees import Trainee, make_trainee

Make = Callable[[Recipe, torch.device], Trainee]
Values = dict[str, float]

STORED: dict[Weights, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(
    recipe: Recipe, out: Path, show_progress: ShowProgress, clock: Clock = monotonic, make: Make = make_trainee
) -> Path:
    """Run the stages of a recipe, or what is left of them.

    Args:
        recipe: checked, as `read_recipe` gives it.
        out: a new or empty folder, or the one in which this recipe was begun.
        show_progress: makes the display of a stage.
        clock: for the rates and times that are shown and written down.
        make: builds what is trained.

    Returns:
        The folder of the finished checkpoint, `out/final`.

    Raises:
        UserError: when the teacher, the data or the folder is not usable, `out` holds another recipe's run, or a loss
            is not finite.
        KeyboardInterrupt: after Ctrl-C, when the state is stored; its text says how to go on.
    """
    accelerator = make_accelerator(recipe)
    with claimed(out, recipe) if accelerator.is_main_process else nullcontext():
        accelerator.wait_for_everyone()
        if (out / "final").is_dir():
            return out / "final"
        trainee = make(recipe, accelerator.device)
        place = newest_place(out)
        metrics = Metrics(out / "metrics.csv", place) if accelerator.is_main_process else None
        sitting = Sitting(recipe, trainee, accelerator, out, metrics, show_progress, clock, place)
        for number in range(place.stage, len(recipe.stages) + 1):
            run_stage(sitting, number)
            save(sitting, f"stage-{number}", torch.float32)
        save(sitting, "final", STORED[recipe.weights])
    return out / "final"


def make_accelerator(recipe: Recipe) -> Any:
    """The devices and the precision. Raises UserError when `accelerate` is not installed."""
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.state import AcceleratorState
        from accelerate.utils import set_seed
    except ImportError as error:
        raise UserError("training needs the package accelerate; type: pip install 'ttc-harness[train]'") from error
    set_seed(recipe.seed)
    # Else the first recipe of a Python process would decide the precision of all.
    AcceleratorState._reset_state()
    precision = "bf16" if recipe.precision == "bf16" else "no"
    return Accelerator(mixed_precision=precision, kwargs_handlers=[DistributedDataParallelKwargs()])


@dataclass(slots=True)
class Sitting:
    """One call of `train`: what the stages share, and how far they are. Only the main process has `metrics`."""

    recipe: Recipe
    trainee: Trainee
    accelerator: Any
    out: Path
    metrics: Metrics | None
    show_progress: ShowProgress
    clock: Clock
    place: Place


@dataclass(slots=True)
class Work:
    """One stage in training: its optimiser and data, made ready for the devices.

    `passes` are those of one device in a step; `seed` is the data's.
    """

    stage: Stage
    number: int
    steps: int
    passes: int
    seed: int
    batches: NumberedBatches
    learner: nn.Module
    optimizer: Any


def run_stage(sitting: Sitting, number: int) -> None:
    """Train one stage from its beginning, or from the sitting's place in it, to its last step."""
    stage, accelerator, trainee = sitting.recipe.stages[number - 1], sitting.accelerator, sitting.trainee
    share = stage.on(accelerator.num_processes)
    seed = stream_seed(sitting.recipe.seed, "stage", number)
    batches = trainee.batches(share, seed, accelerator.num_processes)
    trainee.model = trainee.grown(trainee.model, number)
    objective = trainee.objective(trainee.model, stage)
    # MOHAWK's first stage gives no gradient to some parameters of the mixers that it trains.
    accelerator.ddp_handler.find_unused_parameters = stage.kind == "matrix-orientation"
    learner, optimizer = accelerator.prepare(objective, make_optimizer(objective, stage))
    accelerator.gradient_accumulation_steps = share.accumulate
    work = Work(stage, number, stage.steps, share.accumulate, seed, batches, learner.train(), optimizer)
    if (sitting.place.stage, sitting.place.step > 0) == (number, True):
        position = load_state(accelerator, sitting.out, sitting.place)
        if isinstance(batches, Batches):
            batches.go_to(batch_numbers(sitting, work, sitting.place.step)[0], position)
    else:
        sitting.place = replace(sitting.place, stage=number, step=0)
    with recomputed(trainee.model) if stage.activation_checkpointing else nullcontext():
        take_steps(sitting, work)
    trainee.model = whole_model(sitting, learner).eval()
    accelerator.free_memory()


def batch_numbers(sitting: Sitting, work: Work, first_step: int) -> range:
    """The numbers of this process's batches from a step to the end of the stage."""
    processes, passes = sitting.accelerator.num_processes, work.passes
    start = first_step * passes * processes + sitting.accelerator.process_index
    return range(start, work.steps * passes * processes + sitting.accelerator.process_index + 1, processes)


def take_steps(sitting: Sitting, work: Work) -> None:
    """Take the steps that are left, store the state every so often and at the end.

    Raises KeyboardInterrupt after Ctrl-C, when the state is stored.
    """
    first, stages = sitting.place.step, len(sitting.recipe.stages)
    title = f"stage {work.number}/{stages} {work.stage.kind}"
    numbers = batch_numbers(sitting, work, first)
    show = sitting.show_progress if sitting.metrics else chooser(quiet=True)
    with show(title, work.steps) as display, interruptions() as asked, read_ahead(work.batches, numbers[:-1]) as feed:
        began = before = sitting.clock()
        for step in range(first, work.steps):
            rate = learning_rate(work.stage, step, work.steps)
            measured = take_step(sitting, work, feed, rate, asked.is_set())
            stopped = measured.pop("stopped") > 0
            now = sitting.clock()
            row = note_step(sitting, work, measured, rate, now - before)
            left = (work.steps - step - 1) * (now - began) / (step + 1 - first)
            speed = f"{row['tokens_per_s']:,.0f} tokens/s, {clock_time(left)} left"
            display.update(step + 1, f"loss {row['loss']:.4f}, {speed}")
            before = now
            if stopped or step + 1 == work.steps or (step + 1) % sitting.recipe.checkpoint_steps == 0:
                after = numbers[(step + 1 - first) * work.passes]
                position = work.batches.position(after) if isinstance(work.batches, Batches) else 0
                save_state(sitting.accelerator, sitting.out, sitting.place, position)
            if stopped:
                raise KeyboardInterrupt(
                    f"stopped after step {step + 1} of {work.steps} of stage {work.number} ({work.stage.kind}); the "
                    "state is stored, type the same command to go on"
                )


def take_step(
    sitting: Sitting, work: Work, feed: Iterator[tuple[int, TrainingBatch]], rate: float, is_asked_to_stop: bool
) -> Values:
    """Accumulate the gradients of a step and apply them.

    Returns the means over batches and processes of what the objective gives, `gradient_norm` (before clipping), and the
    sums `real_tokens` and `stopped`, the number of processes that are asked to stop. Raises UserError when a loss or
    the gradient is not finite; the weights are then as before the step.
    """
    accelerator, norm = sitting.accelerator, math.nan
    for group in work.optimizer.param_groups:
        group["lr"] = rate
    sums: defaultdict[str, float] = defaultdict(float, stopped=float(is_asked_to_stop))
    for _ in range(work.passes):
        number, batch = next(feed)
        with accelerator.accumulate(work.learner):
            losses = work.learner(batch.to(accelerator.device))
            values = {name: float(value.detach()) for name, value in losses.items()}
            check_finite(sitting, work, "loss", values["loss"], number)
            accelerator.backward(losses["loss"])
            if accelerator.sync_gradients:
                clip_norm = work.stage.clip_norm or math.inf
                norm = float(accelerator.clip_grad_norm_(work.learner.parameters(), clip_norm))
                check_finite(sitting, work, "gradient", norm, number)
            work.optimizer.step()
            work.optimizer.zero_grad()
        for name, value in values.items():
            sums[name] += value
        sums["real_tokens"] += int(batch.lengths.sum())
    totals = accelerator.reduce(torch.tensor(list(sums.values()), dtype=torch.float64, device=accelerator.device))
    total = dict(zip(sums, totals.tolist(), strict=True))
    count = work.passes * accelerator.num_processes
    means = {name: value if name in ("stopped", "real_tokens") else value / count for name, value in total.items()}
    return means | {"gradient_norm": norm}


def check_finite(sitting: Sitting, work: Work, what: str, value: float, number: int) -> None:
    """Raises UserError naming the stage, the step and the batch when a value is not finite."""
    if not math.isfinite(value):
        raise UserError(
            f"the {what} is {value} at step {sitting.place.step + 1} of stage {work.number} ({work.stage.kind}), in "
            f"batch {number} of the data's seed {work.seed}; lower the stage's learning_rate or clip_norm and train "
            "into a new --out"
        )


def note_step(sitting: Sitting, work: Work, measured: Values, rate: float, seconds: float) -> Values:
    """Move the sitting's place on by a step and write its row of metrics.csv; returns the row."""
    stage, before = work.stage, sitting.place
    tokens = stage.tokens_per_step
    real, spent = before.real_tokens + int(measured.pop("real_tokens")), before.seconds + seconds
    sitting.place = place = Place(work.number, before.step + 1, before.tokens + tokens, real, spent)
    row: dict[str, Any] = {"stage": place.stage, "kind": stage.kind, "step": place.step}
    row |= {"tokens": place.tokens, "real_tokens": place.real_tokens, "learning_rate": rate}
    row |= {"seconds": round(place.seconds, 3), "tokens_per_s": round(tokens / max(seconds, 1e-9), 1), **measured}
    if sitting.metrics:
        sitting.metrics.append(row)
    return row


@contextmanager
def interruptions() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the next one ends the program at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # where signals never arrive
        return
    usual = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, usual)


@contextmanager
def recomputed(model: nn.Module) -> Iterator[None]:
    """Blocks keep only their inputs for the backward pass and compute the rest again (arXiv 1604.06174)."""
    blocks = [module for name, module in model.named_modules() if name.rpartition(".")[0].endswith("blocks")]
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def whole_model(sitting: Sitting, learner: nn.Module) -> nn.Module:
    """The trained model with all its weights in every process; where FSDP has shared them out, another module."""
    from accelerate.utils import DistributedType, broadcast

    accelerator, trainee = sitting.accelerator, sitting.trainee
    if accelerator.distributed_type != DistributedType.FSDP:
        return trainee.model
    state = accelerator.get_state_dict(learner)  # in the main process
    model = trainee.empty(sitting.place.stage)
    if accelerator.is_main_process:
        model.load_state_dict({name.partition(".")[2]: tensor for name, tensor in state.items()})
    for parameter in model.parameters():
        parameter.data.copy_(broadcast(parameter.data.to(accelerator.device)))
    return model


def save(sitting: Sitting, name: str, dtype: torch.dtype) -> None:
    """Write the model as a checkpoint of its family, from one process."""
    if sitting.accelerator.is_main_process:
        sitting.trainee.save(sitting.trainee.model, sitting.out / name, sitting.place.stage, dtype)
    sitting.accelerator.wait_for_everyone()


def clock_time(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"
