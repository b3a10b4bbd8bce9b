import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from harness.errors import UserError
from harness.models.sampling import UNIFORM_BITS, check_sampling, draw, splitmix64, uniforms
from harness.nouns import Sampling

MASK = (1 << 64) - 1
# The first outputs of SplitMix64 seeded with 1234567, as published with the generator's other implementations.
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def sequential(seed: int, count: int) -> list[int]:
    """SplitMix64 as its authors wrote it: a state that is stepped, in exact integers."""
    outputs = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        bits = seed
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
        outputs.append(bits ^ (bits >> 31))
    return outputs


def warped(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Log-probabilities after the cuts of transformers' own generation."""
    ids = torch.zeros(len(logits), 1, dtype=torch.int64)
    logits = TemperatureLogitsWarper(sampling.temperature)(ids, logits)
    if sampling.top_k:
        logits = TopKLogitsWarper(sampling.top_k)(ids, logits)
    if sampling.top_p < 1:
        logits = TopPLogitsWarper(sampling.top_p)(ids, logits)
    return logits.double().log_softmax(-1)


CUTS = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.6),
    Sampling(temperature=1.5, top_k=5),
    Sampling(temperature=0.9, top_p=0.75),
    Sampling(temperature=1.2, top_k=7, top_p=0.8),
]


def test_streams_match_the_published_outputs() -> None:
    found = [int(splitmix64(torch.tensor([1234567]), step)) & MASK for step in range(5)]
    assert found == PUBLISHED


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5), st.integers(0, 40))
def test_any_step_of_any_stream_is_found_directly(seeds: list[int], step: int) -> None:
    expected = [sequential(seed, step + 1)[step] for seed in seeds]
    for steps in (step, torch.full((len(seeds),), step)):
        assert [value & MASK for value in splitmix64(torch.tensor(seeds), steps).tolist()] == expected


def test_uniforms_are_the_high_bits_below_one() -> None:
    found = torch.stack([uniforms(torch.tensor([1234567]), step) for step in range(5)])[:, 0]
    expected = [(value >> (64 - UNIFORM_BITS)) / 2**UNIFORM_BITS for value in PUBLISHED]
    assert found.tolist() == expected
    many = uniforms(torch.arange(20_000), 3)
    assert float(many.min()) >= 0
    assert float(many.max()) < 1
    assert chisquare(np.histogram(many, bins=50, range=(0, 1))[0]).pvalue > 1e-3


@pytest.mark.parametrize("sampling", CUTS, ids=str)
def test_draws_follow_the_exact_distribution(sampling: Sampling) -> None:
    logits = 2 * torch.randn(1, 12, generator=torch.Generator().manual_seed(1))
    chances = warped(logits, sampling).exp()[0].numpy()
    count = 40_000
    tokens, _ = draw(logits.expand(count, -1), sampling, uniforms(torch.arange(count) * 7919, 11))
    seen = np.bincount(tokens, minlength=12)
    assert (seen[chances == 0] == 0).all()
    kept = chances > 0
    assert chisquare(seen[kept], chances[kept] / chances[kept].sum() * count).pvalue > 1e-3


@pytest.mark.parametrize("sampling", CUTS, ids=str)
def test_logprobs_are_those_of_the_distribution_drawn_from(sampling: Sampling) -> None:
    logits = 3 * torch.randn(64, 200, generator=torch.Generator().manual_seed(2))
    tokens, logprobs = draw(logits, sampling, uniforms(torch.arange(64), 0))
    expected = warped(logits, sampling)[torch.arange(64), tokens]
    torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=1e-5)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 10_000))
def test_a_variate_falls_into_its_tokens_interval(variate: float, seed: int) -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(seed)) * 4
    tokens, _ = draw(logits, Sampling(temperature=1.0), torch.tensor([variate], dtype=torch.float64))
    ends = np.cumsum(np.exp(logits.double().log_softmax(-1)[0].numpy()))
    place = int(tokens[0])
    assert (ends[place - 1] if place else 0.0) - 1e-6 <= variate <= ends[place] + 1e-6


def test_the_tail_of_a_large_vocabulary_can_be_drawn() -> None:
    # One token has nearly all the mass; the 100,000 behind it share 1e-5, which float32 sums near 1 cannot tell apart.
    logits = torch.full((4, 100_001), math.log(1e-10))
    logits[:, 0] = math.log(1 - 1e-5)
    variates = 1 - 1e-5 + 1e-5 * torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    tokens, _ = draw(logits, Sampling(temperature=1.0), variates)
    assert (tokens / 100_001).tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8], abs=0.02)


@pytest.mark.parametrize("variate", [0.0, 0.5, 1 - 2.0**-UNIFORM_BITS])
def test_impossible_tokens_are_never_drawn(variate: float) -> None:
    never = -math.inf
    logits = torch.tensor([[never, 0.0, never, 0.0, never]])
    for sampling in (
        Sampling(temperature=1.0),
        Sampling(temperature=1.0, top_p=0.9),
        Sampling(temperature=1.0, top_k=4),
    ):
        tokens, logprobs = draw(logits, sampling, torch.tensor([variate], dtype=torch.float64))
        assert int(tokens[0]) in (1, 3)
        assert float(logprobs[0]) == pytest.approx(math.log(0.5))


def test_greedy_takes_the_likeliest_with_certainty() -> None:
    logits = torch.randn(8, 30, generator=torch.Generator().manual_seed(3)).bfloat16()
    tokens, logprobs = draw(logits, Sampling(temperature=0), uniforms(torch.arange(8), 0))
    assert tokens.tolist() == np.argmax(logits.float().numpy(), axis=1).tolist()
    assert logprobs.tolist() == [0.0] * 8


def test_a_vanishing_temperature_is_greedy() -> None:
    logits = torch.tensor([[1.0, 1.5, -2.0]])
    tokens, logprobs = draw(logits, Sampling(temperature=1e-30), torch.tensor([0.99], dtype=torch.float64))
    assert (int(tokens[0]), float(logprobs[0])) == (1, 0.0)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(temperature=1.0), Sampling(top_k=3, top_p=0.5)])
def test_logits_that_are_not_finite_show_in_the_logprob(sampling: Sampling) -> None:
    logits = torch.tensor([[0.0, math.nan, 1.0], [0.0, 2.0, 1.0]])
    tokens, logprobs = draw(logits, sampling, torch.tensor([0.3, 0.3], dtype=torch.float64))
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) < 3
    assert logprobs.isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (Sampling(temperature=-0.5), "temperature must be 0 (greedy) or positive, got -0.5"),
        (Sampling(temperature=math.nan), "got nan"),
        (Sampling(top_p=0.0), "top_p must lie in (0, 1], got 0.0"),
        (Sampling(top_p=1.5), "got 1.5"),
        (Sampling(top_k=-1), "top_k must not be negative, got -1"),
        (Sampling(max_tokens=0), "max_tokens must be at least 1, got 0"),
        (Sampling(stop=("a", "")), "a stop string must not be empty"),
    ],
)
def test_settings_without_meaning_are_refused(sampling: Sampling, words: str) -> None:
    with pytest.raises(UserError) as caught:
        check_sampling(sampling)
    assert words in str(caught.value)
