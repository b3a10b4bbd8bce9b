"""Rows in slots: a model that writes down what it is fed, driven through any schedule, and real ones through one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import tiny_students
import torch
from engine_checks import Recorder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_students import STUDENTS
from torch import Tensor

from harness.models.decode_graphs import WARM_UP_PASSES, buckets
from harness.models.native import load_model
from harness.models.slots import Slots
from harness.nouns import Sampling

VOCAB, CAPACITY, COLUMNS, LIMIT, TAPS = 23, 5, 40, 9, 4
PRIME = 10_007
GREEDY, UNIFORM = Sampling(temperature=0), Sampling(temperature=1.0)
IS_END = torch.arange(VOCAB) % 11 == 5
STOP_ENDS = torch.stack([torch.zeros(VOCAB, dtype=torch.bool), torch.arange(VOCAB) % 7 == 3])
PADDING = 99


def mixed(number: int, token: int, position: int) -> int:
    """A running number that tells every history from every other, very nearly."""
    return (31 * number + 7 * token + position + 1) % PRIME


def likeliest(number: int) -> int:
    return number % VOCAB


class Notebook:
    """A model of an attention layer that keeps its tokens, and a recurrent one of a window and a running number.

    Its fresh memory is not finite. Greedily it writes what its number says; its logits are equal otherwise.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.mixers = [SimpleNamespace(attention_width=8), SimpleNamespace(attention_width=0)]
        self.calls: list[tuple[int, int, bool]] = []
        """Rows, columns and raggedness of every pass."""
        self.leaders: list[int] = []
        self.shared: list[int] = []
        """Of the last pass, for each row another one that begins alike, and for how many tokens."""

    def empty_states(self, slots: int, columns: int, state_dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
        shapes = [((slots, 2, columns, 1), (slots, 1, columns, 3)), ((slots, TAPS, 2), (slots, 1, 1))]
        return [tuple(torch.full(shape, math.nan, dtype=torch.float64) for shape in layer) for layer in shapes]

    def step(
        self,
        token_ids: Tensor,
        positions: Tensor,
        states: Any,
        columns: int,
        ragged: bool,
        sharing: tuple[Tensor, Tensor],
    ) -> Tensor:
        self.calls.append((len(token_ids), columns, ragged))
        self.leaders, self.shared = (numbers.tolist() for numbers in sharing)
        rows = torch.arange(len(token_ids))
        (keys, values), (window, number) = states
        keys[rows, :, positions] = token_ids[:, None, None].double()
        values[rows, :, positions] = -token_ids[:, None, None].double()
        window[:, :-1] = window[:, 1:].clone()
        window[:, -1] = token_ids[:, None].double()
        mixed_up = 31 * number[:, 0, 0] + 7 * token_ids + positions + 1
        number[:, 0, 0] = mixed_up.remainder(PRIME)
        return self.logits(number[:, 0, 0])

    def logits(self, numbers: Tensor) -> Tensor:
        logits = torch.zeros(len(numbers), VOCAB)
        if self.sampling is GREEDY:
            known = numbers.nan_to_num().long()
            logits[torch.arange(len(numbers)), known % VOCAB] = 1.0
        return logits

    def read(self, prompts: Sequence[Sequence[int]]) -> tuple[list[tuple[Tensor, ...]], Tensor]:
        """States of prompts, padded on the right with something else, and logits."""
        longest, rows = max(map(len, prompts)), len(prompts)
        padded = torch.tensor([[*prompt, *[PADDING] * (longest - len(prompt))] for prompt in prompts]).double()
        keys, values = padded[:, None, :, None].expand(-1, 2, -1, 1), -padded[:, None, :, None].expand(-1, 1, -1, 3)
        windows = torch.stack([torch.tensor(([0] * TAPS + list(prompt))[-TAPS:]) for prompt in prompts]).double()
        numbers = torch.tensor([float(numbered(prompt)) for prompt in prompts], dtype=torch.float64)
        recurrent = (windows[..., None].expand(-1, -1, 2), numbers.reshape(rows, 1, 1))
        return [(keys, values), recurrent], self.logits(numbers)


def numbered(tokens: Sequence[int]) -> int:
    number = 0
    for position, token in enumerate(tokens):
        number = mixed(number, token, position)
    return number


def variate(seed: int, step: int) -> float:
    """SplitMix64's output number `step` as 52 bits behind the point, in exact integers."""
    mask = (1 << 64) - 1
    bits = (seed + (step + 1) * 0x9E3779B97F4A7C15) & mask
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & mask
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & mask
    return ((bits ^ (bits >> 31)) >> 12) / 2**52


@dataclass
class Expected:
    """What a row in flight must be, told by its prompt, seed and limits alone."""

    sampling: Sampling
    prompt: list[int]
    seed: int
    limit: int
    stop_class: int
    written: list[int] = field(default_factory=list)

    @property
    def fed(self) -> list[int]:
        return (self.prompt + self.written)[:-1] if self.written else self.prompt

    def draw(self) -> None:
        self.written.append(
            likeliest(numbered(self.prompt + self.written))
            if self.sampling is GREEDY
            else int(variate(self.seed, len(self.written)) * VOCAB)
        )

    @property
    def may_have_ended(self) -> bool:
        last = self.written[-1]
        return bool(IS_END[last] or STOP_ENDS[self.stop_class, last]) or len(self.written) >= self.limit


class Schedule:
    """Slots and, beside them, what each of its rows must be."""

    def __init__(self, sampling: Sampling, is_recorded: bool) -> None:
        self.sampling, self.model = sampling, Notebook(sampling)
        self.is_recorded = is_recorded
        model: Any = self.model
        record = Recorder() if is_recorded else None
        self.slots = Slots(model, CAPACITY, COLUMNS, LIMIT, torch.float64, IS_END, record)
        self.slots.prepare(sampling, STOP_ENDS.clone())
        self.rows: list[Expected] = []
        self.seeds = iter(range(2**62, 2**63, 7919))

    def enter(self, prompts: list[list[int]], sources: list[int], limits: list[int]) -> None:
        new = [
            Expected(self.sampling, prompts[source], next(self.seeds), limit, (source + limit) % 2)
            for source, limit in zip(sources, limits, strict=True)
        ]
        states, logits = self.model.read(prompts)
        here = self.slots.enter(
            states,
            sources,
            [hash(tuple(row.prompt)) % 2**31 for row in new],
            [len(row.prompt) for row in new],
            [row.seed for row in new],
            [row.limit for row in new],
            [row.stop_class for row in new],
        )
        assert here == slice(len(self.rows), len(self.rows) + len(new))
        self.rows += new
        self.check()
        self.slots.draw(here, logits[sources], self.sampling)
        self.drawn(self.slots.ended_places(here), new, here.start)

    def advance(self) -> None:
        self.model.calls.clear()
        positions = [len(row.prompt) + len(row.written) - 1 for row in self.rows]
        assert self.slots.contexts() == sum(positions) + len(positions)
        places = self.slots.advance(self.sampling)
        rows = min(size for size in buckets(CAPACITY) if size >= len(self.rows)) if self.is_recorded else len(self.rows)
        assert self.model.calls == [(rows, max(positions) + 1, min(positions) < max(positions))]
        prompts = [row.prompt for row in self.rows]
        assert self.model.leaders[: len(prompts)] == [prompts.index(prompt) for prompt in prompts]
        assert self.model.shared[: len(prompts)] == [len(prompt) for prompt in prompts]
        assert max(self.model.leaders) < rows
        self.drawn(places, self.rows, 0)

    def drawn(self, places: list[int], rows: list[Expected], start: int) -> None:
        for row in rows:
            row.draw()
        assert places == [start + number for number, row in enumerate(rows) if row.may_have_ended]
        self.check()

    def leave(self, places: list[int]) -> None:
        gone = [self.rows[place] for place in places]
        staying = [row for row in self.rows if not any(row is one for one in gone)]
        for source, target in self.slots.leave(places):
            self.rows[target] = self.rows[source]
        del self.rows[self.slots.count :]
        assert sorted(map(id, self.rows)) == sorted(map(id, staying))
        self.check()

    def check(self) -> None:
        """Every row has its own past and nothing of another's."""
        assert self.slots.count == len(self.rows)
        (keys, values), (window, number) = self.slots.states
        for place, row in enumerate(self.rows):
            fed = torch.tensor(row.fed).double()
            assert int(self.slots.positions[place]) == len(fed)
            leader, shared = int(self.slots.leaders[place]), int(self.slots.shared[place])
            assert self.rows[leader].prompt == row.prompt
            assert leader == min(number for number, one in enumerate(self.rows) if one.prompt == row.prompt)
            assert shared == len(row.prompt)
            assert torch.equal(keys[place, :, : len(fed), 0], fed.expand(2, -1))
            assert torch.equal(values[place, 0, : len(fed)], -fed[:, None].expand(-1, 3))
            assert torch.equal(window[place, :, 1], torch.tensor(([0] * TAPS + row.fed)[-TAPS:]).double())
            assert int(number[place]) == numbered(row.fed)
            assert self.slots.generated(place, len(row.written)) == row.written
            logprob = 0.0 if self.sampling is GREEDY else -len(row.written) * math.log(VOCAB)
            assert float(self.slots.logprobs[place]) == pytest.approx(logprob, abs=1e-6)


prompt_lists = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=20), min_size=1, max_size=3)


