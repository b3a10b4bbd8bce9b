"""The students in vLLM against the native engine: tokens, log-probabilities, frequencies, deadlines.

They need vLLM 0.32, which has an environment of its own (docs/vllm.md): `make test-vllm`.
"""

import ast
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_students
import torch
from fakes import FakeClock
from vllm_students import OTHER_FORMS, STUDENTS, write

from harness.budgets import Budget, Deadline
from harness.models.native import load_model, native
from harness.nouns import Completion, Model, Request, Sampling

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM: make test-vllm"),
    pytest.mark.filterwarnings("ignore"),  # of vLLM and what it imports
    pytest.mark.slow,
]

LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 23, 28, 31, 33, 40, 45, 1)
"""Of 20 prompts, together longer than a forward pass may be, so that some are read beside rows that decode."""
OPTIONS: dict[str, Any] = {"memory_gb": 0.2, "max_batch_size": 20, "max_batch_tokens": 96, "max_model_len": 96}


class Checkpoint:
    """A checkpoint in vLLM and in the native engine; their texts are the token ids, so that nothing hides."""

    def __init__(self, folder: str, **options: Any) -> None:
        from harness.models.vllm_ import vllm

        self.folder = folder
        self.vllm: Any = show_ids(vllm(folder, **{**OPTIONS, **options}))
        self.native: Any = show_ids(native(folder, dtype="float32"))

    def logprob(self, prompt: list[int], ids: list[int], temperature: float) -> float:
        """What the ids are worth after the prompt, by our own module's whole forward pass."""
        with torch.inference_mode():
            logits = load_model(self.folder)(torch.tensor([prompt + ids]))[0, len(prompt) - 1 : -1]
        return float((logits / temperature).log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum())


def show_ids(model: Any) -> Model:
    model.endings.shown = lambda ids, stop, *, cut: repr(list(ids))
    return model  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=["zoo/teacher", *STUDENTS])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    torch.set_num_threads(1)
    name = request.param
    folder = name if name in ("zoo/teacher",) else write(STUDENTS[name](), tmp_path_factory.mktemp(name))
    found = Checkpoint(folder)
    yield found
    found.vllm.close()


def prompts() -> list[str]:
    """One letter is one token of the students' tokenizer."""
    letters = "the quick brown fox jumps over a lazy dog and runs "
    return [f"{chr(65 + n)}{letters}"[:length] for n, length in enumerate(LENGTHS)]


def requests(sampling: Sampling, samples: int = 1, texts: list[str] | None = None) -> list[Request]:
    return [
        Request(f"p{number}", index, text, sampling)
        for index in range(samples)
        for number, text in enumerate(texts or prompts())
    ]


def run(model: Model, asked: list[Request], deadline: Deadline | None = None) -> dict[tuple[str, int], Completion]:
    rows = list(model.generate(asked, deadline or Deadline(None)))
    return {(row.problem_id, row.sample_index): row for row in rows}


def test_sampling_frequencies_are_those_of_the_logits(checkpoint: Checkpoint) -> None:
    from scipy.stats import chisquare

    text, draws = prompts()[4], 800
    ids = checkpoint.native.tokenizer(text)["input_ids"]
    with torch.inference_mode():
        logits = load_model(checkpoint.folder)(torch.tensor([ids]))[0, -1]
    expected = {temperature: (logits / temperature).softmax(-1) * draws for temperature in (2.0, 1.0, 0.6, 0.4, 0.2)}
    # The temperature at which most tokens are expected often enough to be counted by themselves.
    temperature = max(expected, key=lambda temperature: int((expected[temperature] >= 10).sum()))
    sampling = Sampling(temperature=temperature, max_tokens=1, seed=5)
    found = run(checkpoint.vllm, [Request("p", index, text, sampling) for index in range(draws)])
    drawn = torch.tensor([ast.literal_eval(row.text)[0] for row in found.values()])
    counts, wanted = torch.bincount(drawn, minlength=len(logits)).double(), expected[temperature].double()
    often = wanted >= 10
    assert int(often.sum()) > 2
    observed = [*counts[often].tolist(), float(counts[~often].sum())]
    predicted = [*wanted[often].tolist(), draws - float(wanted[often].sum())]
    assert chisquare(observed, predicted).pvalue > 1e-3


