import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import example, given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.models.checkpoints import Checkpoint, family
from harness.models.text import decode, encode, may_complete, render
from harness.models.tokenizers_ import LLAMA3_ENDS, byte_tokenizer, end_tokens, load_tokenizer
from harness.nouns import Message

LLAMA = {"model_type": "llama"}
PHI_MAMBA: dict[str, Any] = {"LanguageModel": {}, "MixerModel": {}, "Block1": {}}


def llamba(d_model: int) -> dict[str, Any]:
    return {"ssm_cfg": {}, "mlp_cfg": {}, "d_model": d_model}


def checkpoint(folder: Path, config: dict[str, Any], **files: Any) -> Checkpoint:
    """A folder with a config.json and other small files, as text or JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"config": config, **files}.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return Checkpoint("my-model", str(folder), folder, config, family("my-model", config))


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# End tokens


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        (None, None, {tiny.END}),
        (7, None, {tiny.END, 7}),
        (None, 8, {tiny.END, 8}),
        ([5, 6], [6, 7, 8], {tiny.END, 5, 6, 7, 8}),
        (0, [], {tiny.END, 0}),
    ],
)
def test_end_tokens_are_those_of_both_configs_and_the_tokenizer(
    tmp_path: Path, config: Any, generation: Any, expected: set[int]
) -> None:
    found = checkpoint(
        tmp_path, LLAMA | {"eos_token_id": config}, generation_config={"eos_token_id": generation, "temperature": 0.6}
    )
    assert end_tokens(found, tiny.make_tokenizer()) == expected


def test_nothing_needs_to_name_an_end_token(tmp_path: Path) -> None:
    assert end_tokens(checkpoint(tmp_path, llamba(2048)), byte_tokenizer()) == frozenset()


def test_llama_3s_ends_of_a_turn_always_end(tmp_path: Path) -> None:
    """Student repositories name none of them."""
    tokenizer = tiny.make_tokenizer()
    tokenizer.add_tokens(["<|eot_id|>", "<|start_header_id|>", "<|end_of_text|>"], special_tokens=True)
    found = end_tokens(checkpoint(tmp_path, llamba(2048)), tokenizer)
    assert found == {tiny.END, tiny.VOCAB, tiny.VOCAB + 2}
    assert set(LLAMA3_ENDS) == {"<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"}


@pytest.mark.parametrize("content", ["{", "", "nothing"])
def test_a_damaged_generation_config_is_refused(tmp_path: Path, content: str) -> None:
    found = checkpoint(tmp_path, LLAMA, generation_config=content)
    words = refusal(end_tokens, found, tiny.make_tokenizer())
    assert words.startswith("the generation_config.json of 'my-model' is not valid JSON")
    assert words.endswith("download it again")


def test_a_generation_config_that_is_no_text_is_refused(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, LLAMA)
    (tmp_path / "generation_config.json").write_bytes(b'{"eos_token_id": "\xff\xfe"}')
    assert "the generation_config.json of 'my-model' is not valid JSON" in refusal(
        end_tokens, found, tiny.make_tokenizer()
    )


# Where a tokenizer comes from


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What transformers is asked for, instead of loading it."""
    calls: list[tuple[str, bool]] = []

    def from_pretrained(place: str, *, trust_remote_code: bool) -> str:
        calls.append((place, trust_remote_code))
        return "a tokenizer"

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", from_pretrained)
    return calls


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (llamba(2048), "meta-llama/Llama-3.2-1B-Instruct"),
        (llamba(3072), "meta-llama/Llama-3.2-3B-Instruct"),
        (llamba(4096), "meta-llama/Llama-3.1-8B-Instruct"),
        (PHI_MAMBA, "microsoft/phi-1_5"),
    ],
)
def test_students_without_a_tokenizer_have_their_base_models(
    tmp_path: Path, asked: list[tuple[str, bool]], config: dict[str, Any], place: str
) -> None:
    assert load_tokenizer(checkpoint(tmp_path, config)) == "a tokenizer"
    assert asked == [(place, False)]


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_config"])
@pytest.mark.parametrize("config", [llamba(2048), PHI_MAMBA], ids=["llamba", "phi-mamba"])
def test_a_tokenizer_beside_the_weights_comes_first(
    tmp_path: Path, asked: list[tuple[str, bool]], config: dict[str, Any], name: str
) -> None:
    load_tokenizer(checkpoint(tmp_path, config, **{name: {}}))
    assert asked == [(str(tmp_path), False)]


@pytest.mark.parametrize(
    "config", [LLAMA, {"model_type": "mamba2"}, LLAMA | {"mamba_config": {}}], ids=["llama", "mamba2", "mamba-in-llama"]
)
def test_every_other_family_brings_its_own(
    tmp_path: Path, asked: list[tuple[str, bool]], config: dict[str, Any]
) -> None:
    load_tokenizer(checkpoint(tmp_path, config), trust_remote_code=True)
    assert asked == [(str(tmp_path), True)]