@pytest.mark.parametrize("is_recorded", [False, True], ids=["plain", "recorded"])
@pytest.mark.parametrize("sampling", [GREEDY, UNIFORM], ids=["greedy", "uniform"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_rows_keep_what_is_theirs_through_any_schedule(
    sampling: Sampling, is_recorded: bool, data: st.DataObject
) -> None:
    schedule = Schedule(sampling, is_recorded)
    for _ in range(data.draw(st.integers(3, 25), label="operations")):
        free = CAPACITY - len(schedule.rows)
        if free and (not schedule.rows or data.draw(st.integers(0, 2), label="enter") == 0):
            prompts = data.draw(prompt_lists, label="prompts")
            samples = data.draw(st.integers(1, free), label="samples")
            sources = data.draw(st.lists(st.integers(0, len(prompts) - 1), min_size=samples, max_size=samples))
            limits = data.draw(st.lists(st.integers(1, LIMIT), min_size=samples, max_size=samples), label="limits")
            schedule.enter(prompts, sources, limits)
        else:
            schedule.advance()
        over = [place for place, row in enumerate(schedule.rows) if len(row.written) >= row.limit]
        others = [place for place in range(len(schedule.rows)) if place not in over]
        if data.draw(st.booleans(), label="some leave") and others:
            over += data.draw(st.lists(st.sampled_from(others), unique=True), label="leaving")
        if over:
            schedule.leave(data.draw(st.permutations(over)))


@pytest.mark.parametrize("is_recorded", [False, True], ids=["plain", "recorded"])
def test_slots_are_emptied_for_the_next_batch(is_recorded: bool) -> None:
    schedule = Schedule(GREEDY, is_recorded)
    schedule.enter([[1, 2, 3], [4] * 20], [0, 1, 0], [9, 9, 9])
    schedule.advance()
    schedule.slots.prepare(GREEDY, STOP_ENDS.clone())
    schedule.rows = []
    schedule.check()
    schedule.enter([[5], [6, 7]], [1, 0], [9, 9])
    schedule.advance()


def test_stop_conditions_are_those_of_the_batch() -> None:
    schedule = Schedule(UNIFORM, is_recorded=True)
    everything, nothing = torch.ones_like(STOP_ENDS), torch.zeros_like(STOP_ENDS)
    for stop_ends, ended in ((everything, [0, 1]), (nothing, []), (None, []), (everything[:1], [0, 1])):
        schedule.slots.prepare(UNIFORM, stop_ends)
        states, logits = schedule.model.read([[1, 2]])
        here = schedule.slots.enter(states, [0, 0], [7, 7], [2, 2], [3, 4], [9, 9], [0, 0])
        schedule.slots.draw(here, logits.expand(2, -1), UNIFORM)  # of seeds whose first tokens end no text
        assert schedule.slots.ended_places(here) == ended


def test_a_recorded_pass_is_recorded_once_for_each_size_and_sampler() -> None:
    record = Recorder()
    model: Any = Notebook(GREEDY)
    slots = Slots(model, 6, COLUMNS, LIMIT, torch.float64, IS_END, record)
    for sampling in (GREEDY, UNIFORM, GREEDY, UNIFORM):
        slots.prepare(sampling, None)
    assert buckets(6) == [1, 2, 4, 6]
    assert record.count == 2 * 4
    assert [rows for rows, _, _ in model.calls[::WARM_UP_PASSES]] == [6, 4, 2, 1] * 2


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_texts_may_be_shorter_than_the_warm_up_of_a_recording(limit: int) -> None:
    model: Any = Notebook(GREEDY)
    slots = Slots(model, 2, COLUMNS, limit, torch.float64, IS_END, Recorder())
    slots.prepare(GREEDY, None)


@pytest.mark.parametrize(
    ("capacity", "columns", "limit", "most", "fits"),
    [
        (CAPACITY, COLUMNS, LIMIT, CAPACITY, True),
        (1, 1, 1, 100, True),
        (CAPACITY + 1, COLUMNS, LIMIT, 100, False),
        (1, COLUMNS + 1, LIMIT, 100, False),
        (1, COLUMNS, LIMIT + 1, 100, False),
        (1, COLUMNS, LIMIT, CAPACITY - 1, False),
    ],
)
def test_slots_say_what_fits(capacity: int, columns: int, limit: int, most: int, fits: bool) -> None:
    assert Schedule(GREEDY, False).slots.fits(capacity, columns, limit, most) is fits


# Real models


FAMILIES = ("llama", "mamba2", "llamba", "mamba-in-llama", "mamba-in-llama mamba2", "phi-mamba hybrid")
PROMPTS = [[5, 6, 7], list(range(10, 40)), [200]]


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_the_states_of_a_row_are_those_it_has_alone(name: str, tmp_path: Path) -> None:
    model = load_model(tiny_students.save(STUDENTS[name](), tmp_path))
    limit, is_end = 12, torch.zeros(model.head.weight.shape[0], dtype=torch.bool)

    def enter(slots: Slots, rows: Sequence[tuple[int, int]]) -> None:
        """Prompts by number, and seeds."""
        prompts = [torch.tensor(PROMPTS[number]) for number, _ in rows]
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        padded = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True, padding_value=tiny.END)
        logits, states = model.prefill(padded, lengths)
        numbers, seeds = zip(*rows, strict=True)
        here = slots.enter(
            states, range(len(rows)), numbers, lengths.tolist(), seeds, [limit] * len(rows), [0] * len(rows)
        )
        slots.draw(here, logits, UNIFORM)

    def states_alone(row: tuple[int, int], passes: int) -> tuple[list[int], list[tuple[Tensor, ...]]]:
        alone = Slots(model, 1, 64, limit, torch.float32, is_end)
        alone.prepare(UNIFORM, None)
        enter(alone, [row])
        for _ in range(passes):
            alone.advance(UNIFORM)
        return alone.generated(0, passes + 1), alone.states

    def check(in_flight: Sequence[tuple[tuple[int, int], int]]) -> None:
        """Rows in flight and their passes, in the order of their slots."""
        assert slots.count == len(in_flight)
        for place, (row, passes) in enumerate(in_flight):
            written, expected = states_alone(row, passes)
            assert slots.generated(place, passes + 1) == written
            used = len(PROMPTS[row[0]]) + passes
            for mixer, layer, layer_alone in zip(model.mixers, slots.states, expected, strict=True):
                for tensor, tensor_alone in zip(layer, layer_alone, strict=True):
                    end = used if mixer.attention_width else tensor.shape[2]
                    torch.testing.assert_close(tensor[place, :, :end], tensor_alone[0, :, :end], atol=1e-4, rtol=1e-4)

    slots = Slots(model, 3, 64, limit, torch.float32, is_end)
    slots.prepare(UNIFORM, None)
    first, leader, third, follower = (0, 77), (1, 78), (2, 79), (1, 80)
    enter(slots, [first, leader, third])
    for _ in range(3):
        slots.advance(UNIFORM)
    check([(first, 3), (leader, 3), (third, 3)])
    before = [tuple(tensor[2].clone() for tensor in layer) for layer in slots.states]
    assert slots.leave([0]) == [(2, 0)]
    for mixer, layer, moved in zip(model.mixers, slots.states, before, strict=True):
        for tensor, old in zip(layer, moved, strict=True):
            end = len(PROMPTS[2]) + 3 if mixer.attention_width else tensor.shape[2]
            assert torch.equal(tensor[0, :, :end], old[:, :end])
    enter(slots, [follower])
    for _ in range(2):
        slots.advance(UNIFORM)
    check([(third, 5), (leader, 5), (follower, 2)])
    assert slots.leave([1, 0]) == [(2, 0)]
    slots.advance(UNIFORM)
    check([(follower, 3)])
