"""What our loop costs: the engine `vllm` against vLLM's own `LLM.generate`, for the same requests without a deadline.

    VENV/bin/python tests/benchmarks/vllm_loop.py [CHECKPOINT] [--requests 256] [--tokens 128] [--batch 64] [--rounds 7]

VENV is an environment with vLLM (docs/vllm.md). Both drive one engine in one process, in turns, so that a disturbance
of the machine meets both; a first call of each is not counted. The requests are token ids with their own seeds and the
same end tokens, and the tokens that come back must be the same. `LLM.generate` returns texts and its engine keeps no
statistics, as by default; ours takes vLLM's events for the times of each row, charges every step to a deadline, and
makes the texts itself. With --logprobs both also sum the tokens' log-probabilities.

The cost is the median over the rounds of our seconds over theirs, less one; beside it stands the same in processor
seconds of the calling thread, which other work on the machine hardly disturbs and which are all there are on a CPU with
OMP_NUM_THREADS=1. The last line of stdout is one JSON document.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from harness.budgets import Deadline, monotonic, thread_s
from harness.models.checkpoints import find_checkpoint
from harness.models.tokenizers_ import end_tokens, load_tokenizer
from harness.models.vllm_engine.serving import VllmModel
from harness.models.vllm_engine.settings import Settings, engine_args_of
from harness.models.vllm_engine.startup import DEFAULTS, ENVIRONMENT
from harness.nouns import Request, Sampling

STORY = "Tom has {0} apples. He buys 7 more and gives {1} to Ann. How many apples does he have now?"


def main() -> None:
    """Print one line per round and the verdict."""
    options = read_options()
    os.environ.update({**ENVIRONMENT, **DEFAULTS})
    llm, model = start(options)
    try:
        requests = requests_of(options)
        both = [lambda: run_ours(model, requests), lambda: run_theirs(llm, model, requests)]
        rounds: list[Round] = []
        for number in range(options.rounds + 1):
            order = (0, 1) if number % 2 else (1, 0)
            found = {place: timed(both[place]) for place in order}
            if found[0].texts != found[1].texts:
                raise SystemExit("the two did not generate the same texts")
            if number:
                rounds.append((found[0], found[1]))
                print(f"round {number}: ours {found[0]}, LLM.generate {found[1]}")
        report(options, rounds)
    finally:
        model.close()


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default="zoo/teacher")
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--logprobs", action="store_true")
    return parser.parse_args()


def start(options: argparse.Namespace) -> tuple[Any, VllmModel]:
    """vLLM's `LLM`, and our engine around the one inside it."""

    from vllm import LLM

    from harness.models.vllm_plugin.registration import register

    register()
    checkpoint = find_checkpoint(options.checkpoint)
    settings = Settings(
        dtype="auto",
        state_dtype="float32",
        max_batch_size=options.batch,
        max_batch_tokens=8192,
        max_model_len=0,
        memory_bytes=1_000_000_000,
        prefix_caching=False,
        enforce_eager=True,
        tensor_parallel_size=1,
        rope_scaling="auto",
        engine_args={},
    )
    asked = engine_args_of(settings, checkpoint)
    defaults = vars(type(asked)(model=""))
    changed = {name: value for name, value in vars(asked).items() if value != defaults[name]}
    llm = LLM(**{**changed, "skip_tokenizer_init": False, "disable_log_stats": False})
    words = load_tokenizer(checkpoint)
    ends = end_tokens(checkpoint, words)
    return llm, VllmModel(checkpoint, llm.llm_engine, words, ends, settings, options.logprobs, dict(os.environ))


def requests_of(options: argparse.Namespace) -> list[Request]:
    """Word problems, four samples of each."""
    sampling = Sampling(temperature=0.8, max_tokens=options.tokens)
    return [
        Request(f"p{number // 4}", number % 4, STORY.format(10 + number // 4, number // 4 % 9), sampling)
        for number in range(options.requests)
    ]


Texts = dict[tuple[str, int], tuple[int, str]]
"""Tokens and text by problem and sample."""


class Timed(NamedTuple):
    """What a call gave and took."""

    wall_s: float
    processor_s: float
    texts: Texts

    def __str__(self) -> str:
        """The seconds."""
        return f"{self.wall_s:.3f} s ({self.processor_s:.3f} s of processor)"


Round = tuple[Timed, Timed]
"""Our call and theirs."""


def timed(run: Callable[[], Texts]) -> Timed:
    """Run and measure."""
    wall, processor = monotonic(), thread_s()
    texts = run()
    return Timed(monotonic() - wall, thread_s() - processor, texts)


def run_ours(model: VllmModel, requests: Sequence[Request]) -> Texts:
    """One call of `generate`."""
    keep_statistics(model.engine, True)
    rows = model.generate(requests, Deadline(None))
    return {(row.problem_id, row.sample_index): (row.completion_tokens, row.text) for row in rows}


def run_theirs(llm: Any, model: VllmModel, requests: Sequence[Request]) -> Texts:
    """One call of `LLM.generate`, prompts tokenised within it."""
    from vllm import SamplingParams

    keep_statistics(model.engine, False)
    asked = [
        SamplingParams(
            temperature=one.sampling.temperature,
            seed=one.seed,
            max_tokens=one.sampling.max_tokens,
            stop_token_ids=sorted(model.endings.ends),
            ignore_eos=True,
            logprobs=0 if model.logprobs else None,
        )
        for one in requests
    ]
    prompts = [one.prompt for one in requests]
    outputs = llm.generate(prompts, asked, use_tqdm=False)
    return {
        (one.problem_id, one.sample_index): (len(output.outputs[0].token_ids), output.outputs[0].text)
        for one, output in zip(requests, outputs, strict=True)
    }


def keep_statistics(engine: Any, wanted: bool) -> None:
    """Switch vLLM's statistics on or off, as they are by default for each of the two."""
    engine.log_stats = engine.output_processor.log_stats = wanted
    engine.engine_core.engine_core.scheduler.log_stats = wanted


def report(options: argparse.Namespace, rounds: Sequence[Round]) -> None:
    """The medians, and the JSON document."""
    tokens = sum(count for count, _ in rounds[0][0].texts.values())
    wall = statistics.median(ours.wall_s / theirs.wall_s - 1 for ours, theirs in rounds)
    processor = statistics.median(ours.processor_s / theirs.processor_s - 1 for ours, theirs in rounds)
    rates = [tokens / statistics.median(pair[place].wall_s for pair in rounds) for place in (0, 1)]
    print(f"{tokens} tokens: ours {rates[0]:,.0f} tok/s, LLM.generate {rates[1]:,.0f} tok/s")
    print(f"our loop costs {wall:+.2%} in seconds, {processor:+.2%} in processor seconds")
    measured = {"tokens": tokens, "ours_tok_s": rates[0], "theirs_tok_s": rates[1], "cost": wall}
    print(json.dumps({**vars(options), **measured, "processor_cost": processor}))


if __name__ == "__main__":
    main()
