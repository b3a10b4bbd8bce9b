import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_students
import torch
from engine_checks import CHAT, GREEDY, PROMPTS, SAMPLED, Recorder, ask, by_key, run, texts, warped
from safetensors.torch import load_file, save_file
from scipy.stats import chisquare
from tiny_students import STUDENTS
from torch import Tensor

from harness.budgets import Budget, Deadline
from harness.errors import UserError
from harness.models import continuous, serving, slots
from harness.models.architectures import presets
from harness.models.architectures.initial import allocate
from harness.models.architectures.kernels import cpu
from harness.models.continuous import ContinuousBatch
from harness.models.endings import Endings
from harness.models.native import load_model, native
from harness.models.prefixes import Prefixes
from harness.models.sampling import draw
from harness.models.serving import BLOCK, NativeModel
from harness.models.slots import Slots
from harness.nouns import Completion, FinishReason, Request, Sampling

FAMILIES: dict[str, Callable[[], tiny_students.Student]] = {  # untied, for a tied head likes to repeat its input
    "llama": STUDENTS["llama untied"],
    "mamba2": STUDENTS["mamba2"],
    "llamba": STUDENTS["llamba"],
    "mamba-in-llama": STUDENTS["mamba-in-llama"],
    "mamba-in-llama mamba2": lambda: tiny_students.mamba_in_llama(
        tiny_students.MAMBA2, attn_layers=(0, 2), d_inner=64, tie_word_embeddings=False
    ),
    "phi-mamba hybrid": STUDENTS["phi-mamba hybrid"],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: save(make(), root / name) for name, make in FAMILIES.items()}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def loaded(folders: dict[str, str]) -> Callable[[str], NativeModel]:
    return cache(lambda family: load(folders[family]))


@pytest.fixture
def any_engine(family: str, loaded: Callable[[str], NativeModel]) -> NativeModel:
    """An engine that tests share; what they change of it they change back."""
    loaded(family).slots = None
    return loaded(family)


@pytest.fixture
def engine(folders: dict[str, str]) -> NativeModel:
    return load(folders["llama"])