@pytest.mark.parametrize("config", [LLAMA, llamba(2048)], ids=["llama", "llamba"])
def test_a_tokenizer_can_be_named(tmp_path: Path, asked: list[tuple[str, bool]], config: dict[str, Any]) -> None:
    load_tokenizer(checkpoint(tmp_path, config), source="some/other")
    assert asked == [("some/other", False)]


@pytest.mark.parametrize(("files", "place"), [((), "meta-llama/Llama-3.2-1B-Instruct"), (("tokenizer",), "org/llamba")])
def test_a_repository_of_the_hub_is_looked_into(
    tmp_path: Path,
    asked: list[tuple[str, bool]],
    monkeypatch: pytest.MonkeyPatch,
    files: tuple[str, ...],
    place: str,
) -> None:
    commit = tmp_path / "0123abcd"
    local = checkpoint(commit, llamba(2048), **{name: {} for name in files})
    (commit / "model.safetensors").touch()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(commit))
    load_tokenizer(Checkpoint("org/llamba", "org/llamba", commit, local.config, local.family))
    assert asked == [(place, False)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("no such file.\nand a second line"), "(OSError: no such file)"),
        (ValueError(""), "(ValueError: no message)"),
        (ImportError("install sentencepiece"), "(ImportError: install sentencepiece)"),
        (TypeError("not a string"), "(TypeError: not a string)"),
        (KeyError("model"), "(KeyError: 'model')"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_tokenizer_that_cannot_be_loaded_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def from_pretrained(place: str, **_: Any) -> None:
        raise error

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", from_pretrained)
    words = refusal(load_tokenizer, checkpoint(tmp_path, llamba(2048)))
    assert words == (
        f"no tokenizer can be loaded for 'my-model' from 'meta-llama/Llama-3.2-1B-Instruct' {reason}; put the "
        "tokenizer.json and tokenizer_config.json of its base model beside its config.json"
    )


@pytest.mark.parametrize("content", ["{", "[]", '{"version": "1.0", "model": {"type": "BPE"}}'])
def test_a_damaged_tokenizer_is_one_sentence(tmp_path: Path, content: str) -> None:
    known = {"tokenizer_class": "PreTrainedTokenizerFast"}
    found = checkpoint(tmp_path, llamba(2048), tokenizer=content, tokenizer_config=known)
    assert f"no tokenizer can be loaded for 'my-model' from '{tmp_path}'" in refusal(load_tokenizer, found)


def test_a_saved_tokenizer_is_the_one_that_was_saved(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, llamba(2048))
    tiny.make_tokenizer(chat_template=tiny.TEMPLATE).save_pretrained(tmp_path)
    loaded = load_tokenizer(found)
    assert loaded("Grüße")["input_ids"] == tiny.make_tokenizer()("Grüße")["input_ids"]
    assert loaded.chat_template == tiny.TEMPLATE


# One token per byte

BYTES = byte_tokenizer()


@given(st.text())
@example("")
@example(" two  spaces \n\t and \x00 control")
@example("<|eot_id|></s><pad>")
@example("e\u0301 \U0001f469\u200d\U0001f680 \u202e")
def test_any_text_goes_through_bytes_and_back(text: str) -> None:
    ids = encode(BYTES, text)
    assert len(ids) == len(text.encode())
    assert all(0 <= token < 256 for token in ids)
    assert decode(BYTES, ids) == text


def test_each_byte_has_a_token_of_its_own() -> None:
    every = [*range(0x80), *range(0xC0, 0x800)]  # ASCII, and characters of two bytes with every second byte
    ids = [encode(BYTES, chr(code)) for code in every]
    assert len(set(ids)) == len(every)
    assert len({token for one in ids for token in one}) == 128 + 64 + 29  # no UTF-8 text has the other bytes
    assert len(BYTES) == 256


def test_a_token_that_is_no_character_may_complete_any_stop_string() -> None:
    (letter,), first_half = encode(BYTES, "e"), encode(BYTES, "ß")[0]
    flags = may_complete(BYTES, ("he",), 300)
    assert flags[letter]
    assert flags[first_half]
    assert not flags[encode(BYTES, "h")[0]]
    assert flags[256:] == [False] * 44


def test_messages_are_paragraphs_of_bytes() -> None:
    chat = (Message("user", "1+1?"),)
    assert render(BYTES, chat) == "Question: 1+1?\nAnswer:"
    assert decode(BYTES, encode(BYTES, chat)) == "Question: 1+1?\nAnswer:"