def test_greedy_tokens_are_the_native_engines(checkpoint: Checkpoint) -> None:
    asked = requests(Sampling(temperature=0.0, max_tokens=24))
    ours, theirs = run(checkpoint.native, asked), run(checkpoint.vllm, asked)
    assert checkpoint.vllm.facts["largest_batch_size"] == len(LENGTHS)
    assert {key: row.text for key, row in theirs.items()} == {key: row.text for key, row in ours.items()}
    for key, row in theirs.items():
        mine = ours[key]
        assert (row.finish_reason, row.completion_tokens) == (mine.finish_reason, mine.completion_tokens)
        assert (row.prefill_flops, row.decode_flops) == (mine.prefill_flops, mine.decode_flops)
        assert (row.prompt_tokens, row.seed, row.logprob) == (mine.prompt_tokens, mine.seed, mine.logprob)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_a_whole_forward_pass(checkpoint: Checkpoint, temperature: float) -> None:
    for row in run(checkpoint.vllm, requests(Sampling(temperature=temperature, max_tokens=24))).values():
        text = prompts()[int(row.problem_id[1:])]
        ids = checkpoint.native.tokenizer(text)["input_ids"]
        expected = checkpoint.logprob(ids, ast.literal_eval(row.text), temperature)
        assert row.logprob == pytest.approx(expected, abs=1e-3)


