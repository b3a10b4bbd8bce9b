"""Going on from kept states: the same logits as reading everything anew, the same texts, and less work by formula."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import tiny_students
import torch
from engine_checks import GREEDY, SAMPLED
from fakes import FakeClock
from tiny_students import STUDENTS

from harness.budgets import Budget, Deadline
from harness.models.drafting import Tally
from harness.models.forks import Fork, Forks, go_on
from harness.models.native import load_model, native
from harness.models.serving import NativeModel
from harness.models.slots import Slots
from harness.nouns import Request, Sampling
from harness.running.strategies import Search

FAMILIES = ("llama untied", "mamba2", "llamba", "mamba-in-llama", "phi-mamba hybrid")
PROMPTS = [[5, 6, 7], list(range(10, 40)), [200]]
AFTER = [[9], [31, 4, 77], [8, 8]]
UNIFORM = Sampling(temperature=1.0)


@pytest.mark.parametrize("name", STUDENTS)
@torch.inference_mode()
def test_forked_states_give_the_logits_of_a_fresh_reading(name: str, tmp_path: Path) -> None:
    student = STUDENTS[name]()
    model = load_model(tiny_students.save(student, tmp_path))
    is_end = torch.zeros(model.head.weight.shape[0], dtype=torch.bool)
    slots, lengths = Slots(model, 4, 96, 12, torch.float32, is_end), torch.tensor([3, 30, 1])
    slots.prepare(UNIFORM, None)
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(prompt) for prompt in PROMPTS], batch_first=True)
    logits, states = model.prefill(padded, lengths)
    here = slots.enter(states, range(3), range(3), lengths.tolist(), [1, 2, 3], [12] * 3, [0] * 3)
    slots.draw(here, logits, UNIFORM)
    for _ in range(4):
        slots.advance(UNIFORM)
    read = [(*prompt, *slots.generated(row, 4)) for row, prompt in enumerate(PROMPTS)]
    forks = Forks(10**9)
    kept = [forks.of_slot(ids, slots, row) for row, ids in enumerate(read)]
    for _ in range(3):
        slots.advance(UNIFORM)  # what a slot does later leaves its forks as they are
    texts = [(*ids, *after) for ids, after in zip(read, AFTER, strict=True)]
    found = [fork for fork in kept if fork is not None]
    prefix = go_on(model, slots, found, texts, lambda rows, contexts: True)
    assert prefix is not None
    for row, ids in enumerate(texts):
        fresh = model(torch.tensor([ids]))[0, -1]
        torch.testing.assert_close(prefix.logits[row], fresh, rtol=2e-4, atol=2e-4)
    again = forks.of_prefix(texts[1], prefix, 1, slots.grows)
    assert again is not None
    both = go_on(model, slots, [again, found[0]], [texts[1], texts[0]], lambda rows, contexts: True)
    assert both is not None
    torch.testing.assert_close(both.logits, prefix.logits[[1, 0]], rtol=2e-4, atol=2e-4)


def test_a_fork_leads_to_texts_that_begin_with_its_own() -> None:
    fork, known = Fork((1, 2), []), Fork((1, 2), [], torch.zeros(1, 4))
    assert [fork.leads_to(ids) for ids in [(1, 2, 3), (1, 2), (1,), (1, 3, 3), ()]] == [
        True,
        False,
        False,
        False,
        False,
    ]
    assert known.leads_to((1, 2))


def test_forks_for_which_there_is_no_room_are_counted() -> None:
    states = [(torch.zeros(1, 4),)]  # 16 bytes
    forks = Forks(40)
    first, second = forks.admit(Fork((1,), states)), forks.admit(Fork((2,), states))
    assert first is not None
    assert second is not None
    assert forks.admit(Fork((3,), states)) is None
    assert forks.dropped == 1
    del first
    assert forks.admit(Fork((3,), states)) is not None


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("checkpoints")
    paths = {name: tiny_students.save(STUDENTS[name](), root / name) for name in FAMILIES}
    for path in paths.values():
        tiny.make_tokenizer().save_pretrained(path)
    return paths


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, folders: dict[str, str]) -> NativeModel:
    model = native(folders[request.param], memory_gb=0.2)
    assert isinstance(model, NativeModel)
    return model


@pytest.fixture
def engine(loaded: NativeModel) -> NativeModel:
    """As if it had just been loaded."""
    loaded.slots, loaded.out_of_memory, loaded.max_batch_size = None, 0, loaded.asked_batch_size
    loaded.tally, loaded.forks = Tally(), Forks(loaded.forks.max_bytes)
    return loaded


PROMPT = "How many are there?"


def search_of(engine: NativeModel, sampling: Sampling, deadline: Deadline | None = None, samples: int = 4) -> Search:
    return Search("p", PROMPT, samples, sampling, deadline or Deadline(None, FakeClock()), engine)


def ids_of(engine: NativeModel, text: str) -> list[int]:
    return list(engine.tokenizer(text)["input_ids"])


def test_pieces_are_the_text_in_one_go(engine: NativeModel) -> None:
    sampling = replace(GREEDY, max_tokens=24)
    (whole,) = engine.generate([Request("p", 0, PROMPT, sampling)], Deadline(None, FakeClock()))
    search = search_of(engine, sampling)
    draft = search.begin()
    while draft.ending is None:
        (draft,) = search.extend([draft], max_tokens=5)
    assert (draft.text, draft.ending, draft.tokens) == (whole.text, whole.finish_reason, whole.completion_tokens)
    assert search.deadline.tokens == whole.completion_tokens
    # Unbroken decoding feeds as many tokens, so going on from states is no work more.
    assert search.deadline.flops == pytest.approx(whole.prefill_flops + whole.decode_flops, rel=1e-12)


def test_going_on_saves_the_reading_it_should(engine: NativeModel) -> None:
    sampling, prompt = replace(SAMPLED, max_tokens=40), len(ids_of(engine, PROMPT))
    search = search_of(engine, sampling)
    drafts = list(search.extend([search.begin()] * 4, max_tokens=6))
    reading, distinct = prompt, 0
    for _ in range(3):
        kept = [draft for draft in drafts if draft.ending is None][:2]
        reading += sum(prompt + len(draft.token_ids) for draft in kept)
        distinct += len(kept)
        drafts = list(search.extend([draft for draft in kept for _ in range(2)], max_tokens=6))
    # Without forks all that is gone on with is read; with them the prompt is, and of each draft its last token.
    assert distinct >= 3
    assert engine.tally.read == prompt
    assert engine.tally.stepped == distinct
    assert engine.tally.reused == reading - prompt - distinct
    assert engine.facts["drafts"]["reused"] == engine.tally.reused


def test_all_work_is_charged_to_pieces(engine: NativeModel) -> None:
    search = search_of(engine, replace(SAMPLED, max_tokens=30))
    drafts = list(search.extend([search.begin()] * 4, max_tokens=7))
    drafts += search.extend([draft.plus(" so") for draft in drafts for _ in range(2)], max_tokens=5)
    pieces = [draft.pieces[-1] for draft in drafts]
    assert sum(piece.prefill_flops + piece.decode_flops for piece in pieces) == pytest.approx(search.deadline.flops)
    assert sum(piece.completion_tokens for piece in pieces) == search.deadline.tokens
    assert max(piece.spent_tokens or 0 for piece in pieces) == search.deadline.tokens


def test_what_is_put_behind_a_reply_is_read_as_part_of_it(engine: NativeModel) -> None:
    search = search_of(engine, replace(GREEDY, max_tokens=40))
    (first,) = search.extend([search.begin()], max_tokens=6)
    (second,) = search.extend([first.plus(" Wait, ")], max_tokens=6)
    ids = [*ids_of(engine, PROMPT), *first.token_ids, *ids_of(engine, " Wait, ")]
    for token in second.token_ids[len(first.token_ids) + len(" Wait, ") :]:
        with torch.inference_mode():
            assert int(engine.model(torch.tensor([ids]))[0, -1].argmax()) == token
        ids.append(token)
    assert engine.tally.stepped >= 1 + len(" Wait, ")


@pytest.mark.parametrize("size", [1, 3, 64])
def test_texts_do_not_depend_on_the_batch_or_on_memory(
    engine: NativeModel, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def texts() -> list[str]:
        search = search_of(engine, replace(SAMPLED, max_tokens=30))
        drafts = sorted(search.extend([search.begin()] * 4, max_tokens=6), key=lambda draft: draft.stream)
        going = [draft for draft in drafts if draft.ending is None for _ in range(2)]
        return [draft.text for draft in sorted(search.extend(going, max_tokens=6), key=lambda draft: draft.stream)]

    expected = texts()
    assert len(set(expected)) > 2
    monkeypatch.setattr(engine, "max_batch_size", size)
    engine.slots = None
    assert texts() == expected
    monkeypatch.setattr(engine.forks, "max_bytes", 0)
    assert texts() == expected
    assert engine.forks.dropped > 0


def test_drafts_join_a_flight(engine: NativeModel) -> None:
    sampling = replace(SAMPLED, max_tokens=20)
    alone = [engine.generate([Request("p", i, PROMPT, sampling)], Deadline(None, FakeClock())) for i in range(5)]
    expected = [next(iter(rows)).text for rows in alone]
    search = search_of(engine, sampling)
    flight = search.extend([search.begin()] * 2)
    found: dict[int, str] = {}
    for draft in flight:
        found[draft.stream] = draft.text
        if len(found) < 4:
            flight.add(search.begin(), len(found) + 1)
    assert [found[stream] for stream in sorted(found)] == [expected[stream] for stream in sorted(found)]
    assert len(found) == 5


def test_a_stop_string_ends_a_piece_and_one_of_the_user_the_reply(engine: NativeModel) -> None:
    whole = next(
        iter(engine.generate([Request("p", 0, PROMPT, replace(SAMPLED, max_tokens=30))], Deadline(None, FakeClock())))
    )
    mark = whole.text[4]
    search = search_of(engine, replace(SAMPLED, max_tokens=30))
    (piece,) = search.extend([search.begin()], stop=[mark])
    assert (piece.text, piece.ending) == (whole.text[: whole.text.index(mark) + 1], None)
    search = search_of(engine, replace(SAMPLED, max_tokens=30, stop=(mark,)))
    (reply,) = search.extend([search.begin()])
    assert (reply.text, reply.ending) == (whole.text[: whole.text.index(mark)], "stop")


def test_what_is_held_back_is_there_afterwards(engine: NativeModel) -> None:
    deadline = Deadline(Budget(40, "tokens"), FakeClock())
    search = search_of(engine, replace(SAMPLED, max_tokens=60), deadline)
    with search.holding_back(0.5):
        cut = list(search.extend([search.begin()] * 2))
    cut = [draft for draft in cut if draft.ending == "deadline"]
    assert 20 <= deadline.tokens <= 21
    read = engine.tally.read
    last = list(search.extend([draft.plus(">") for draft in cut]))
    assert {draft.ending for draft in last} == {"deadline"}
    assert 40 <= deadline.tokens <= 41
    assert engine.tally.read == read
    assert all(draft.state is None for draft in last)
    for draft, before in zip(last, cut, strict=True):
        assert draft.token_ids[: len(before.token_ids) + 1] == (*before.token_ids, *ids_of(engine, ">"))
    assert list(search.extend([search.begin()])) == []


def test_a_deadline_strikes_between_the_tokens_of_an_added_text(engine: NativeModel) -> None:
    search = search_of(engine, replace(GREEDY, max_tokens=60))
    (draft,) = search.extend([search.begin()], max_tokens=4)
    tokens, flops = len(draft.token_ids) + len(ids_of(engine, PROMPT)), engine.flops.decode
    # Enough for three tokens of twenty.
    budget = sum(flops(1, tokens + i) for i in range(3))
    brief = replace(search, deadline=Deadline(Budget(budget, "flops"), FakeClock()))
    assert list(brief.extend([draft.plus("x" * 20)])) == []
    assert brief.deadline.flops == pytest.approx(budget)


def test_a_reply_without_room_is_an_error(folders: dict[str, str]) -> None:
    engine = native(folders["llama untied"], memory_gb=0.2)
    assert isinstance(engine, NativeModel)
    engine.context = len(ids_of(engine, PROMPT)) + 4
    search = search_of(engine, replace(GREEDY, max_tokens=30))
    (draft,) = search.extend([search.begin()])
    assert (draft.ending, draft.tokens) == ("length", 4)
    (refused,) = search.extend([draft.plus("more")])
    assert refused.ending == "error"
    assert "has no room" in str(refused.pieces[-1].error)


@pytest.mark.parametrize("call", [1, 3, 6])
def test_a_lack_of_memory_loses_no_draft(engine: NativeModel, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def texts() -> list[str]:
        search = search_of(engine, replace(SAMPLED, max_tokens=24))
        drafts = [draft for draft in search.extend([search.begin()] * 3, max_tokens=6) if draft.ending is None]
        return sorted(draft.text for draft in search.extend(drafts * 2, max_tokens=6))

    expected = texts()
    calls, inner = [0], engine.model.step

    def step(*arguments: object, **options: object) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == call:
            raise torch.OutOfMemoryError
        return inner(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.model, "step", step)
    assert texts() == expected
    assert engine.out_of_memory == 1
