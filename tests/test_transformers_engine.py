import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine_checks
import pytest
import tiny
import torch
from engine_checks import CHAT, GREEDY, PROMPTS, by_key, run, texts, warped
from safetensors.torch import load_file, save_file

from harness.budgets import Budget, Deadline
from harness.errors import UserError
from harness.models import flight, kv_buffer
from harness.models.sampling import draw
from harness.models.stepwise import StepwiseModel
from harness.models.text import encode, plain, render
from harness.models.transformers_ import transformers
from harness.nouns import Request, Sampling

SAMPLED = Sampling(temperature=1.0, max_tokens=24, seed=5)
ask = functools.partial(engine_checks.ask, sampling=SAMPLED)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {make.__name__: tiny.save(make(), root / make.__name__) for make in (tiny.llama, tiny.mamba2, tiny.hybrid)}


@pytest.fixture(scope="session", params=["llama", "mamba2"])
def any_engine(request: pytest.FixtureRequest, folders: dict[str, str]) -> StepwiseModel:
    return load(folders[request.param])


@pytest.fixture
def engine(folders: dict[str, str]) -> StepwiseModel:
    return load(folders["llama"])


def load(folder: str, **options: Any) -> StepwiseModel:
    loaded = transformers(folder, device="cpu", **options)
    assert isinstance(loaded, StepwiseModel)
    return loaded