def test_a_deadline_is_kept_to_the_step_and_leaves_prefixes(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(Sampling(temperature=0.8, max_tokens=30), samples=2)
    whole = run(checkpoint.vllm, asked)
    clock, core = FakeClock(), checkpoint.vllm.engine.engine_core
    step = core.get_output

    def slow_step() -> Any:
        clock.sleep(1.0)
        return step()

    monkeypatch.setattr(core, "get_output", slow_step)
    deadline = Deadline(Budget(20.5), clock)
    found = run(checkpoint.vllm, asked, deadline)
    assert deadline.elapsed_s == 21  # the first step at whose end the budget is used up
    cut = {key: row for key, row in found.items() if row.finish_reason == "deadline"}
    assert cut
    assert len(found) < len(asked)
    for key, row in found.items():
        ids, all_ids = ast.literal_eval(row.text), ast.literal_eval(whole[key].text)
        assert ids == all_ids[: len(ids)]
        assert (row.finish_reason == "deadline") or ids == all_ids
        assert row.finished_s <= 21
    monkeypatch.undo()
    assert {key: row.text for key, row in run(checkpoint.vllm, asked).items()} == {
        key: row.text for key, row in whole.items()
    }


@pytest.mark.parametrize("name", ["mamba-2", *OTHER_FORMS])
def test_every_form_of_the_files_gives_the_native_engines_tokens_when_prompts_are_read_in_pieces(
    name: str, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    pieces = {"max_num_scheduled_tokens": "24", "enable_chunked_prefill": "true", "max_batch_size": 7}
    found = Checkpoint(write((STUDENTS | OTHER_FORMS)[name](), tmp_path / "student"), **pieces)
    try:
        asked = requests(Sampling(temperature=0.0, max_tokens=12))
        ours, theirs = run(found.native, asked), run(found.vllm, asked)
        assert {key: row.text for key, row in theirs.items()} == {key: row.text for key, row in ours.items()}
    finally:
        found.vllm.close()


@pytest.mark.parametrize("name", STUDENTS)
def test_bfloat16_differs_by_rounding_only(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    found = Checkpoint(write(STUDENTS[name](), tmp_path / "student"), dtype="bfloat16")
    try:
        for row in run(found.vllm, requests(Sampling(temperature=1.0, max_tokens=24))).values():
            ids = found.native.tokenizer(prompts()[int(row.problem_id[1:])])["input_ids"]
            expected = found.logprob(ids, ast.literal_eval(row.text), 1.0)
            # Measured: 0.01 per token, as between the native engine's own dtypes; a wrong layer makes it 0.5 and more.
            assert row.logprob == pytest.approx(expected, abs=0.06 * row.completion_tokens)
    finally:
        found.vllm.close()


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("llamba", "LlambaForCausalLM"),
        ("mamba-1", "MambaInLlamaForCausalLM"),
        ("mamba-2", "MambaInLlamaForCausalLM"),
        ("mamba-2 pure", "PureMambaInLlamaForCausalLM"),
    ],
)
def test_vllm_recognises_a_student_by_its_folder(name: str, architecture: str, tmp_path: Path) -> None:
    from vllm.transformers_utils.config import get_config

    from harness.models.vllm_plugin.registration import register

    register()
    folder = write((STUDENTS | OTHER_FORMS)[name](), tmp_path / "student")
    assert get_config(folder, trust_remote_code=False).architectures == [architecture]


def test_a_llama_stays_a_llama_and_a_mamba_in_llama_does_not(tmp_path: Path) -> None:
    from vllm.transformers_utils.config import get_config

    from harness.models.vllm_plugin.registration import register

    register()
    folder = write(STUDENTS["mamba-1"](), tmp_path / "student")
    assert json.loads(Path(folder, "config.json").read_text())["model_type"] == "llama"
    config = get_config(folder, trust_remote_code=False)
    assert (config.model_type, config.layers_block_type) == ("mamba_in_llama", ["mamba", "attention", "mamba"])
    Path(folder, "mamba_config.json").unlink()
    assert get_config(folder, trust_remote_code=False).model_type == "llama"


def test_rope_scaling_goes_by_the_form_of_the_weights(tmp_path: Path) -> None:
    from vllm.transformers_utils.config import get_config

    from harness.models.vllm_plugin.registration import register

    register()
    separate = get_config(write(STUDENTS["mamba-1"](), tmp_path / "a"), trust_remote_code=False)
    fused = get_config(write(OTHER_FORMS["mamba-1 fused"](), tmp_path / "b"), trust_remote_code=False)
    assert separate.rope_parameters["rope_type"] == "llama3"
    assert fused.rope_parameters["rope_type"] == "default"
    assert separate.rope_parameters["rope_theta"] == fused.rope_parameters["rope_theta"] == 500.0


def test_a_llamba_without_a_tokenizer_is_served_with_its_base_models(tmp_path: Path) -> None:
    from harness.models.vllm_plugin.defaults import AttentionFreeDefaults

    bare = tiny_students.save(
        tiny_students.llamba(d_model=2048, ssm={"n_v_heads": 32, "n_qk_heads": 32}), tmp_path / "a"
    )
    whole = write(STUDENTS["llamba"](), tmp_path / "b")
    for folder, tokenizer in ((bare, "meta-llama/Llama-3.2-1B-Instruct"), (whole, whole)):
        config = SimpleNamespace(skip_tokenizer_init=False, model=folder, tokenizer=folder)
        AttentionFreeDefaults.verify_and_update_model_config(config)
        assert config.tokenizer == tokenizer


def test_an_unknown_weight_is_refused() -> None:
    from harness.models.vllm_plugin.loading import Piece, fill

    model = torch.nn.Linear(2, 2, bias=False)
    with pytest.raises(ValueError, match="weight 'wieght'"):
        fill(model, [("wieght", torch.zeros(2, 2))], lambda key, rows: [Piece(key, rows)])


def test_another_version_of_vllm_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import vllm
    from vllm import ModelRegistry

    from harness.models.vllm_plugin import registration

    monkeypatch.setattr(vllm, "__version__", "0.99.1")
    monkeypatch.setattr(ModelRegistry, "register_model", lambda *_: pytest.fail("registered"))
    registration.register()
    assert "0.99.1" in caplog.text
