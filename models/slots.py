"""The rows in flight of the native engine: one slot each in tensors that were allocated beforehand.

Slots 0 to count - 1 are in flight and the rest are free: when rows leave, the last ones move into their places. A row
enters with its prompt's state, takes one token per `advance`, and leaves with what it wrote. Knows tensors and a model;
knows neither requests nor text nor clocks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.nouns import Sampling

from .architectures.causal_lm import CausalLM
from .architectures.passes import LayerState
from .decode_graphs import WARM_UP_PASSES, DecodeGraphs, Record
from .sampling import draw, uniforms


class Slots:
    """Memory for `capacity` rows of at most `columns` tokens, prompt included, of which at most `limit` are generated.

    Args:
        model: whose states are kept.
        capacity: rows.
        columns: tokens per row.
        limit: generated tokens per row.
        state_dtype: of the recurrent states.
        is_end: (V,) bool, the tokens that end a text.
        record: how passes are recorded, see `decode_graphs`; None runs every pass as it is.
    """

    def __init__(
        self,
        model: CausalLM,
        capacity: int,
        columns: int,
        limit: int,
        state_dtype: torch.dtype,
        is_end: Tensor,
        record: Record | None = None,
    ) -> None:
        device = is_end.device
        self.model, self.capacity, self.columns, self.limit = model, capacity, columns, limit
        self.is_end = is_end
        self.states = model.empty_states(capacity, columns, state_dtype)
        self.grows = [mixer.attention_width > 0 for mixer in model.mixers]
        self.tokens = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.positions = torch.zeros_like(self.tokens)
        self.steps = torch.zeros_like(self.tokens)
        self.limits = torch.zeros_like(self.tokens)
        self.stop_class = torch.zeros_like(self.tokens)
        self.logprobs = torch.zeros(capacity, dtype=torch.float64, device=device)
        steps = max(limit, WARM_UP_PASSES + 1)
        self.variates = torch.zeros(capacity, steps, dtype=torch.float64, device=device)
        self.written = torch.zeros(capacity, steps, dtype=torch.int64, device=device)
        self.rows = torch.arange(capacity, device=device)
        self.ended = torch.zeros(capacity, dtype=torch.bool, device=device)
        self.count = 0
        self.passes = 0
        """Decode passes so far."""
        self.offsets: list[int] = []
        """For each row in flight, its position less `passes`: the same for all its life."""
        self.prompts: list[int] = []
        """For each row in flight, the number of its prompt."""
        self.leaders = torch.zeros_like(self.tokens)
        """The first slot in flight that has the same prompt, and in `shared` the length of that prompt."""
        self.shared = torch.zeros_like(self.tokens)
        self.stop_ends: Tensor | None = None
        """(stop classes, V) bool, whether a token may complete a stop string; None where there are none."""
        self.graphs = DecodeGraphs(self, record) if record else None

    def fits(self, capacity: int, columns: int, limit: int, most: int) -> bool:
        """Whether there is room for `capacity` rows of such a size, and not for more than `most`."""
        return capacity <= self.capacity <= most and self.columns >= columns and self.limit >= limit

    def prepare(self, sampling: Sampling, stop_ends: Tensor | None) -> None:
        """Make every slot free and get ready for rows of one sampler with these stop conditions."""
        self.count = 0
        self.offsets.clear()
        self.prompts.clear()
        if stop_ends is not None and self.stop_ends is not None and stop_ends.shape == self.stop_ends.shape:
            self.stop_ends.copy_(stop_ends)
        elif stop_ends is not None or self.stop_ends is not None:
            self.stop_ends = stop_ends
            self.graphs = DecodeGraphs(self, self.graphs.record) if self.graphs else None
        if self.graphs:
            self.graphs.prepare(sampling)

    @torch.inference_mode()
    def restart(self, first: int) -> None:
        """Set the slots from `first` on back to the start of an empty text."""
        self.positions[first:] = 0
        self.steps[first:] = 0

    @torch.inference_mode()
    def enter(
        self,
        states: Sequence[LayerState],
        sources: Sequence[int],
        prompts: Sequence[int],
        lengths: Sequence[int],
        seeds: Sequence[int],
        limits: Sequence[int],
        stop_class: Sequence[int],
    ) -> slice:
        """Take n rows in, behind those in flight.

        Args:
            states: of the prompts, as `CausalLM.prefill` gives them.
            sources: which prompt each row has.
            prompts: a number for each row's prompt, equal where the prompts are.
            lengths: prompt lengths in tokens.
            seeds: of the rows' random streams.
            limits: tokens that each may generate.
            stop_class: which row of `stop_ends` is each row's.

        Returns:
            The slots they have; their first tokens are still to be drawn.
        """
        new = slice(self.count, self.count + len(lengths))
        numbers = torch.tensor([sources, lengths, seeds, limits, stop_class], device=self.rows.device)
        for buffers, state in zip(self.states, states, strict=True):
            for buffer, tensor in zip(buffers, state, strict=True):
                buffer[new, :, : tensor.shape[2]] = tensor[numbers[0]]
        self.positions[new], self.limits[new], self.stop_class[new] = numbers[1], numbers[3], numbers[4]
        self.steps[new] = 0
        self.logprobs[new] = 0
        self.variates[new] = uniforms(
            numbers[2][:, None], torch.arange(self.variates.shape[1], device=self.rows.device)
        )
        self.offsets += [length - self.passes for length in lengths]
        self.prompts += prompts
        self.shared[new] = numbers[1]
        self.count = new.stop
        self.follow()
        self.restart(self.count)
        return new

    def follow(self) -> None:
        """Name the leader of every row in flight."""
        first: dict[int, int] = {}
        leaders = [first.setdefault(prompt, place) for place, prompt in enumerate(self.prompts)]
        self.leaders[: self.count] = torch.tensor(leaders, dtype=torch.int64, device=self.rows.device)

    def contexts(self) -> int:
        """Context lengths of the next pass, its own token included, summed over the rows."""
        return sum(self.offsets) + self.count * (self.passes + 1)

    @torch.inference_mode()
    def advance(self, sampling: Sampling) -> list[int]:
        """Give every row its next token; the places of the rows that may have ended with it."""
        if self.graphs:
            self.graphs.replay(self.count, sampling)
        else:
            self.take_pass(self.count, sampling)
        self.passes += 1
        return self.ended_places(slice(0, self.count))

    def take_pass(self, rows: int, sampling: Sampling) -> None:
        """Feed the last tokens of the first `rows` slots and draw their next ones; touches nothing but tensors."""
        here = slice(0, rows)
        states = [tuple(buffer[here] for buffer in buffers) for buffers in self.states]
        furthest, nearest = max(self.offsets, default=0), min(self.offsets, default=0)
        columns = furthest + self.passes + 1
        sharing = self.leaders[here], self.shared[here]
        logits = self.model.step(
            self.tokens[here], self.positions[here], states, columns, ragged=furthest > nearest, sharing=sharing
        )
        self.positions[here] += 1
        self.draw(here, logits, sampling)

    @torch.inference_mode()
    def draw(self, here: slice, logits: Tensor, sampling: Sampling) -> None:
        """Draw one token for every row of a stretch of n slots from logits (n, V)."""
        rows, steps = self.rows[here], self.steps[here]
        tokens, logprobs = draw(logits, sampling, self.variates[rows, steps])
        self.written[rows, steps] = tokens
        self.tokens[here] = tokens
        self.logprobs[here] += logprobs
        steps += 1
        ended = self.is_end[tokens] | (steps >= self.limits[here])
        if self.stop_ends is not None:
            ended |= self.stop_ends[self.stop_class[here], tokens]
        self.ended[here] = ended

    def ended_places(self, here: slice) -> list[int]:
        """The rows of a stretch that may have ended: at an end token, at their limit, or perhaps at a stop string."""
        places: list[int] = self.ended[here].nonzero().flatten().tolist()
        return [here.start + place for place in places]

    @torch.inference_mode()
    def leave(self, places: Sequence[int]) -> list[tuple[int, int]]:
        """Free some slots; the moves (from, to) that close the gaps, which the caller repeats for what it keeps."""
        gone = set(places)
        left = self.count - len(gone)
        movers = [place for place in range(left, self.count) if place not in gone]
        moves = list(zip(movers, sorted(place for place in gone if place < left), strict=True))
        if moves:
            self.move(moves)
        for source, target in moves:
            self.offsets[target], self.prompts[target] = self.offsets[source], self.prompts[source]
        del self.offsets[left:], self.prompts[left:]
        self.count = left
        self.follow()
        self.restart(left)
        return moves

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy whole rows from slot to slot; no slot is both a source and a target."""
        sources, targets = torch.tensor(moves, device=self.rows.device).unbind(1)
        used = max(self.offsets) + self.passes
        for buffers, grows in zip(self.states, self.grows, strict=True):
            for buffer in buffers:
                filled = buffer[:, :, :used] if grows else buffer
                filled[targets] = filled[sources]
        for name in (
            "tokens",
            "positions",
            "steps",
            "limits",
            "stop_class",
            "shared",
            "logprobs",
            "variates",
            "written",
        ):
            tensor = getattr(self, name)
            tensor[targets] = tensor[sources]

    def generated(self, place: int, count: int) -> list[int]:
        """The first `count` tokens that a row has generated."""
        ids: list[int] = self.written[place, :count].tolist()
        return ids