class Watched:
    """An engine whose forward passes are counted, recorded, and take one second each on its own clock."""

    def __init__(self, engine: StepwiseModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        self.shapes: list[tuple[int, int]] = []
        self.logits: list[torch.Tensor] = []
        self.inner: Callable[..., torch.Tensor] = engine.forward
        monkeypatch.setattr(engine, "forward", self.forward)

    def forward(self, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        logits = self.inner(ids, *rest)
        self.seconds += 1
        self.shapes.append((ids.shape[0], ids.shape[1]))
        self.logits.append(logits.clone())
        return logits

    def deadline(self, amount: float, unit: Any = "seconds") -> Deadline:
        return Deadline(Budget(amount, unit), lambda: self.seconds)


def reference_ids(engine: StepwiseModel, prompt: str, count: int) -> list[int]:
    """What transformers' own generation writes greedily."""
    inputs = engine.tokenizer(prompt, return_tensors="pt")
    settings = {"do_sample": False, "max_new_tokens": count, "pad_token_id": tiny.PAD}
    written = engine.model.generate(**inputs, **settings)[0, inputs["input_ids"].shape[1] :]
    ids: list[int] = written.tolist()
    return ids


# What is generated


@pytest.mark.parametrize("name", ["llama", "mamba2", "hybrid"])
def test_greedy_is_transformers_own_greedy(folders: dict[str, str], name: str) -> None:
    engine = load(folders[name])
    for found in run(engine, ask(PROMPTS, sampling=GREEDY)):
        ids = reference_ids(engine, PROMPTS[int(found.problem_id[1:])], 24)
        assert found.completion_tokens == len(ids)
        whole = engine.tokenizer.decode(ids, skip_special_tokens=True)
        assert found.text == (whole if found.finish_reason == "stop" else whole.rstrip("\ufffd"))
        assert found.logprob == 0


def test_a_completion_longer_than_the_caches_first_block_stays_right(engine: StepwiseModel) -> None:
    limit = kv_buffer.BLOCK + 20
    (found,) = run(engine, ask(["Hello"], sampling=Sampling(temperature=0, max_tokens=limit)))
    ids = reference_ids(engine, "Hello", limit)
    assert len(ids) == found.completion_tokens == limit
    assert found.text == engine.tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd")


def test_a_sample_is_the_same_in_any_company(any_engine: StepwiseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = ask(PROMPTS, samples=4)
    together = texts(run(any_engine, requests))
    assert len({text for text, *_ in together.values()}) == len(requests)
    assert texts(run(any_engine, requests[::-1])) == together
    alone = [completion for request in requests for completion in run(any_engine, [request])]
    assert texts(alone) == together
    resumed = run(any_engine, requests[::3])
    assert texts(resumed) == {key: together[key] for key in texts(resumed)}
    monkeypatch.setattr(any_engine, "max_batch_size", 5)
    assert texts(run(any_engine, requests)) == together


def test_rows_of_a_batch_see_the_logits_they_see_alone(engine: StepwiseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.model.double()  # so that a difference is padding's and not rounding's
    watched = Watched(engine, monkeypatch)
    run(engine, ask(PROMPTS, sampling=GREEDY))
    together, watched.logits = watched.logits, []
    assert watched.shapes[0] == (3, len(PROMPTS[2]))
    for row, prompt in enumerate(PROMPTS):
        run(engine, ask([prompt], sampling=GREEDY))
        alone, watched.logits = watched.logits, []
        for batched, single in zip(together, alone, strict=True):
            torch.testing.assert_close(batched[row], single[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, max_tokens=16),
        Sampling(temperature=0.7, top_k=20, top_p=0.9, max_tokens=16),
    ],
    ids=["plain", "cut"],
)
def test_the_logprob_is_that_of_a_full_forward_pass(
    any_engine: StepwiseModel, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[torch.Tensor] = []

    def watched(*arguments: Any) -> Any:
        tokens, logprobs = draw(*arguments)
        drawn.append(tokens)
        return tokens, logprobs

    monkeypatch.setattr(flight, "draw", watched)
    for found, prompt in zip(run(any_engine, ask(PROMPTS[:1], sampling=sampling)), PROMPTS, strict=False):
        tokens = torch.cat(drawn)
        ids = torch.tensor([[*any_engine.tokenizer(prompt)["input_ids"], *tokens.tolist()]])
        with torch.inference_mode():
            logits = any_engine.model(input_ids=ids).logits[0, -len(tokens) - 1 : -1].float()
        expected = warped(logits, sampling)[torch.arange(len(tokens)), tokens].sum()
        assert found.logprob == pytest.approx(float(expected), abs=1e-3)


def test_samplers_of_one_call_keep_apart(engine: StepwiseModel) -> None:
    mixed = [Request("g", 0, PROMPTS[0], GREEDY), Request("s", 0, PROMPTS[0], SAMPLED)]
    apart = run(engine, mixed[:1]) + run(engine, mixed[1:])
    assert texts(run(engine, mixed)) == texts(apart)


# How a completion ends


def test_each_row_has_its_own_limit_and_leaves_when_it_is_reached(
    any_engine: StepwiseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(any_engine, monkeypatch)
    limits = [5, 2, 9]
    requests = [
        Request("p", number, "Hello", Sampling(temperature=1.0, max_tokens=limit))
        for number, limit in enumerate(limits)
    ]
    found = run(any_engine, requests, watched.deadline(1e6))
    assert [completion.completion_tokens for completion in found] == [2, 5, 9]
    assert {completion.finish_reason for completion in found} == {"length"}
    assert watched.shapes == [(1, 5), (3, 1), *[(2, 1)] * 3, *[(1, 1)] * 4]
    assert [completion.finished_s for completion in found] == [2, 5, 9]
    assert [completion.first_token_s for completion in found] == [1, 1, 1]
    assert [completion.batch_size for completion in found] == [3, (2 * 3 + 3 * 2) / 5, (2 * 3 + 3 * 2 + 4 * 1) / 9]


def test_every_end_token_of_the_generation_config_ends(engine: StepwiseModel) -> None:
    undisturbed = reference_ids(engine, PROMPTS[0], 24)
    for ending in (undisturbed[9], undisturbed[4]):
        engine.model.generation_config.eos_token_id = [tiny.START, ending]
        stopping = StepwiseModel("tiny", engine.model, engine.tokenizer, 8, {})
        (found,) = run(stopping, ask(PROMPTS[:1], sampling=GREEDY))
        count = undisturbed.index(ending) + 1
        assert (found.finish_reason, found.completion_tokens) == ("stop", count)
        assert found.text == engine.tokenizer.decode(undisturbed[: count - 1])


def test_the_tokenizers_end_token_ends(engine: StepwiseModel) -> None:
    engine.endings.is_end[:] = True
    engine.endings.ends = frozenset(range(tiny.VOCAB))
    (found,) = run(engine, ask(PROMPTS[:1]))
    assert (found.finish_reason, found.completion_tokens, found.text) == ("stop", 1, "")


def test_a_stop_string_ends_at_the_token_that_completes_it(engine: StepwiseModel) -> None:
    ids = reference_ids(engine, PROMPTS[0], 24)
    wholes = [engine.tokenizer.decode(ids[: count + 1], skip_special_tokens=True) for count in range(24)]
    windows = {wholes[-1][place : place + size] for place in range(20) for size in (1, 2, 3)}
    tried = 0
    for stop in sorted(window for window in windows if window and "\ufffd" not in window):
        count = next(count for count, whole in enumerate(wholes, 1) if stop in whole)
        asked = Sampling(temperature=0, max_tokens=24, stop=("never in it", stop))
        plain_row = Request("p", 1, PROMPTS[0], Sampling(temperature=0, max_tokens=24))
        found = by_key(run(engine, [Request("p", 0, PROMPTS[0], asked), plain_row]))
        assert (found["p", 0].finish_reason, found["p", 0].completion_tokens) == ("stop", count), repr(stop)
        assert found["p", 0].text == wholes[-1][: wholes[-1].index(stop)]
        assert found["p", 1].completion_tokens == 24
        tried += 1
    assert tried >= 5


def test_the_context_ends_a_row_like_its_limit(folders: dict[str, str]) -> None:
    engine = load(folders["llama"])
    prompt = "x" * 90
    (found,) = run(engine, ask([prompt]))
    assert (found.finish_reason, found.prompt_tokens, found.completion_tokens) == ("length", 90, 96 - 90)


@pytest.mark.parametrize(("length", "words"), [(96, "the prompt has 96 tokens"), (200, "context 96"), (0, "no tokens")])
def test_a_prompt_that_does_not_fit_is_an_error_row(engine: StepwiseModel, length: int, words: str) -> None:
    found = by_key(run(engine, ask(["x" * length, "fits"])))
    refused = found["p0", 0]
    assert (refused.finish_reason, refused.text, refused.completion_tokens) == ("error", "", 0)
    assert words in str(refused.error)
    assert found["p1", 0].finish_reason == "length"


def test_logits_that_are_not_finite_make_an_error_row(engine: StepwiseModel) -> None:
    with torch.no_grad():
        engine.model.model.norm.weight[0] = math.nan
    (found,) = run(engine, ask(PROMPTS[:1]))
    assert (found.finish_reason, found.error, found.logprob) == ("error", "the model's logits were not finite", None)


def test_settings_without_meaning_are_refused_before_anything_runs(engine: StepwiseModel) -> None:
    with pytest.raises(UserError, match="top_p must lie in"):
        engine.generate(ask(PROMPTS, sampling=Sampling(top_p=2.0)), Deadline(None))


# Deadlines


@pytest.mark.parametrize("budget", [0.5, 1.0, 3.5, 7.0])
def test_a_deadline_cuts_every_row_to_a_prefix(
    any_engine: StepwiseModel, budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = ask(PROMPTS[:1], samples=3)
    whole = by_key(run(any_engine, requests))
    watched = Watched(any_engine, monkeypatch)
    cut = by_key(run(any_engine, requests, watched.deadline(budget)))
    passes = math.ceil(budget)  # a pass that begins before the deadline is finished, its token is not taken
    assert cut.keys() == whole.keys()
    for key, found in cut.items():
        assert found.finish_reason == "deadline"
        assert whole[key].text.startswith(found.text)
        assert found.completion_tokens == passes - 1
        assert found.finished_s == passes == watched.seconds
        assert found.first_token_s == (1 if passes > 1 else None)


def test_requests_that_never_started_are_not_yielded(engine: StepwiseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(engine, monkeypatch)
    monkeypatch.setattr(engine, "max_batch_size", 2)
    found = run(engine, ask(["Hello"], samples=6), watched.deadline(30))
    assert [(one.sample_index, one.finish_reason) for one in found] == [
        *[(0, "length"), (1, "length")],
        *[(2, "deadline"), (3, "deadline")],
    ]
    assert [one.started_s for one in found] == [0, 0, 24, 24]
    assert {one.submitted_s for one in found} == {0}
    watched.seconds = 1e9
    assert run(engine, ask(["Hello"]), Deadline(Budget(1.0), lambda: watched.seconds, offset_s=2.0)) == []


def test_a_token_budget_stops_within_one_step(any_engine: StepwiseModel) -> None:
    deadline = Budget(40, "tokens").start(lambda: 0.0)
    found = run(any_engine, ask(["Hello"], samples=7), deadline)
    assert sum(one.completion_tokens for one in found) == deadline.tokens == 42


def test_a_flop_budget_stops_within_one_step(any_engine: StepwiseModel) -> None:
    free = Deadline(None, lambda: 0.0)
    everything = run(any_engine, ask(PROMPTS, samples=3), free)
    assert sum(one.prefill_flops + one.decode_flops for one in everything) == pytest.approx(free.flops)
    deadline = Budget(free.flops / 3, "flops").start(lambda: 0.0)
    found = run(any_engine, ask(PROMPTS, samples=3), deadline)
    assert sum(one.prefill_flops + one.decode_flops for one in found) == pytest.approx(deadline.flops)
    step = any_engine.flops.decode(9, 9 * 96)
    assert free.flops / 3 <= deadline.flops < free.flops / 3 + step


def test_a_shared_prompt_is_read_and_charged_once(engine: StepwiseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(engine, monkeypatch)
    found = run(engine, ask(["Hello", "World"], samples=4))
    assert watched.shapes[:2] == [(2, 5), (8, 1)]
    assert {one.prefill_flops for one in found} == {engine.flops.prefill(5) / 4}


# Batches


def test_a_recurrent_model_is_given_no_padding(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(folders["mamba2"])
    watched = Watched(engine, monkeypatch)
    run(engine, ask(["four", "fives", "also5", "4444"], sampling=Sampling(max_tokens=2)))
    assert watched.shapes == [(2, 4), (2, 1), (2, 5), (2, 1)]


def test_a_lack_of_memory_halves_the_batch_and_loses_nothing(
    any_engine: StepwiseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = ask(["Hello"], samples=6, sampling=Sampling(temperature=1.0, max_tokens=8))
    expected = texts(run(any_engine, requests))
    inner = any_engine.forward

    def forward(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if ids.shape[0] > 2:
            raise torch.OutOfMemoryError
        return inner(ids, *rest)

    monkeypatch.setattr(any_engine, "forward", forward)
    monkeypatch.setattr(any_engine, "max_batch_size", 128)
    monkeypatch.setattr(any_engine, "out_of_memory", 0)
    found = run(any_engine, requests)
    assert texts(found) == expected
    assert [one.sample_index for one in found] == list(range(6))
    assert (any_engine.facts["max_batch_size"], any_engine.facts["out_of_memory"]) == (1, 2)


def test_a_row_that_never_fits_is_an_error_row(engine: StepwiseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(engine, "forward", forward)
    found = run(engine, ask(["Hello"], samples=2))
    assert [(one.sample_index, one.finish_reason) for one in found] == [(0, "error"), (1, "error")]
    assert "ran out of memory with this completion alone" in str(found[0].error)


# Prompts


def test_messages_without_a_template_read_as_paragraphs() -> None:
    assert plain(CHAT) == "Be brief.\n\nQuestion: 1+1?\nAnswer: 2\n\nQuestion: 2+2?\nAnswer:"
    assert plain(CHAT[1:2]) == "Question: 1+1?\nAnswer:"
    assert plain(CHAT[1:3]) == "Question: 1+1?\nAnswer: 2"
    assert render(tiny.make_tokenizer(), CHAT) == plain(CHAT)


def test_a_template_writes_the_prompt() -> None:
    tokenizer = tiny.make_tokenizer(chat_template=tiny.TEMPLATE)
    assert render(tokenizer, CHAT[1:2]) == "<start>[user]1+1?[assistant]"
    assert render(tokenizer, "as it is") == "as it is"


def test_a_template_that_asks_for_the_date_reads_no_clock() -> None:
    tokenizer = tiny.make_tokenizer(chat_template="{{ date_string }}")
    assert render(tokenizer, CHAT) == "26 Jul 2024"


@pytest.mark.parametrize("template", [None, tiny.TEMPLATE])
@pytest.mark.parametrize("prompt", ["plain", "<start>begun", CHAT])
def test_a_prompt_begins_with_one_start_token(template: str | None, prompt: Any) -> None:
    ids = encode(tiny.make_tokenizer(chat_template=template, adds_start=True), prompt)
    assert ids[0] == tiny.START
    assert ids.count(tiny.START) == 1


def test_a_chat_prompt_is_answered(tmp_path: Path) -> None:
    engine = load(tiny.save(tiny.llama(), tmp_path / "chat", chat_template=tiny.TEMPLATE))
    (found,) = run(engine, ask([CHAT[1:2]]))
    assert found.prompt_tokens == 1 + len("[user]1+1?[assistant]")
    assert engine.render(CHAT[1:2]) == "<start>[user]1+1?[assistant]"
    assert engine.facts["chat_template"] is True


# Loading


def test_facts_describe_the_engine(folders: dict[str, str]) -> None:
    import transformers as library

    facts = load(folders["llama"], max_batch_size=7).facts
    expected = {
        "engine": "transformers",
        "engine_version": library.__version__,
        "torch_version": torch.__version__,
        "dtype": "float32",
        "device": "cpu",
        "attention": "sdpa",
        "parameters": sum(weight.numel() for weight in tiny.llama().parameters()),
        "vocab_size": tiny.VOCAB,
        "max_batch_size": 7,
        "chat_template": False,
        "prefix_sharing": "k samples of a problem share one prefill",
    }
    assert expected.items() <= facts.items()
    assert "SplitMix64" in facts["sampler"]


def test_half_precision_files_are_cast_up_on_a_cpu(tmp_path: Path) -> None:
    folder = tiny.save(tiny.llama().half(), tmp_path / "half")
    assert load(folder).facts["dtype"] == "float32"
    assert load(folder, dtype="bfloat16").facts["dtype"] == "bfloat16"


def test_an_untied_head_is_loaded(tmp_path: Path) -> None:
    engine = load(tiny.save(tiny.llama(tie_word_embeddings=False), tmp_path / "untied"))
    assert len(run(engine, ask(PROMPTS))) == 3


def test_closing_frees_the_model(folders: dict[str, str]) -> None:
    engine = load(folders["llama"])
    engine.close()
    assert engine.model is None


@pytest.fixture
def broken(tmp_path: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """A checkpoint whose weights the test changes; it writes them back itself."""
    folder = tiny.save(tiny.llama(), tmp_path / "broken")
    return folder, load_file(Path(folder) / "model.safetensors")


def refusal(folder: str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        transformers(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_weights_are_refused_with_their_names(broken: tuple[str, dict[str, torch.Tensor]]) -> None:
    folder, weights = broken
    name = "model.layers.1.self_attn.q_proj.weight"
    del weights[name]
    save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    assert f"lacks 1 weights of its architecture: {name};" in refusal(folder)


def test_left_over_weights_are_refused_with_their_names(broken: tuple[str, dict[str, torch.Tensor]]) -> None:
    folder, weights = broken
    weights["model.layers.0.mixer.A_log"] = torch.zeros(4)
    save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    assert "has unknown 1 weights of its architecture: model.layers.0.mixer.A_log;" in refusal(folder)


def test_unreadable_weights_are_refused(broken: tuple[str, dict[str, torch.Tensor]]) -> None:
    folder, weights = broken
    weights["model.norm.weight"] = torch.zeros(7)
    save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    assert f"transformers cannot load '{folder}'" in refusal(folder)
    (Path(folder) / "model.safetensors").unlink()
    assert f"transformers cannot load '{folder}'" in refusal(folder)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    tiny.llama().save_pretrained(tmp_path)
    assert "no tokenizer can be loaded" in refusal(str(tmp_path))


def test_students_that_call_themselves_llama_are_refused(folders: dict[str, str], tmp_path: Path) -> None:
    for name, content, family in (
        ("mamba_config.json", "{}", "MambaInLlama"),
        ("config.json", '{"model_type": "llamba"}', "Llamba"),
        ("config.json", '{"LanguageModel": {}, "MixerModel": {}}', "Phi-Mamba"),
    ):
        folder = tmp_path / family
        folder.mkdir()
        (folder / "config.json").write_text((Path(folders["llama"]) / "config.json").read_text())
        (folder / name).write_text(content)
        words = refusal(str(folder))
        assert family in words
        assert "--engine native" in words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "int8"}, "there is no dtype 'int8'; write one of auto, bfloat16, float16, float32"),
        ({"device": "tpu"}, "there is no device 'tpu'; write one of auto, cpu, cuda"),
        ({"max_batch_size": 0}, "max_batch_size must be at least 1, got 0"),
    ],
)
def test_unknown_settings_are_refused(folders: dict[str, str], options: Any, words: str) -> None:
    assert words in refusal(folders["llama"], **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(folders: dict[str, str]) -> None:
    assert "there is no CUDA device here" in refusal(folders["llama"], device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["llama", "mamba2"])
def test_a_gpu_draws_what_a_cpu_draws(folders: dict[str, str], name: str) -> None:
    requests = ask(PROMPTS, samples=4)
    on_gpu = transformers(folders[name], device="cuda", dtype="float32")
    assert isinstance(on_gpu, StepwiseModel)
    assert texts(run(on_gpu, requests)) == texts(run(load(folders[name]), requests))
