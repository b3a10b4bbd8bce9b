"""Train `zoo/teacher`: a small Llama on the train split of `arithmetic`. Under an hour on two idle CPU cores.

    python -m harness.models.zoo.train_teacher --out models/zoo/teacher

Everything is seeded. The data is an endless stream of worked problems of the train split, so no example is seen twice
on purpose; only the solution's tokens are trained on. Needs `pip install accelerate` besides the core dependencies.
"""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import IterableDataset
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from harness import plugins

END, PAD = "<|end|>", "<|pad|>"
SPECIALS = [PAD, END, "<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
DIFFICULTIES = (1, 2, 3, 4, 4, 5, 5, 6)
IGNORED = -100
STOP_AFTER = 3000
"""Trained to the end of its schedule the model solves nearly all of the test split, and voting has nothing to show."""


def examples(seed: int) -> Iterator[tuple[list[dict[str, str]], str]]:
    """An endless stream of (chat messages, solution) over the train split, mixed difficulties."""
    rng = random.Random(seed)
    load = plugins.load_function("tasks", "arithmetic")
    for block in range(10**9):
        for problem in load(
            split="train", difficulty=rng.choice(DIFFICULTIES), num_problems=256, seed=seed * 10**6 + block
        ).problems:
            yield [message._asdict() for message in problem.prompt], problem.meta["solution"]


def make_tokenizer(vocab_size: int, seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE that reads any text, digits one by one, trained on a sample of the stream."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    sample = (f"{messages[-1]['content']}\n{solution}" for messages, solution in itertools.islice(examples(seed), 4000))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


class Stream(IterableDataset[dict[str, list[int]]]):
    """Tokenised examples; the prompt's labels are ignored."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.tokenizer = tokenizer
        self.seed = seed

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        """Yield {input_ids, labels}, lists of equal length."""
        for messages, solution in examples(self.seed):
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            asked = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            solved = self.tokenizer(solution + END, add_special_tokens=False)["input_ids"]
            yield {"input_ids": asked + solved, "labels": [IGNORED] * len(asked) + solved}


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad on the right. Returns input_ids, attention_mask, labels, each (B, L)."""
    length = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, value: int) -> torch.Tensor:
        return torch.tensor([row[name] + [value] * (length - len(row[name])) for row in rows])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (length - len(row["input_ids"])) for row in rows])
    return {"input_ids": padded("input_ids", 0), "attention_mask": mask, "labels": padded("labels", IGNORED)}


class StopAfter(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Ends the training after a step without changing its schedule."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask the trainer to stop when the step is reached."""
        control.should_training_stop = control.should_training_stop or state.global_step >= self.step


def main(
    out: Annotated[Path, typer.Option(help="folder of the finished checkpoint")],
    work: Annotated[Path, typer.Option(help="folder of training checkpoints")] = Path("results/train-teacher"),
    steps: int = 4000,
    stop_after: Annotated[int, typer.Option(help="save after this step of the schedule; see STOP_AFTER")] = STOP_AFTER,
    batch: int = 32,
    learning_rate: float = 3e-3,
    hidden: int = 128,
    layers: int = 6,
    vocab_size: int = 512,
    seed: int = 1,
    resume: bool = False,
) -> None:
    """Train and save the model (half precision) with its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(vocab_size, seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=3 * hidden,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    arguments: dict[str, Any] = {
        "output_dir": str(work),
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 200,
        "weight_decay": 0.05,
        "adam_beta2": 0.98,
        "max_grad_norm": 1.0,
        "bf16": True,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 100,
        "save_steps": 500,
        "save_total_limit": 2,
        "seed": seed,
        "report_to": [],
        "disable_tqdm": True,
    }
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=Stream(tokenizer, seed),
        data_collator=collate,
        callbacks=[StopAfter(stop_after)],
    )
    trainer.train(resume_from_checkpoint=resume)
    model.config.use_cache = True
    model.to(torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    typer.run(main)
