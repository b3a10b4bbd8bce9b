"""A decode loop over a Hugging Face causal language model in which every row's finish time is its own.

Rows are served in batches. A batch is prefilled once per distinct prompt and its cache is fanned out to the samples;
then each step draws one token for every row, finished rows are yielded and leave the batch, and the deadline is polled.
No Python runs per row and step: a row is touched when it starts, when it may have ended, and when it leaves.

Attention models read different prompts side by side, padded on the left. A model that also keeps a recurrent state is
given no padding, so only prompts of equal token length share a batch. The next batch starts when the current one is
done; batches are begun in the order of the requests.
"""

import inspect
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.budgets import Clock, Deadline
from harness.nouns import Completion, Facts, FinishReason, Prompt, Request

from . import text
from .endings import Endings
from .flight import Flight, integers, pad_left, take_off
from .flops import count_flops
from .kv_buffer import new_cache
from .rows import Row, failed, identity, new_row, refused
from .sampling import check_sampling

BatchKey = tuple[float, int, float, int | None]
Queue = deque[tuple[int, Row]]


class StepwiseModel:
    """A `harness.nouns.Model` around a loaded causal LM and its tokenizer.

    Args:
        name: what the user calls the checkpoint.
        model: a transformers causal LM in evaluation mode on its device.
        tokenizer: its tokenizer.
        max_batch_size: rows in flight at most; halved whenever the device runs out of memory.
        facts: what the loader knows for the manifest; the loop's own facts are added.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, max_batch_size: int, facts: Facts) -> None:
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.max_batch_size = max_batch_size
        self.out_of_memory = 0
        self.loader_facts = facts
        self.config = model.config.get_text_config()
        self.context: int | None = getattr(self.config, "max_position_embeddings", None)
        self.device: torch.device = model.device
        self.accepts = frozenset(inspect.signature(model.forward).parameters)
        # A recurrent layer's cache holds a state of fixed size; padding would flow through it.
        self.recurrent = any(hasattr(layer, "conv_states") for layer in new_cache(self.config).layers)
        self.flops = count_flops(model)
        self.vocab_size: int = model.get_output_embeddings().weight.shape[0]
        self.endings = Endings(tokenizer, end_tokens(model, tokenizer), self.vocab_size, self.device)

    @property
    def facts(self) -> Facts:
        """What the manifest records of this engine."""
        return {
            **self.loader_facts,
            "max_batch_size": self.max_batch_size,
            "out_of_memory": self.out_of_memory,
            "vocab_size": self.vocab_size,
            "end_tokens": sorted(self.endings.ends),
            "chat_template": bool(self.tokenizer.chat_template),
            "prefix_sharing": "k samples of a problem share one prefill",
            "batching": "equal prompt lengths" if self.recurrent else "left-padded",
            "sampler": "inverse CDF, one SplitMix64 stream per completion, top-p within top-k",
        }

    def render(self, prompt: Prompt) -> str:
        """The exact text that the model reads."""
        return text.render(self.tokenizer, prompt)

    def close(self) -> None:
        """Free the model's memory; the engine cannot be used afterwards."""
        self.model = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def generate(self, requests: Sequence[Request], deadline: Deadline) -> Iterator[Completion]:
        """Yield each completion when it finishes; see `harness.nouns.Model`.

        `completion_tokens` and `logprob` include the end token. Work that a lack of memory undid is charged to the
        deadline and to no completion. Raises UserError for sampling settings that mean nothing.
        """
        submitted_s = deadline.elapsed_s
        for sampling in {request.sampling for request in requests}:
            check_sampling(sampling)
        return self.serve(requests, submitted_s, deadline)

    def serve(self, requests: Sequence[Request], submitted_s: float, deadline: Deadline) -> Iterator[Completion]:
        """Run batch after batch until nothing waits or the deadline has passed."""
        encoded: dict[Prompt, tuple[int, ...]] = {}
        waiting: dict[BatchKey, Queue] = {}
        for number, request in enumerate(requests):
            if request.prompt not in encoded:
                if deadline.expired:
                    return
                encoded[request.prompt] = text.encode(self.tokenizer, request.prompt)
            row = new_row(request, encoded[request.prompt], self.context, submitted_s)
            if row.limit < 1:
                yield refused(row, self.context, deadline)
            else:
                waiting.setdefault(self.batch_key(row), deque()).append((number, row))
        while waiting and not deadline.expired:
            key = min(waiting, key=lambda key: waiting[key][0][0])
            yield from self.serve_batch(waiting[key], deadline)
            if not waiting[key]:
                del waiting[key]

    def serve_batch(self, queue: Queue, deadline: Deadline) -> Iterator[Completion]:
        """Run the first rows of a queue; rows that a lack of memory drives out go back to its head."""
        batch = [queue.popleft() for _ in range(min(len(queue), self.max_batch_size))]
        rows = [row for _, row in batch]
        try:
            yield from self.fly(rows, deadline)
        except torch.OutOfMemoryError:
            self.out_of_memory += 1
        if rows:
            # Outside the handler, whose traceback would keep the dead batch's tensors.
            yield from self.shrink(rows, deadline)
            unfinished = {id(row) for row in rows}
            queue.extendleft(pair for pair in reversed(batch) if id(pair[1]) in unfinished)

    def batch_key(self, row: Row) -> BatchKey:
        """Rows with equal keys may share a batch: one sampler, and no padding for a recurrent model."""
        sampling = row.request.sampling
        length = len(row.prompt_ids) if self.recurrent else None
        return sampling.temperature, sampling.top_k, sampling.top_p, length

    def fly(self, rows: list[Row], deadline: Deadline) -> Iterator[Completion]:
        """Decode one batch to its end; `rows` loses each row once it is yielded."""
        flight = self.prefill(rows, deadline)
        while rows:
            self.synchronize()
            if deadline.expired:
                cut = self.cut(flight, deadline.elapsed_s)
                rows.clear()
                yield from cut
                return
            ended = self.draw(flight, deadline)
            # Before any is handed over: what is done with one must not make the next one late.
            done = [self.completion(flight, place, reason, deadline.now) for place, reason in ended.items()]
            yield from done
            if ended:
                flight.drop(set(ended))
            if rows:
                self.decode(flight, deadline)

    def synchronize(self) -> None:
        """Wait for the device, so that the clock is read after the work that was handed to it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.inference_mode()
    def prefill(self, rows: list[Row], deadline: Deadline) -> Flight:
        """Read every distinct prompt once and give each row its copy of the state."""
        started_s = deadline.elapsed_s
        sharing: dict[tuple[int, ...], list[Row]] = {}
        for row in rows:
            row.started_s = started_s
            sharing.setdefault(row.prompt_ids, []).append(row)
        ids, mask = pad_left(list(sharing), self.device)
        cache = new_cache(self.config)
        logits = self.forward(ids, None if bool(mask.all()) else mask, (mask.cumsum(-1) - 1).clamp_min(0), cache)
        for prompt_ids, sharers in sharing.items():
            flops = self.flops.prefill(len(prompt_ids))
            deadline.charge(flops=flops)
            for row in sharers:
                row.prefill_flops = flops / len(sharers)
        order = {prompt_ids: place for place, prompt_ids in enumerate(sharing)}
        fan_out = integers((order[row.prompt_ids] for row in rows), self.device)
        if len(sharing) < len(rows):
            cache.reorder_cache(fan_out)
        enders = [self.endings.may_complete(row.request.sampling.stop) for row in rows]
        return take_off(rows, cache, logits[fan_out], mask[fan_out], enders)

    @torch.inference_mode()
    def decode(self, flight: Flight, deadline: Deadline) -> None:
        """Feed every row's last token and keep the logits of its next one."""
        ids, mask, positions = flight.next_inputs()
        flight.logits = self.forward(ids, mask, positions, flight.cache)
        deadline.charge(flops=self.flops.decode(len(flight.rows), flight.contexts()))

    def forward(self, ids: Tensor, mask: Tensor | None, positions: Tensor, cache: Any) -> Tensor:
        """Logits of the last position, (B, V), for ids (B, L); the cache grows by L."""
        arguments: dict[str, Any] = {"input_ids": ids, "use_cache": True}
        arguments["cache_params" if "cache_params" in self.accepts else "past_key_values"] = cache
        if mask is not None:
            arguments["attention_mask"] = mask
        if "position_ids" in self.accepts:
            # Not left to the model: a hybrid whose first layer is recurrent takes every step for position 0.
            arguments["position_ids"] = positions
        if "logits_to_keep" in self.accepts:
            arguments["logits_to_keep"] = 1
        logits: Tensor = self.model(**arguments).logits[:, -1]
        return logits

    def draw(self, flight: Flight, deadline: Deadline) -> dict[int, FinishReason]:
        """Draw every row's next token; the places of the rows that ended with it, and why."""
        suspects = flight.draw(self.endings.is_end)
        deadline.charge(tokens=len(flight.rows))
        if flight.step == 1:
            first_token_s = deadline.elapsed_s
            for row in flight.rows:
                row.first_token_s = first_token_s
        return {place: reason for place in suspects if (reason := self.reason(flight, place))}

    def reason(self, flight: Flight, place: int) -> FinishReason | None:
        """Why a row ended with its last token, or None when it goes on."""
        row = flight.rows[place]
        return self.endings.reason(flight.generated(place), row.request.sampling.stop, row.limit)

    def cut(self, flight: Flight, stopped_s: float) -> list[Completion]:
        """What flies, as it is."""
        return [self.completion(flight, place, "deadline", lambda: stopped_s) for place in range(len(flight.rows))]

    def completion(self, flight: Flight, place: int, reason: FinishReason, clock: Clock) -> Completion:
        """The finished or cut row; the scope's clock is read when the text is there."""
        row, ids = flight.rows[place], flight.generated(place)
        logprob: float = flight.logprobs[place].item()
        found = Completion(
            **identity(row),
            text=self.endings.shown(ids, row.request.sampling.stop, cut=reason != "stop"),
            finish_reason=reason,
            completion_tokens=len(ids),
            started_s=row.started_s,
            first_token_s=row.first_token_s,
            finished_s=clock(),
            batch_size=flight.batch_size,
            prefill_flops=row.prefill_flops,
            decode_flops=self.flops.decode_row(len(row.prompt_ids), flight.passes),
            logprob=logprob,
        )
        if math.isnan(logprob):
            return replace(found, finish_reason="error", error="the model's logits were not finite", logprob=None)
        return found

    def shrink(self, rows: list[Row], deadline: Deadline) -> Iterator[Completion]:
        """After a lack of memory: halve the batch, or give up on a row that does not fit alone."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(rows) == 1:
            yield failed(rows.pop(), "the device ran out of memory with this completion alone", deadline)
        else:
            self.max_batch_size = min(self.max_batch_size, len(rows)) // 2


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The token ids that end a completion: those of the generation config and the tokenizer's own."""
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)
