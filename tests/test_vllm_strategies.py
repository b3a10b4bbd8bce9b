"""Strategies on vLLM: going on with replies step by step, and what its prefix cache saves of reading them."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from test_vllm_engine import with_vllm

from harness.budgets import Budget, Deadline, monotonic
from harness.models.vllm_ import vllm
from harness.nouns import Completion, Message, PlainRewardModel, Request, Sampling
from harness.running.scoring import Judge
from harness.running.searching import Searcher, load_strategy
from harness.running.strategies import Search

QUESTION = (
    Message("user", "Tom has 12 apples. Tom loses 5 apples. Then Tom finds 30 more apples. How many has Tom now?"),
)
SAMPLING = Sampling(temperature=0.8, max_tokens=60, seed=3)


@pytest.fixture(scope="module")
def engine() -> Iterator[object]:
    model = vllm("zoo/teacher", memory_gb=0.5, max_model_len=512, prefix_caching=True)
    yield model
    model.close()  # type: ignore[attr-defined]


def search_of(engine: object, sampling: Sampling, budget: Budget | None = None, samples: int = 4) -> Search:
    engine.forget()  # type: ignore[attr-defined]
    return Search("p", QUESTION, samples, sampling, Deadline(budget, monotonic), engine)  # type: ignore[arg-type]


@with_vllm
def test_pieces_are_the_text_in_one_go(engine: object) -> None:
    greedy = replace(SAMPLING, temperature=0.0)
    (whole,) = engine.generate([Request("p", 0, QUESTION, greedy)], Deadline(None))  # type: ignore[attr-defined]
    search = search_of(engine, greedy)
    draft = search.begin()
    while draft.ending is None:
        (draft,) = search.extend([draft], max_tokens=20)
    assert (draft.text, draft.ending, draft.tokens) == (whole.text, whole.finish_reason, whole.completion_tokens)


@with_vllm
def test_the_prefix_cache_saves_whole_blocks_of_what_was_read(engine: object) -> None:
    search = search_of(engine, SAMPLING)
    tally, block = engine.tally, engine.facts["block_size"]  # type: ignore[attr-defined]
    drafts = list(search.extend([search.begin()], max_tokens=24))
    read, cached = tally.prompt_tokens, tally.cached_tokens
    prompt = drafts[0].pieces[0].prompt_tokens
    (draft,) = search.extend(drafts, max_tokens=8)
    before = prompt + 24
    assert tally.prompt_tokens - read == before
    # The last token written was never fed, and a block is kept when it is full.
    assert tally.cached_tokens - cached == (before - 1) // block * block
    assert draft.tokens == 32
    engine.forget()  # type: ignore[attr-defined]


@with_vllm
def test_beams_and_added_texts(engine: object) -> None:
    judge = Judge("r", (), PlainRewardModel("r", lambda _, texts: [[len(text) % 7 / 7] for text in texts]), monotonic)

    def rows(name: str, *options: str, budget: Budget | None = None) -> list[Completion]:
        model = Searcher(engine, load_strategy(name, options), 4, [judge])  # type: ignore[arg-type]
        requests = [Request("p", index, QUESTION, SAMPLING) for index in range(4)]
        return list(model.generate(requests, Deadline(budget)))

    beams = rows("beam_search", "width=2", "separator=.")
    assert sorted(row.sample_index for row in beams) == [0, 1, 2, 3]
    assert {row.finish_reason for row in beams} <= {"stop", "length"}
    assert [row.text for row in rows("beam_search", "width=2", "separator=.")] == [row.text for row in beams]
    waited = rows("budget_forcing", "waits=1", "wait= Wait", "reserve=0")
    assert all("Wait" in row.text or "answer is" in row.text for row in waited)
    probed = rows("probing", "reserve=0.5", budget=Budget(80, "tokens"))
    assert all("\nThe answer is \\boxed{" in row.text for row in probed if row.finish_reason == "stop")
    assert {row.finish_reason for row in probed} <= {"stop", "deadline"}
