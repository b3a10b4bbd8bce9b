"""The engine `vllm` around a started vLLM: what it is asked for each row, the warm-up, the facts and the end."""

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch

from harness.budgets import Deadline
from harness.errors import UserError
from harness.models import text
from harness.models.checkpoints import Checkpoint
from harness.models.costs.shapes import checkpoint_shape
from harness.models.drafting import Drafting
from harness.models.endings import Endings
from harness.models.rows import Row, new_row, refused
from harness.models.sampling import check_sampling
from harness.nouns import Completion, Facts, Prompt, Request
from harness.running.drafts import Ask, Draft

from .facts import gather_facts
from .loop import StepLoop, Tally
from .settings import Settings
from .startup import shut_down, stdout_to_stderr

GREEDY_BELOW = 1e-5
"""Temperatures that vLLM takes for 0."""

HIGHEST_TEMPERATURE = 2.0

WARM_TOKENS = 3
"""Tokens that each row of the warm-up is given: a prompt, a first and a later decode step."""


class VllmModel:
    """A `harness.nouns.Model` around vLLM's engine in this process and a transformers tokenizer.

    Args:
        checkpoint: what the engine has loaded.
        engine: vLLM's `LLMEngine`.
        tokenizer: its tokenizer.
        ends: token ids that end a completion.
        settings: what the engine was started with.
        logprobs: whether the tokens' log-probabilities are summed.
        environment: the process's before the engine was started, given back when it ends.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        engine: Any,
        tokenizer: Any,
        ends: frozenset[int],
        settings: Settings,
        logprobs: bool,
        environment: Mapping[str, str],
    ) -> None:
        self.name, self.engine, self.tokenizer = checkpoint.name, engine, tokenizer
        self.settings, self.logprobs, self.environment = settings, logprobs, environment
        config = engine.vllm_config
        self.context: int = config.model_config.max_model_len
        self.room = 2 * config.scheduler_config.max_num_seqs
        self.endings = Endings(tokenizer, ends, config.model_config.get_vocab_size(), torch.device("cpu"))
        self.flops = checkpoint_shape(checkpoint).forward
        self.tally = Tally()
        self.names = itertools.count()

    @property
    def facts(self) -> Facts:
        """What the manifest records of this engine."""
        return {
            **gather_facts(self.engine.vllm_config, self.settings, self.tally),
            "logprobs": self.logprobs,
            "vocab_size": self.endings.vocab_size,
            "end_tokens": sorted(self.endings.ends),
            "chat_template": bool(self.tokenizer.chat_template),
        }

    def render(self, prompt: Prompt) -> str:
        """The exact text that the model reads."""
        return text.render(self.tokenizer, prompt)

    def close(self) -> None:
        """End vLLM and what processes it has; the engine cannot be used afterwards."""
        if self.engine is not None:
            engine, self.engine = self.engine, None
            shut_down(engine, self.environment)

    def prepare(self, calls: Sequence[Sequence[Request]]) -> None:
        """Run the largest of these calls for a few tokens, so that everything is compiled and allocated."""
        largest = max(calls, key=len, default=())
        rows = largest[: self.room // 2]
        brief = [replace(one, sampling=replace(one.sampling, max_tokens=WARM_TOKENS)) for one in rows]
        with stdout_to_stderr(), closing(self.generate(brief, Deadline(None))) as completions:  # type: ignore[type-var]
            for _ in completions:
                pass
        self.tally = Tally()

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        """Yield each completion when it finishes; see `harness.nouns.Model`.

        `completion_tokens` and `logprob` include the end token. What vLLM computes again after a lack of memory is
        charged to the deadline and to no completion. Raises UserError for sampling settings that mean nothing.
        """
        submitted_s = deadline.elapsed_s
        for sampling in {request.sampling for request in requests}:
            check_sampling(sampling)
            if sampling.temperature > HIGHEST_TEMPERATURE:
                raise UserError(
                    f"vLLM takes temperatures from 0 to {HIGHEST_TEMPERATURE:g}, got {sampling.temperature:g}"
                )
        return self.serve(requests, submitted_s, deadline)

    def serve(self, requests: Sequence[Request], submitted_s: float, deadline: Deadline) -> Iterator[Completion]:
        """Serve the requests as one queue; nothing of an earlier call is in vLLM's prefix cache."""
        self.forget()
        rows = []
        for row in self.rows(requests, submitted_s):
            if row.limit < 1:
                yield refused(row, self.context, deadline)
            else:
                rows.append(row)
        core = self.engine.engine_core
        loop = StepLoop(core, self.submit, self.endings, self.flops, self.room, self.names, self.tally)
        with closing(loop.run(rows, deadline)) as completions:  # type: ignore[type-var]
            for completion in completions:
                yield completion if self.logprobs else replace(completion, logprob=None)

    def forget(self) -> None:
        """Begin a new problem: nothing of the last one is in vLLM's prefix cache."""
        if self.settings.prefix_caching:
            self.engine.engine_core.reset_prefix_cache()

    def extend(self, waiting: deque[Ask], deadline: Deadline) -> Iterator[Draft]:
        """Go on with replies; see `harness.running.drafts`. With `prefix_caching` vLLM keeps what was read of them."""
        drafting = Drafting(waiting, self.tokenizer, self.endings.ends, self.context)
        while not deadline.expired:
            rows = drafting.take(deadline)
            yield from drafting.refused(deadline)
            if not rows:
                return
            check_sampling(rows[0].request.sampling)
            core = self.engine.engine_core
            loop = StepLoop(core, self.submit, self.endings, self.flops, self.room, self.names, self.tally, drafting)
            with closing(loop.run(rows, deadline)) as completions:  # type: ignore[type-var]
                for piece in completions:
                    yield drafting.draft(piece if self.logprobs else replace(piece, logprob=None))

    def rows(self, requests: Sequence[Request], submitted_s: float) -> list[Row]:
        """The requests with their token ids; a prompt is tokenised once."""
        encoded = {prompt: text.encode(self.tokenizer, prompt) for prompt in {one.prompt: None for one in requests}}
        return [new_row(request, encoded[request.prompt], self.context, submitted_s) for request in requests]

    def submit(self, name: str, row: Row) -> None:
        """Hand a row to vLLM. Raises ValueError when it refuses."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError

        sampling = row.request.sampling
        is_greedy = sampling.temperature < GREEDY_BELOW
        asked = SamplingParams(
            temperature=0.0 if is_greedy else sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=row.seed,
            max_tokens=row.limit,
            stop_token_ids=sorted(self.endings.ends),
            ignore_eos=True,  # the ends are all in stop_token_ids
            # A greedy token has all the mass of what it is drawn from.
            logprobs=0 if self.logprobs and not is_greedy else None,
            detokenize=False,
            skip_clone=True,
        )
        prompt = {"type": "token", "prompt_token_ids": list(row.prompt_ids)}
        try:
            request = self.engine.input_processor.process_inputs(
                name, prompt, asked, supported_tasks=("generate",), arrival_time=0.0
            )
        except VLLMClientError as error:
            raise ValueError(str(error)) from error
        self.engine.engine_core.add_request(request)