@pytest.fixture(params=["compiled", "torch"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels that the machine's C compiler makes, and as where there is no compiler."""
    if request.param == "torch":
        monkeypatch.setattr(cpu, "library", lambda: None)
    elif cpu.library() is None:
        pytest.skip("there is no C compiler")


@pytest.fixture(scope="module")
def module_of(folders: dict[str, str]) -> Callable[[str], Any]:
    """The bare torch module of a family, which no engine shares."""
    return cache(lambda family: load_model(folders[family]))


def save(student: tiny_students.Student, folder: Path) -> str:
    """Write a checkpoint with a tokenizer that has no chat template."""
    path = tiny_students.save(replace(student, chat=False), folder)
    tiny.make_tokenizer().save_pretrained(path)
    return path


def load(folder: str, **options: Any) -> NativeModel:
    engine = native(folder, device="cpu", **options)
    assert isinstance(engine, NativeModel)
    return engine


def end_with(engine: NativeModel, monkeypatch: pytest.MonkeyPatch, ends: Collection[int]) -> None:
    """Let other tokens end a text; none, so that every row comes to its limit."""
    endings = Endings(engine.tokenizer, frozenset(ends), engine.endings.vocab_size, engine.device)
    monkeypatch.setattr(engine, "endings", endings)


def show_ids(engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Completions have their token ids for a text."""
    monkeypatch.setattr(engine.endings, "shown", lambda ids, stop, *, cut: " ".join(map(str, ids)))


def ids_of(completion: Completion) -> list[int]:
    return [int(token) for token in completion.text.split()]


def encoded(engine: NativeModel, prompt: str) -> list[int]:
    ids: list[int] = engine.tokenizer(prompt)["input_ids"]
    return ids


@torch.inference_mode()
def greedy_ids(model: Any, prompt: Sequence[int], count: int) -> list[int]:
    """The likeliest token again and again, each from a pass over the whole text so far."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@torch.inference_mode()
def next_logprobs(model: Any, prompt: Sequence[int], written: Sequence[int], sampling: Sampling) -> Tensor:
    """Log-probabilities (tokens written + 1, V) of the token after the prompt and after each token written."""
    logits = model(torch.tensor([[*prompt, *written]]))[0, len(prompt) - 1 :].float()
    return warped(logits, sampling)


class Watched:
    """An engine whose passes are recorded and take one second each on its own clock."""

    def __init__(self, engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        self.prompts: list[tuple[int, ...]] = []
        """Every prompt each time that it is read."""
        self.shapes: list[tuple[int, int]] = []
        """Rows and columns of the passes that read prompts."""
        self.steps: list[int] = []
        """Rows of the passes that give each row a token."""
        self.model = engine.model
        self.inner_prefill, self.inner_step = engine.model.prefill, engine.model.step
        monkeypatch.setattr(engine.model, "prefill", self.prefill)
        monkeypatch.setattr(engine.model, "step", self.step)

    def prefill(self, token_ids: Tensor, lengths: Tensor | None = None) -> Any:
        self.seconds += 1
        self.shapes.append((token_ids.shape[0], token_ids.shape[1]))
        ends = [token_ids.shape[1]] * len(token_ids) if lengths is None else lengths.tolist()
        self.prompts += [tuple(row[:end].tolist()) for row, end in zip(token_ids, ends, strict=True)]
        return self.inner_prefill(token_ids, lengths)

    def step(self, token_ids: Tensor, *rest: Any, **options: Any) -> Tensor:
        self.seconds += 1
        self.steps.append(len(token_ids))
        return self.inner_step(token_ids, *rest, **options)

    def deadline(self, amount: float = 1e9, unit: Any = "seconds") -> Deadline:
        return Deadline(Budget(amount, unit), lambda: self.seconds)


# What is generated


@pytest.mark.usefixtures("arithmetic")
def test_greedy_is_the_argmax_of_full_forward_passes(
    family: str,
    any_engine: NativeModel,
    module_of: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end_with(any_engine, monkeypatch, ())
    show_ids(any_engine, monkeypatch)
    for found, prompt in zip(run(any_engine, ask(PROMPTS, sampling=GREEDY)), PROMPTS, strict=True):
        assert ids_of(found) == greedy_ids(module_of(family), encoded(any_engine, prompt), 24)
        assert (found.completion_tokens, found.finish_reason, found.logprob) == (24, "length", 0)


@pytest.mark.usefixtures("arithmetic")
def test_a_text_longer_than_many_blocks_stays_right(
    family: str, any_engine: NativeModel, module_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    end_with(any_engine, monkeypatch, ())
    show_ids(any_engine, monkeypatch)
    limit = 2 * BLOCK + 20
    (found,) = run(any_engine, ask(["Hello"], sampling=replace(GREEDY, max_tokens=limit)))
    likeliest = next_logprobs(module_of(family), encoded(any_engine, "Hello"), ids_of(found), SAMPLED).argmax(-1)
    assert ids_of(found) == likeliest[:-1].tolist()
    assert found.completion_tokens == limit


CUTS = [
    Sampling(temperature=1.0, max_tokens=16),
    Sampling(temperature=0.7, top_k=20, max_tokens=16),
    Sampling(temperature=1.3, top_p=0.8, max_tokens=16),
    Sampling(temperature=0.9, top_k=20, top_p=0.9, max_tokens=16),
]


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("sampling", CUTS, ids=["plain", "top-k", "top-p", "both"])
def test_the_logprob_is_that_of_a_full_forward_pass(
    family: str,
    any_engine: NativeModel,
    module_of: Callable[[str], Any],
    sampling: Sampling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    show_ids(any_engine, monkeypatch)
    for found in run(any_engine, ask(PROMPTS, 2, sampling)):
        ids = ids_of(found)
        logprobs = next_logprobs(
            module_of(family), encoded(any_engine, PROMPTS[int(found.problem_id[1:])]), ids, sampling
        )
        expected = logprobs[:-1].gather(1, torch.tensor(ids)[:, None]).sum()
        assert found.logprob == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("family", ["llama", "mamba-in-llama"])
def test_samples_follow_the_exact_distribution(
    family: str,
    loaded: Callable[[str], NativeModel],
    module_of: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, sampling, count = loaded(family), Sampling(temperature=1.5, top_k=5, max_tokens=2, seed=3), 4000
    end_with(engine, monkeypatch, ())
    show_ids(engine, monkeypatch)
    prompt = encoded(engine, PROMPTS[1])
    first = next_logprobs(module_of(family), prompt, [], sampling)[0]
    chances: dict[tuple[int, ...], float] = {}
    for token in first.isfinite().nonzero().flatten().tolist():
        second = next_logprobs(module_of(family), prompt, [token], sampling)[1]
        for following in second.isfinite().nonzero().flatten().tolist():
            chances[token, following] = float((first[token] + second[following]).exp())
    assert sum(chances.values()) == pytest.approx(1)
    seen = Counter(tuple(ids_of(found)) for found in run(engine, ask(PROMPTS[1:2], count, sampling)))
    assert seen.keys() <= chances.keys()
    expected = np.array(sorted(chances.values())) * count
    observed = np.array([seen[pair] for pair in sorted(chances, key=lambda pair: chances[pair])])
    rare = int((expected.cumsum() < 10).sum()) + 1  # the rarest share a cell of at least ten
    expected, observed = (np.array([cells[:rare].sum(), *cells[rare:]]) for cells in (expected, observed))
    assert len(expected) > 10
    assert chisquare(observed, expected).pvalue > 1e-4


# In any company

STOPS: tuple[tuple[str, ...], ...] = ((), ("a", "never in it"), ("e", "0"), ("Q ",))
LIMITS = (24, 3, 17, 1, 9)


def mixture() -> list[Request]:
    """Prompts of four lengths and one that two problems share, limits, stop strings, and four samplers."""
    prompts = [*PROMPTS, "What?", "x"]
    return [
        Request(
            f"p{number}",
            sample,
            prompt,
            replace(
                (SAMPLED, replace(SAMPLED, top_k=0), replace(SAMPLED, top_p=0.9), GREEDY)[sample],
                max_tokens=LIMITS[(number + sample) % len(LIMITS)],
                stop=STOPS[(number + 2 * sample) % len(STOPS)],
            ),
        )
        for sample in range(4)
        for number, prompt in enumerate(prompts)
    ]


def assert_same(found: Sequence[Completion], expected: Sequence[Completion]) -> None:
    assert texts(found) == texts(expected)
    known = by_key(expected)
    for key, completion in by_key(found).items():
        assert completion.logprob == pytest.approx(known[key].logprob, abs=1e-4)
        assert completion.prompt_tokens == known[key].prompt_tokens
        assert completion.error is None


@pytest.mark.usefixtures("arithmetic")
def test_a_completion_is_the_same_in_any_company(any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[int] = []
    inner = Slots.move

    def move(self: Slots, pairs: Sequence[tuple[int, int]]) -> None:
        moves.append(len(pairs))
        inner(self, pairs)

    monkeypatch.setattr(Slots, "move", move)
    end_with(any_engine, monkeypatch, range(1, tiny.VOCAB, 12))
    requests = mixture()
    monkeypatch.setattr(any_engine, "max_batch_size", 64)
    together = run(any_engine, requests)
    endings = Counter((found.finish_reason, found.completion_tokens) for found in together)
    assert {reason for reason, _ in endings} == {"stop", "length"}
    assert len(endings) > 6
    assert len({found.text for found in together}) > 10
    for size in (1, 2, 3, 5):
        moves.clear()
        monkeypatch.setattr(any_engine, "max_batch_size", size)
        assert_same(run(any_engine, requests), together)
        assert (sum(moves) > 0) == (size > 1)
    for number, chosen in enumerate((requests[::-1], requests[::3], requests[5:], requests[1::2])):
        monkeypatch.setattr(any_engine, "max_batch_size", (3, 64, 2, 4)[number])
        found = run(any_engine, chosen)
        assert_same(found, [by_key(together)[key] for key in by_key(found)])
        assert len(found) == len(chosen)
    assert_same([found for request in requests for found in run(any_engine, [request])], together)


@pytest.mark.usefixtures("arithmetic")
def test_rows_of_a_batch_see_the_logits_they_see_alone(
    any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def watched(logits: Tensor, *rest: Any) -> Any:
        seen.append(logits.clone())
        return draw(logits, *rest)

    monkeypatch.setattr(slots, "draw", watched)
    end_with(any_engine, monkeypatch, ())
    run(any_engine, ask(PROMPTS, sampling=GREEDY))
    together = list(seen)
    assert {len(logits) for logits in together} == {3}
    for row, prompt in enumerate(PROMPTS):
        seen.clear()
        run(any_engine, ask([prompt], sampling=GREEDY))
        for batched, single in zip(together, seen, strict=True):
            torch.testing.assert_close(batched[row], single[0], atol=1e-4, rtol=1e-4)


def test_samplers_of_one_call_keep_apart(engine: NativeModel) -> None:
    mixed = [Request("g", 0, PROMPTS[0], GREEDY), Request("s", 0, PROMPTS[0], SAMPLED)]
    mixed += [Request("k", 0, PROMPTS[0], replace(SAMPLED, top_k=3))]
    apart = [found for request in mixed for found in run(engine, [request])]
    assert texts(run(engine, mixed)) == texts(apart)
    assert len({found.text for found in apart}) == 3


@pytest.mark.usefixtures("arithmetic")
def test_what_a_slot_held_before_is_not_seen(any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory may hold anything, infinities and NaN among it."""
    requests = ask([*PROMPTS, "x"], samples=2)
    monkeypatch.setattr(any_engine, "max_batch_size", 3)
    expected = run(any_engine, requests)
    inner = any_engine.model.empty_states

    def empty_states(*arguments: Any) -> Any:
        return [tuple(tensor.fill_(math.nan) for tensor in state) for state in inner(*arguments)]

    monkeypatch.setattr(any_engine.model, "empty_states", empty_states)
    any_engine.slots = None
    assert_same(run(any_engine, requests), expected)


def test_recorded_passes_change_nothing(any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where a pass over a few rows takes some of the free slots along."""
    recorder = Recorder()
    end_with(any_engine, monkeypatch, range(1, tiny.VOCAB, 12))
    monkeypatch.setattr(any_engine, "max_batch_size", 6)
    expected = run(any_engine, mixture())
    monkeypatch.setattr(serving, "CudaRecorder", lambda: recorder)
    monkeypatch.setattr(any_engine, "cuda_graphs", True)
    any_engine.slots = None
    requests = ask(PROMPTS, samples=3)
    any_engine.prepare([requests])
    before = recorder.count
    assert before == len([1, 2, 4, 6])
    run(any_engine, requests)
    assert recorder.count == before
    assert_same(run(any_engine, mixture()), expected)
    assert recorder.count > before


def test_an_engine_serves_on_after_a_call_that_was_abandoned(
    any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(any_engine, "max_batch_size", 3)
    expected = run(any_engine, mixture())
    abandoned = any_engine.generate(mixture(), Deadline(None, lambda: 0.0))
    next(abandoned)
    abandoned.close()  # type: ignore[attr-defined]
    assert_same(run(any_engine, mixture()), expected)


# How a completion ends


def limited(limits: Sequence[int]) -> list[Request]:
    return [Request("p", number, "Hello", replace(SAMPLED, max_tokens=limit)) for number, limit in enumerate(limits)]


def test_each_row_has_its_own_limit_and_leaves_when_it_is_reached(
    any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_with(any_engine, monkeypatch, ())
    watched = Watched(any_engine, monkeypatch)
    found = run(any_engine, limited([5, 2, 9]), watched.deadline())
    assert [completion.completion_tokens for completion in found] == [2, 5, 9]
    assert {completion.finish_reason for completion in found} == {"length"}
    assert (watched.shapes, watched.steps) == ([(1, 5)], [3, 2, 2, 2, 1, 1, 1, 1])
    assert [completion.finished_s for completion in found] == [2, 5, 9]
    assert [completion.first_token_s for completion in found] == [1, 1, 1]
    assert [completion.batch_size for completion in found] == [3, (2 * 3 + 3 * 2) / 5, (2 * 3 + 3 * 2 + 4 * 1) / 9]


def test_a_waiting_row_takes_the_first_slot_that_is_free(
    any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_with(any_engine, monkeypatch, ())
    monkeypatch.setattr(any_engine, "max_batch_size", 2)
    watched = Watched(any_engine, monkeypatch)
    found = by_key(run(any_engine, limited([5, 2, 9]), watched.deadline()))
    assert (watched.shapes, watched.steps) == ([(1, 5)], [2, 2, 2, 2, 1, 1, 1, 1, 1])
    times = [(one.submitted_s, one.started_s, one.first_token_s, one.finished_s) for _, one in sorted(found.items())]
    assert times == [(0, 0, 1, 5), (0, 0, 1, 2), (0, 2, 2, 10)]  # the third is given its first token at once
    assert [one.batch_size for _, one in sorted(found.items())] == [2, 2, (2 * 4 + 1 * 5) / 9]


def test_times_are_in_order(any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(any_engine, "max_batch_size", 3)
    watched = Watched(any_engine, monkeypatch)
    found = run(any_engine, mixture(), watched.deadline())
    assert [one.finished_s for one in found] == sorted(one.finished_s for one in found)
    for one in found:
        assert one.first_token_s is not None
        assert one.submitted_s == 0 <= one.started_s <= one.first_token_s <= one.finished_s <= watched.seconds
        assert 1 <= one.batch_size <= 3


def test_every_end_token_of_the_generation_config_ends(folders: dict[str, str], tmp_path: Path) -> None:
    folder = save(FAMILIES["llama"](), tmp_path / "ends")
    prompt = encoded(load(folder), PROMPTS[0])
    undisturbed = greedy_ids(load_model(folder), prompt, 24)
    for ending in (undisturbed[9], undisturbed[4]):
        (Path(folder) / "generation_config.json").write_text(json.dumps({"eos_token_id": [tiny.START, ending]}))
        stopping = load(folder)
        assert {tiny.START, tiny.END, ending} == set(stopping.facts["end_tokens"])
        (found,) = run(stopping, ask(PROMPTS[:1], sampling=GREEDY))
        count = undisturbed.index(ending) + 1
        assert (found.finish_reason, found.completion_tokens) == ("stop", count)
        assert found.text == stopping.tokenizer.decode(undisturbed[: count - 1])


def test_an_end_token_counts_and_is_not_shown(any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    end_with(any_engine, monkeypatch, range(any_engine.endings.vocab_size))
    watched = Watched(any_engine, monkeypatch)
    found = run(any_engine, ask(PROMPTS, samples=2), watched.deadline())
    assert {(one.finish_reason, one.completion_tokens, one.text) for one in found} == {("stop", 1, "")}
    assert {one.finished_s for one in found} == {1}
    assert watched.steps == []
    assert all(one.logprob is not None and one.logprob < 0 for one in found)


def test_a_stop_string_ends_at_the_token_that_completes_it(
    loaded: Callable[[str], NativeModel], module_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded("mamba-in-llama")
    end_with(engine, monkeypatch, ())
    ids = greedy_ids(module_of("mamba-in-llama"), encoded(engine, "Why"), 24)
    wholes = [engine.tokenizer.decode(ids[: count + 1], skip_special_tokens=True) for count in range(24)]
    windows = {wholes[-1][place : place + size] for place in range(20) for size in (1, 2, 3)}
    tried = {}
    for stop in sorted(window for window in windows if window and "\ufffd" not in window):
        count = next(count for count, whole in enumerate(wholes, 1) if stop in whole)
        tried[stop] = ("stop", count, wholes[-1][: wholes[-1].index(stop)])
    assert len(tried) >= 20
    requests = [  # each with stop strings of its own
        Request(stop, 0, "Why", replace(GREEDY, stop=("never in it", stop))) for stop in tried
    ]
    found = by_key(run(engine, [*requests, Request("", 1, "Why", GREEDY)]))
    assert found.pop(("", 1)).completion_tokens == 24
    assert {key[0]: (one.finish_reason, one.completion_tokens, one.text) for key, one in found.items()} == tried


def test_the_context_ends_a_row_like_its_limit(tmp_path: Path) -> None:
    engine = load(save(tiny_students.llama(max_position_embeddings=96), tmp_path))
    found = by_key(run(engine, ask(["x" * 90, "x"])))
    assert (found["p0", 0].finish_reason, found["p0", 0].prompt_tokens) == ("length", 90)
    assert (found["p0", 0].completion_tokens, found["p1", 0].completion_tokens) == (96 - 90, 24)


def test_a_family_without_positions_has_no_longest_text(loaded: Callable[[str], NativeModel]) -> None:
    (found,) = run(loaded("llamba"), ask(["x" * 1500], sampling=replace(SAMPLED, max_tokens=2)))
    assert (found.finish_reason, found.prompt_tokens) == ("length", 1500)


@pytest.mark.parametrize(
    ("length", "words"), [(1024, "the prompt has 1024 tokens"), (3000, "context 1024"), (0, "no tokens")]
)
def test_a_prompt_that_does_not_fit_is_an_error_row(engine: NativeModel, length: int, words: str) -> None:
    found = by_key(run(engine, ask(["x" * length, "fits"])))
    refused = found["p0", 0]
    assert (refused.finish_reason, refused.text, refused.completion_tokens) == ("error", "", 0)
    assert words in str(refused.error)
    assert found["p1", 0].finish_reason == "length"
    assert found["p1", 0].text == run(engine, [Request("p1", 0, "fits", SAMPLED)])[0].text


def test_logits_that_are_not_finite_make_an_error_row(engine: NativeModel) -> None:
    with torch.no_grad():
        engine.model.get_parameter("norm.weight")[0] = math.nan
    (found,) = run(engine, ask(PROMPTS[:1]))
    assert (found.finish_reason, found.error, found.logprob) == ("error", "the model's logits were not finite", None)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", ["llama", "mamba2", "mamba-in-llama", "phi-mamba hybrid"])
def test_a_row_that_is_not_finite_leaves_the_others_as_they_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token has an embedding that is not finite; when its rows have left, others are given their slots."""
    engine = load(save(FAMILIES[name](), tmp_path), max_batch_size=3)
    show_ids(engine, monkeypatch)

    def requests(odd: str) -> list[Request]:
        prompts = [odd * 40, "x" * 50, "abc", odd * 3 + "y" * 50, "def", "z" * 30, "g"]
        asked = in_waves(prompts, 2, SAMPLED)
        return [
            replace(one, sampling=replace(SAMPLED, max_tokens=LIMITS[number % len(LIMITS)]))
            for number, one in enumerate(asked)
        ]

    expected = {key: one for key, one in by_key(run(engine, requests("?"))).items() if key[0] not in ("p0", "p3")}
    drawn = {token for one in expected.values() for token in ids_of(one)}
    odd = next(letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if encoded(engine, letter)[0] not in drawn)
    with torch.no_grad():
        engine.model.embedding.weight[encoded(engine, odd)[0]] = math.nan
    found = by_key(run(engine, requests(odd)))
    broken = [found.pop((problem, sample)) for problem in ("p0", "p3") for sample in (0, 1)]
    assert {(one.finish_reason, one.logprob) for one in broken} == {("error", None)}
    assert len(found) == 10
    assert_same(list(found.values()), list(expected.values()))


def test_settings_without_meaning_are_refused_before_anything_runs(engine: NativeModel) -> None:
    with pytest.raises(UserError, match="top_p must lie in"):
        engine.generate(ask(PROMPTS, sampling=Sampling(top_p=2.0)), Deadline(None))


def test_nothing_is_asked_and_nothing_comes(engine: NativeModel) -> None:
    assert run(engine, []) == []
    engine.prepare([])
    engine.prepare([[]])
    assert engine.facts["slots"] is None


# Prompts that several samples share


def test_a_shared_prompt_is_read_and_charged_once(any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(any_engine, monkeypatch)
    found = run(any_engine, ask(["Hello", "World"], samples=4))
    assert (watched.shapes, watched.steps[0]) == ([(2, 5)], 8)
    assert {one.prefill_flops for one in found} == {any_engine.flops.prefill(5) / 4}


def in_waves(prompts: Sequence[str], samples: int, sampling: Sampling) -> list[Request]:
    """Sample j of every prompt before sample j + 1 of any."""
    return [
        Request(f"p{number}", sample, prompt, sampling)
        for sample in range(samples)
        for number, prompt in enumerate(prompts)
    ]


def assert_work_is_charged_to_rows(found: Sequence[Completion], deadline: Deadline, read_flops: float) -> None:
    assert sum(one.prefill_flops for one in found) == pytest.approx(read_flops, rel=1e-12)
    assert sum(one.decode_flops for one in found) == pytest.approx(deadline.flops - read_flops, rel=1e-12)
    assert sum(one.completion_tokens for one in found) == deadline.tokens


@pytest.mark.parametrize("order", [ask, in_waves])
@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_a_prompt_is_read_once_however_its_samples_wait(
    any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch, order: Callable[..., list[Request]], size: int
) -> None:
    watched = Watched(any_engine, monkeypatch)
    monkeypatch.setattr(any_engine, "max_batch_size", size)
    deadline = watched.deadline()
    prompts = [*PROMPTS, "x"]
    found = run(any_engine, order(prompts, 7, replace(SAMPLED, max_tokens=3)), deadline)
    ids = [encoded(any_engine, prompt) for prompt in prompts]
    assert sorted(watched.prompts) == sorted(map(tuple, ids))
    assert_work_is_charged_to_rows(found, deadline, sum(any_engine.flops.prefill(len(prompt)) for prompt in ids))
    assert len(found) == 28
    for number, prompt in enumerate(ids):
        shares = {one.prefill_flops for one in found if one.problem_id == f"p{number}"}
        assert shares == {any_engine.flops.prefill(len(prompt)) / 7}


def test_prompts_that_memory_cannot_keep_are_read_again(
    any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ["a" * 60, "b" * 59, "c" * 58]
    requests = in_waves(prompts, 5, replace(SAMPLED, max_tokens=4))
    expected = run(any_engine, requests)
    any_engine.slots = None
    # Half a row for waiting prompts, and the rest is three rows.
    monkeypatch.setattr(any_engine, "memory_bytes", 4 * any_engine.slot_bytes(64))
    watched = Watched(any_engine, monkeypatch)
    deadline = watched.deadline()
    found = run(any_engine, requests, deadline)
    assert any_engine.facts["slots"] == 3
    assert len(watched.prompts) > 3
    assert len(watched.prompts) == len(watched.shapes) + 2 * sum(rows == 3 for rows, _ in watched.shapes) + sum(
        rows == 2 for rows, _ in watched.shapes
    )
    assert_work_is_charged_to_rows(
        found, deadline, sum(any_engine.flops.prefill(len(prompt)) for prompt in watched.prompts)
    )
    assert_same(found, expected)


def test_memory_of_a_prompt_that_is_done_is_for_the_next_one(
    family: str, any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_with(any_engine, monkeypatch, ())
    prompts = [letter * 60 for letter in "abcd"]
    state_bytes = sum(size(60) for size in ROW_BYTES[family]) + 4 * any_engine.endings.vocab_size
    monkeypatch.setattr(any_engine, "memory_bytes", 8 * (state_bytes * 3 // 2))  # an eighth of it holds one and a half
    monkeypatch.setattr(any_engine, "max_batch_size", 2)
    watched = Watched(any_engine, monkeypatch)
    run(any_engine, ask(prompts, 4, replace(SAMPLED, max_tokens=3)))
    assert any_engine.facts["slots"] == 2
    assert watched.prompts == [tuple(encoded(any_engine, prompt)) for prompt in prompts]


def test_many_prompts_are_read_a_few_at_a_time(any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = ask([*PROMPTS, "x", "four", "y" * 50], samples=2)
    expected = run(any_engine, requests)
    monkeypatch.setattr(continuous, "PREFILL_TOKENS", 40)
    watched = Watched(any_engine, monkeypatch)
    assert_same(run(any_engine, requests), expected)
    assert watched.shapes == [(2, 12), (1, 39), (2, 4), (1, 50)]  # in order, and the longest by itself
    assert watched.steps[0] == 12


# Memory


def recurrent_bytes(states: int, window: int, layers: int) -> Callable[[int], int]:
    """Bytes in float32 of so many layers, whatever the length of the text."""
    return lambda columns: 4 * layers * (states + 4 * window)


def attention_bytes(heads: int, head_dim: int, layers: int) -> Callable[[int], int]:
    return lambda columns: 4 * layers * 2 * heads * head_dim * columns


# I N + 4 (convolved channels) for each recurrent layer; 2 n_kv hd per token for each attention layer.
ROW_BYTES: dict[str, tuple[Callable[[int], int], ...]] = {
    "llama": (attention_bytes(1, 12, 2),),
    "mamba2": (recurrent_bytes(64 * 16, 64 + 2 * 16, 2),),
    "llamba": (recurrent_bytes(32 * 8, 32 + 2 * 4 * 8, 2),),
    "mamba-in-llama": (recurrent_bytes(64 * 16, 64, 2), attention_bytes(4, 8, 1)),
    "mamba-in-llama mamba2": (recurrent_bytes(64 * 16, 64 + 2 * 32, 1), attention_bytes(4, 8, 2)),
    "phi-mamba hybrid": (recurrent_bytes(256 * 8, 256 + 2 * 4 * 8, 2), attention_bytes(32, 8, 1)),
}


@pytest.mark.parametrize("fitting", [1, 3, 6])
def test_rows_that_do_not_fit_into_memory_wait(
    family: str, folders: dict[str, str], fitting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = ask(PROMPTS, samples=3)
    columns = 64 if len(PROMPTS[2]) + 24 <= 64 else 128
    row_bytes = sum(size(columns) for size in ROW_BYTES[family])
    # An eighth is for the prompts whose samples wait; rows get the rest.
    memory_bytes = math.ceil((fitting + 0.5) * row_bytes * 8 / 7)
    engine = load(folders[family], memory_gb=memory_bytes / 1e9)
    watched = Watched(engine, monkeypatch)
    found = run(engine, requests)
    assert (engine.facts["slots"], engine.facts["slot_tokens"]) == (fitting, columns)
    assert engine.facts["state_memory_bytes"] == pytest.approx(memory_bytes, abs=1)
    assert max(watched.steps) == fitting
    assert_same(found, run(load(folders[family]), requests))


def test_a_memory_too_small_for_one_row_still_serves_rows_one_by_one(engine: NativeModel) -> None:
    expected = run(engine, ask(PROMPTS))
    engine.memory_bytes, engine.slots = 1, None
    assert_same(run(engine, ask(PROMPTS)), expected)
    assert engine.facts["slots"] == 1


def test_slots_are_made_beforehand_and_used_again(any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = ask(PROMPTS, samples=3)
    any_engine.prepare([requests[:1], requests, requests[2:4]])
    prepared = any_engine.slots
    assert prepared is not None
    for asked in (requests, requests[:2], [], requests[::-1]):
        run(any_engine, asked)
        assert any_engine.slots is prepared
    run(any_engine, ask(["x" * 200]))
    assert any_engine.slots is not prepared


class Hungry:
    """Makes a function raise OutOfMemoryError at some of its calls."""

    def __init__(self, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch, raises: Callable[..., bool]) -> None:
        self.inner, self.raises, self.calls, self.raised = getattr(owner, name), raises, 0, 0
        hungry = self

        def call(*arguments: Any, **options: Any) -> Any:
            hungry.calls += 1
            if hungry.raises(hungry.calls, *arguments):
                hungry.raised += 1
                raise torch.OutOfMemoryError
            return hungry.inner(*arguments, **options)

        monkeypatch.setattr(owner, name, call)


def sizes(engine: NativeModel, monkeypatch: pytest.MonkeyPatch, size: int = 128) -> None:
    """Begin with a batch limit and no lack of memory, and forget both after the test."""
    monkeypatch.setattr(engine, "max_batch_size", size)
    monkeypatch.setattr(engine, "out_of_memory", 0)


@pytest.mark.parametrize(
    ("name", "prompts", "samples", "left", "times"),
    [
        ("step", ["Hello"], 6, 1, 2),  # 6, 3, 1
        ("prefill", ["one", "three", "seven", "eight", "nine", "eleven"], 2, 3, 2),  # 12, 6, 3
        ("empty_states", PROMPTS, 4, 1, 3),  # 12, 6, 3, 1
    ],
)
def test_a_lack_of_memory_halves_the_slots_and_loses_nothing(
    any_engine: NativeModel,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    prompts: list[str],
    samples: int,
    left: int,
    times: int,
) -> None:
    requests = ask(prompts, samples=samples, sampling=replace(SAMPLED, max_tokens=8))
    expected = run(any_engine, requests)
    any_engine.slots = None
    sizes(any_engine, monkeypatch)

    def is_large(_: int, rows: Any, *rest: Any) -> bool:
        return (rows if isinstance(rows, int) else len(rows)) > 2

    hungry = Hungry(any_engine.model, name, monkeypatch, is_large)
    assert_same(run(any_engine, requests), expected)
    assert hungry.raised == any_engine.facts["out_of_memory"] == times
    assert any_engine.facts["max_batch_size"] == left


PLACES = [
    (Slots, "enter"),
    (Slots, "advance"),
    (Slots, "draw"),
    (Slots, "move"),
    (Prefixes, "keep"),
    (ContinuousBatch, "prefill"),
    (ContinuousBatch, "enter"),
]


@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[f"{owner.__name__}.{name}" for owner, name in PLACES])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_lack_of_memory_anywhere_loses_and_repeats_no_row(
    engine: NativeModel, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int
) -> None:
    requests = in_waves([*PROMPTS, "x", "four"], 4, SAMPLED)
    limits = (24, 3, 17, 1, 9, 2, 12)
    requests = [
        replace(request, sampling=replace(SAMPLED, max_tokens=limits[number % len(limits)]))
        for number, request in enumerate(requests)
    ]
    monkeypatch.setattr(continuous, "PREFILL_TOKENS", 30)
    engine.max_batch_size = 6
    expected = run(engine, requests)
    engine.slots = None
    hungry = Hungry(owner, name, monkeypatch, lambda calls, *_: calls == call)
    deadline = Deadline(None, lambda: 0.0)
    found = run(engine, requests, deadline)
    assert hungry.raised == engine.facts["out_of_memory"] == 1
    assert engine.facts["max_batch_size"] == 3
    assert sorted((one.problem_id, one.sample_index) for one in found) == sorted(by_key(expected))
    assert_same(found, expected)
    # What was undone is charged to the deadline and to no completion.
    assert sum(one.completion_tokens for one in found) <= deadline.tokens
    assert sum(one.prefill_flops + one.decode_flops for one in found) <= deadline.flops * (1 + 1e-12)


def test_a_row_that_never_fits_is_an_error_row(engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    Hungry(engine.model, "step", monkeypatch, lambda *_: True)
    found = run(engine, ask(["Hello"], samples=2))
    assert [(one.sample_index, one.finish_reason) for one in found] == [(0, "error"), (1, "error")]
    assert "ran out of memory with this completion alone" in str(found[0].error)


@pytest.mark.parametrize(
    ("name", "raises"),
    [
        ("step", lambda call, tokens, positions, states, columns, **_: columns > 128),
        ("prefill", lambda call, token_ids, *_: token_ids.shape[1] > 128),
        ("empty_states", lambda call, slots, columns, *_: columns > 128),
    ],
    ids=["step", "prefill", "empty_states"],
)
def test_only_the_row_that_is_too_long_is_an_error_row(
    engine: NativeModel, monkeypatch: pytest.MonkeyPatch, name: str, raises: Callable[..., bool]
) -> None:
    requests = ask(["short", "x" * 200, "brief"], samples=2)
    expected = by_key(run(engine, requests))
    engine.slots = None
    monkeypatch.setattr(engine, "slot_bytes", lambda columns: 1)
    Hungry(engine.model, name, monkeypatch, raises)
    found = by_key(run(engine, requests))
    assert {key: one.finish_reason for key, one in found.items() if key[0] == "p1"} == {
        ("p1", 0): "error",
        ("p1", 1): "error",
    }
    fitting = [key for key in found if key[0] != "p1"]
    assert_same([found[key] for key in fitting], [expected[key] for key in fitting])
    assert len(found) == 6


# Deadlines


@pytest.mark.parametrize("budget", [0.5, 1.0, 3.5, 7.0])
def test_a_deadline_cuts_every_row_to_a_prefix(
    any_engine: NativeModel, budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_with(any_engine, monkeypatch, ())
    requests = ask(PROMPTS, samples=2)
    whole = by_key(run(any_engine, requests))
    watched = Watched(any_engine, monkeypatch)
    cut = by_key(run(any_engine, requests, watched.deadline(budget)))
    passes = math.ceil(budget)  # a pass that begins before the deadline is finished, and no other begins
    assert cut.keys() == whole.keys()
    assert (len(watched.shapes), len(watched.steps)) == (1, passes - 1)
    for key, found in cut.items():
        assert found.finish_reason == "deadline"
        assert whole[key].text.startswith(found.text)
        assert found.completion_tokens == passes
        assert found.finished_s == passes == watched.seconds
        assert found.first_token_s == 1
        assert found.logprob is not None
        assert found.logprob < 0
    assert any(found.text for found in cut.values()) or passes == 1


def test_a_deadline_between_the_prompts_is_kept(any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "PREFILL_TOKENS", 1)
    watched = Watched(any_engine, monkeypatch)
    found = run(any_engine, ask(PROMPTS, samples=2), watched.deadline(1.5))
    assert (len(watched.shapes), watched.steps) == (2, [])
    assert [(one.problem_id, one.sample_index) for one in found] == [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)]
    assert [one.first_token_s for one in found] == [1, 1, 2, 2]
    assert {(one.finish_reason, one.completion_tokens, one.finished_s) for one in found} == {("deadline", 1, 2)}


def test_requests_that_never_started_are_not_yielded(any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    end_with(any_engine, monkeypatch, ())
    monkeypatch.setattr(any_engine, "max_batch_size", 2)
    watched = Watched(any_engine, monkeypatch)
    found = run(any_engine, ask(["Hello"], samples=6), watched.deadline(30))
    reasons: list[FinishReason] = ["length", "length", "deadline", "deadline"]
    assert [(one.sample_index, one.finish_reason) for one in found] == list(enumerate(reasons))
    assert [one.started_s for one in found] == [0, 0, 24, 24]
    assert {one.submitted_s for one in found} == {0}
    assert [one.completion_tokens for one in found] == [24, 24, 7, 7]


def test_a_deadline_that_has_passed_leaves_nothing_to_do(
    any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(any_engine, monkeypatch)
    assert run(any_engine, ask(PROMPTS), Deadline(Budget(1.0), lambda: 0.0, offset_s=2.0)) == []
    assert watched.seconds == 0


def test_a_row_that_ends_with_the_last_pass_has_ended(any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    end_with(any_engine, monkeypatch, ())
    watched = Watched(any_engine, monkeypatch)
    found = run(any_engine, limited([3, 4]), watched.deadline(3))
    assert [(one.finish_reason, one.completion_tokens) for one in found] == [("length", 3), ("deadline", 3)]


def test_a_deadline_passes_while_a_lack_of_memory_is_mended(
    engine: NativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(engine, monkeypatch)
    Hungry(engine.model, "step", monkeypatch, lambda call, tokens, *_: len(tokens) > 2)
    found = run(engine, ask(["Hello"], samples=6), watched.deadline(1.5))
    assert [(one.sample_index, one.finish_reason) for one in found] == [
        (0, "deadline"),
        (1, "deadline"),
        (2, "deadline"),
    ]


def test_a_token_budget_stops_within_one_step(any_engine: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    end_with(any_engine, monkeypatch, ())
    deadline = Budget(40, "tokens").start(lambda: 0.0)
    found = run(any_engine, ask(["Hello"], samples=7), deadline)
    assert sum(one.completion_tokens for one in found) == deadline.tokens == 42


def test_a_flop_budget_stops_within_one_step(any_engine: NativeModel) -> None:
    free = Deadline(None, lambda: 0.0)
    everything = run(any_engine, ask(PROMPTS, samples=3), free)
    assert sum(one.prefill_flops + one.decode_flops for one in everything) == pytest.approx(free.flops)
    deadline = Budget(free.flops / 3, "flops").start(lambda: 0.0)
    found = run(any_engine, ask(PROMPTS, samples=3), deadline)
    assert sum(one.prefill_flops + one.decode_flops for one in found) == pytest.approx(deadline.flops)
    step = any_engine.flops.decode(9, 9 * 96)
    assert free.flops / 3 <= deadline.flops < free.flops / 3 + step


# Loading


def test_facts_describe_the_engine(folders: dict[str, str]) -> None:
    from harness import __version__

    engine = load(folders["llama"], max_batch_size=7, memory_gb=0.5, state_dtype="bfloat16")
    run(engine, ask(PROMPTS, samples=2))
    tensors = FAMILIES["llama"]().tensors
    expected = {
        "engine": "native",
        "engine_version": __version__,
        "torch_version": torch.__version__,
        "dtype": "float32",
        "state_dtype": "bfloat16",
        "device": "cpu",
        "device_name": "cpu",
        "threads": 1,
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "vocab_size": tiny.VOCAB,
        "max_batch_size": 7,
        "slots": 6,
        "slot_tokens": 64,
        "state_memory_bytes": 500_000_000,
        "out_of_memory": 0,
        "end_tokens": [tiny.END],
        "chat_template": False,
        "prefix_sharing": "k samples of a problem share one prefill",
        "batching": "continuous",
        "cuda_graphs": False,
    }
    assert {name: engine.facts[name] for name in expected} == expected
    assert "SplitMix64" in engine.facts["sampler"]
    assert json.loads(json.dumps(engine.facts)) == engine.facts


@pytest.mark.parametrize("name", FAMILIES)
def test_precisions_are_those_that_were_asked_for(name: str, tmp_path: Path) -> None:
    folder = tiny_students.save(FAMILIES[name](), tmp_path, dtype=torch.float16)
    tiny.make_tokenizer().save_pretrained(folder)
    assert load(folder).facts["dtype"] == "float32"
    engine = load(folder, dtype="bfloat16", state_dtype="float16")
    assert engine.facts["dtype"] == "bfloat16"
    found = run(engine, ask(PROMPTS, samples=2))
    assert {one.finish_reason for one in found} <= {"stop", "length"}
    assert all(one.logprob is not None and math.isfinite(one.logprob) for one in found)
    assert engine.slots is not None
    for mixer, state in zip(engine.model.mixers, engine.slots.states, strict=True):
        wanted = (torch.bfloat16, torch.bfloat16 if mixer.attention_width else torch.float16)
        assert tuple(tensor.dtype for tensor in state) == wanted


def test_a_scaling_of_rope_can_be_chosen(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, written = "A somewhat longer question. " * 4, {}
    for choice in ("auto", "from_config", "none"):
        engine = load(folders["mamba-in-llama"], rope_scaling=choice)
        show_ids(engine, monkeypatch)
        (found,) = run(engine, ask([prompt], sampling=GREEDY))
        module = load_model(folders["mamba-in-llama"], rope_scaling=choice)
        assert ids_of(found) == greedy_ids(module, encoded(engine, prompt), 24)[: found.completion_tokens]
        written[choice] = found.text
    assert written["auto"] == written["from_config"] != written["none"]


def test_a_tokenizer_can_be_taken_from_elsewhere(folders: dict[str, str], tmp_path: Path) -> None:
    bare = tiny_students.save(STUDENTS["llamba"](), tmp_path)
    engine = load(bare, tokenizer=folders["llama"])
    assert_same(run(engine, ask(PROMPTS)), run(load(folders["llamba"]), ask(PROMPTS)))


def test_a_chat_prompt_is_answered(tmp_path: Path) -> None:
    engine = load(tiny_students.save(STUDENTS["mamba-in-llama mamba2"](), tmp_path))
    (found,) = run(engine, ask([CHAT[1:2]]))
    assert found.prompt_tokens == 1 + len("[user]1+1?[assistant]")
    assert engine.render(CHAT[1:2]) == "<start>[user]1+1?[assistant]"
    assert engine.facts["chat_template"] is True


@pytest.mark.parametrize("name", STUDENTS)
def test_every_form_of_every_family_is_served(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(save(STUDENTS[name](), tmp_path))
    show_ids(engine, monkeypatch)
    found = by_key(run(engine, ask(PROMPTS, sampling=GREEDY)))
    module = load_model(str(tmp_path))
    for number, prompt in enumerate(PROMPTS):
        one = found[f"p{number}", 0]
        assert ids_of(one) == greedy_ids(module, encoded(engine, prompt), one.completion_tokens)


def test_a_shape_with_random_weights_writes_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**tiny_students.LLAMA, **tiny_students.NO_SCALING, "vocab_size": 300}
    monkeypatch.setitem(presets.PRESETS, "tiny", presets.Preset("llama", presets.llama.build, config))  # type: ignore[attr-defined]
    engine = load("preset/tiny")
    show_ids(engine, monkeypatch)
    assert engine.facts["end_tokens"] == []
    found = run(engine, ask(["Grüße"], samples=2))
    assert [(one.prompt_tokens, one.completion_tokens, one.finish_reason) for one in found] == [(7, 24, "length")] * 2
    (greedy,) = run(engine, ask(["Hello"], sampling=GREEDY))
    assert ids_of(greedy) == greedy_ids(load_model("preset/tiny"), encoded(engine, "Hello"), 24)


def test_closing_frees_the_model(folders: dict[str, str]) -> None:
    engine = load(folders["llama"])
    run(engine, ask(PROMPTS))
    engine.close()
    assert not hasattr(engine, "model")
    assert engine.slots is None


def refusal(folder: str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        native(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_and_left_over_weights_are_refused_with_their_names(tmp_path: Path) -> None:
    folder = save(FAMILIES["llama"](), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    moved = weights.pop("model.layers.1.self_attn.q_proj.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.self_attn.q_proj.weight" in refusal(folder)
    weights |= {"model.layers.1.self_attn.q_proj.weight": moved, "model.layers.0.mixer.A_log": moved.clone()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.0.mixer.A_log" in refusal(folder)


def rewrite(folder: str, **changes: Any) -> str:
    """Change fields of a config.json; None takes one out."""
    path = Path(folder) / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": None}, "is not that of a llama (KeyError: 'num_hidden_layers'); download it again"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"model_type": "mistral"}, "the native engine has no family 'mistral'"),
        ({"model_type": "mistral"}, "use --engine transformers"),
        ({"hidden_act": "gelu"}, "has no gate 'gelu'"),
    ],
)
def test_configs_that_are_not_understood_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refusal(rewrite(save(FAMILIES["llama"](), tmp_path), **changes))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = tiny_students.save(replace(FAMILIES["llama"](), chat=False), tmp_path)
    assert "no tokenizer can be loaded" in refusal(folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "int8"}, "there is no dtype 'int8'; write one of auto, bfloat16, float16, float32"),
        ({"device": "tpu"}, "there is no device 'tpu'; write one of auto, cpu, cuda"),
        ({"max_batch_size": 0}, "max_batch_size must be at least 1, got 0"),
        ({"state_dtype": "int8"}, "there is no state_dtype 'int8'; write one of bfloat16, float16, float32"),
        ({"rope_scaling": "yarn"}, "there is no rope_scaling 'yarn'; write one of auto, from_config, none"),
        ({"memory_gb": -1.0}, "memory_gb must not be negative, got -1.0"),
        ({"memory_gb": math.nan}, "memory_gb must not be negative, got nan"),
    ],
)
def test_unknown_settings_are_refused(folders: dict[str, str], options: Any, words: str) -> None:
    assert words in refusal(folders["llama"], **options)


def test_an_unknown_shape_is_answered_with_those_that_exist() -> None:
    assert "there is no preset 'llama-9b'; write one of" in refusal("preset/llama-9b")
    assert "preset/llamba-3b" in refusal("preset/llama-9b")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(folders: dict[str, str]) -> None:
    assert "there is no CUDA device here" in refusal(folders["llama"], device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_gpu_draws_what_a_cpu_draws(
    folders: dict[str, str], loaded: Callable[[str], NativeModel], family: str
) -> None:
    on_gpu = native(folders[family], device="cuda", dtype="float32", max_batch_size=5)
    assert isinstance(on_gpu, NativeModel)
    found, expected = run(on_gpu, mixture()), run(loaded(family), mixture())
    assert texts(found) == texts(expected)


# Published shapes

PARAMETERS = {
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
    "llamba-1b": 1_405_159_936,
    "llamba-3b": 3_656_994_688,
    "llamba-8b": 8_315_868_160,
    "mamba-in-llama-1b": 1_293_002_752,
    "mamba-in-llama-3b": 3_447_874_560,
    "mamba2-in-llama-3b": 3_346_305_008,
    "phi-mamba-1.5b": 1_521_097_472,
    "hybrid-phi-mamba-1.5b": 1_503_959_680,
}
STATE_MEGABYTES = {  # bfloat16: recurrent states, convolution windows, and bytes of keys and values per token
    "llama-3.2-1b": (0, 0, 32_768),
    "llama-3.2-3b": (0, 0, 114_688),
    "llama-3.1-8b": (0, 0, 131_072),
    "llamba-1b": (4.19, 0.79, 0),
    "llamba-3b": (11.01, 1.61, 0),
    "llamba-8b": (16.78, 2.10, 0),
    "mamba-in-llama-1b": (0.79, 0.20, 8_192),
    "mamba-in-llama-3b": (2.16, 0.54, 24_576),
    "mamba2-in-llama-3b": (11.01, 0.57, 57_344),
}


def on_meta(name: str) -> Any:
    preset = presets.find_preset(name)
    with torch.device("meta"):
        model, _ = preset.build(preset.config, None)
    allocate(model, torch.bfloat16, torch.device("meta"))
    return model


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_have_the_published_number_of_parameters(name: str) -> None:
    assert sum(parameter.numel() for parameter in on_meta(name).parameters()) == PARAMETERS[name]


def test_the_shape_of_mamba2_is_that_of_an_empty_config() -> None:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    with torch.device("meta"):
        theirs = Mamba2ForCausalLM(Mamba2Config())
    ours = on_meta("mamba2-7b")
    assert sum(parameter.numel() for parameter in ours.parameters()) == theirs.num_parameters()
    assert presets.PRESETS.keys() == {*PARAMETERS, "mamba2-7b"}


def state_bytes(model: Any, columns: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Of one row: recurrent states, convolution windows, keys and values."""
    recurrent = windows = attention = 0
    for mixer, state in zip(model.mixers, model.empty_states(1, columns, dtype), strict=True):
        first, second = (tensor.nbytes for tensor in state)
        if mixer.attention_width:
            attention += first + second
        else:
            windows, recurrent = windows + first, recurrent + second
    return recurrent, windows, attention


@pytest.mark.parametrize("name", STATE_MEGABYTES)
def test_states_have_the_published_size(name: str) -> None:
    model, (recurrent_mb, window_mb, token_bytes) = on_meta(name), STATE_MEGABYTES[name]
    for columns in (1, 100):
        recurrent, windows, attention = state_bytes(model, columns, torch.bfloat16)
        assert (round(recurrent / 1e6, 2), round(windows / 1e6, 2)) == (recurrent_mb, window_mb)
        assert attention == columns * token_bytes
        assert state_bytes(model, columns, torch.float32) == (2 * recurrent, windows, attention)
