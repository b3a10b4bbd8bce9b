import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import UserError
from harness.models import checkpoints
from harness.models.checkpoints import find_checkpoint


def folder(path: Path, config: Any, **others: Any) -> str:
    path.mkdir(parents=True)
    for name, content in {"config": config, **others}.items():
        (path / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def refusal(name: str) -> str:
    with pytest.raises(UserError) as caught:
        find_checkpoint(name)
    return str(caught.value)


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("teacher", "student"):
        folder(tmp_path / "zoo" / name, {"model_type": "llama"})
    (tmp_path / "zoo" / "unfinished").mkdir()
    monkeypatch.setattr(checkpoints, "ZOO", tmp_path / "zoo")
    return tmp_path / "zoo"


LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


@pytest.mark.parametrize(
    ("config", "others", "family"),
    [
        (LLAMA, {}, "llama"),
        (LLAMA, {"mamba_config": {"d_model": 8}}, "mamba-in-llama"),
        ({"model_type": "llamba"}, {}, "llamba"),
        ({"ssm_cfg": {}, "mlp_cfg": {}}, {}, "llamba"),
        ({"LanguageModel": {}, "MixerModel": {}, "Block1": {}}, {}, "phi-mamba"),
        ({"model_type": "mamba2"}, {}, "mamba2"),
    ],
)
def test_the_small_files_tell_the_family(tmp_path: Path, config: Any, others: Any, family: str) -> None:
    found = find_checkpoint(folder(tmp_path / "model", config, **others))
    assert found.family == family
    assert found.config == config | others
    assert found.source == str(tmp_path / "model")


def test_a_zoo_name_is_a_folder_beside_the_module(zoo: Path) -> None:
    found = find_checkpoint("zoo/teacher")
    assert (found.name, found.folder) == ("zoo/teacher", zoo / "teacher")


def test_an_unknown_zoo_name_is_answered_with_those_that_exist(zoo: Path) -> None:
    assert refusal("zoo/techer") == "the zoo has no checkpoint 'techer'; it has zoo/student, zoo/teacher"


def test_a_missing_folder_is_named(zoo: Path, tmp_path: Path) -> None:
    words = refusal(str(tmp_path / "nowhere"))
    assert f"there is no checkpoint folder '{tmp_path / 'nowhere'}'" in words
    assert "zoo/teacher" in words


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    assert f"the checkpoint '{tmp_path}' has no config.json" in refusal(str(tmp_path))


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "is a file, not a checkpoint" in refusal(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("config", "words"),
    [("{", "is not valid JSON"), ("[1]", "holds no JSON object"), ({"hidden_size": 8}, "has no model_type")],
)
def test_a_config_that_tells_nothing_is_refused(tmp_path: Path, config: Any, words: str) -> None:
    assert words in refusal(folder(tmp_path / "model", config))


def test_a_hub_id_is_answered_from_its_small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = folder(tmp_path / "snapshot", LLAMA, mamba_config={})
    asked: list[Any] = []

    def snapshot_download(hub_id: str, allow_patterns: list[str]) -> str:
        asked.append((hub_id, sorted(allow_patterns)))
        return stored

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found = find_checkpoint("some-org/some-model")
    assert (found.source, found.family) == ("some-org/some-model", "mamba-in-llama")
    assert asked == [("some-org/some-model", ["config.json", "mamba_config.json"])]


def test_an_unreachable_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot_download(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    words = refusal("some-org/some-model")
    assert "the hub cannot be reached for 'some-org/some-model'" in words
    assert "name its folder" in words


def test_an_unknown_or_gated_repository_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    answer: Any = SimpleNamespace(headers={}, request=None)
    for kind, words in ((RepositoryNotFoundError, "no public hub repository"), (GatedRepoError, "is gated")):

        def snapshot_download(*_: Any, kind: Any = kind, **__: Any) -> str:
            raise kind("no", response=answer)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        assert words in refusal("some-org/some-model")
