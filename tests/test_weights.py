import errno
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.errors import UserError
from harness.models.architectures.layout import Layout, Place
from harness.models.checkpoints import Checkpoint, whole_folder
from harness.models.weights import WeightFiles, collect, fill, open_weights

WEIGHTS = {
    "q": torch.arange(8.0).view(4, 2),
    "k": torch.arange(8.0, 12.0).view(2, 2),
    "v": torch.arange(12.0, 16.0).view(2, 2),
    "o": torch.arange(16.0, 24.0).view(2, 4),
    "scale": torch.tensor([0.5, 0.25]),
}
LAYOUT: Layout = {
    "q": Place("in_proj.weight"),
    "k": Place("in_proj.weight", 4),
    "v": Place("in_proj.weight", 6),
    "o": Place("out_proj.weight"),
    "scale": Place("scale"),
    "rotary": None,
}


class Mixer(nn.Module):
    """q, k and v share one parameter, as in the architectures."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj = nn.Linear(2, 8, bias=False)
        self.out_proj = nn.Linear(4, 2, bias=False)
        self.scale = nn.Parameter(torch.empty(2))


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint("my-model", str(folder), folder, {}, "llama")


def opened(folder: Path) -> WeightFiles:
    return open_weights(checkpoint(folder))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        opened(folder)
    return one_sentence(caught.value)


def one_sentence(error: UserError) -> str:
    words = str(error)
    assert "\n" not in words
    assert not words.endswith(".")
    assert "'my-model'" in words
    return words


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in tensors.items()}


def write_safetensors(folder: Path, tensors: Mapping[str, Tensor] = WEIGHTS, name: str = "model.safetensors") -> Path:
    save_file(copied(tensors), folder / name, {"format": "pt"})
    return folder / name


def write_bin(folder: Path, state: Any = WEIGHTS, name: str = "pytorch_model.bin", *, legacy: bool = False) -> Path:
    torch.save(
        dict(state) if isinstance(state, Mapping) else state, folder / name, _use_new_zipfile_serialization=not legacy
    )
    return folder / name


def write_shards(folder: Path, write: Callable[..., Path], whole: str) -> list[Path]:
    """Two shards with their index; returns the two."""
    stem, end = whole.split(".")
    names = [f"{stem}-{number}-of-2.{end}" for number in (1, 2)]
    halves = [list(WEIGHTS)[:2], list(WEIGHTS)[2:]]
    paths = [write(folder, {key: WEIGHTS[key] for key in half}, name) for name, half in zip(names, halves, strict=True)]
    weight_map = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    (folder / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return paths


def assert_filled(model: Mixer) -> None:
    assert model.in_proj.weight.tolist() == [[2.0 * row, 2.0 * row + 1] for row in range(8)]
    assert model.out_proj.weight.tolist() == [[16, 17, 18, 19], [20, 21, 22, 23]]
    assert model.scale.tolist() == [0.5, 0.25]


def legacy(folder: Path, *content: Any) -> Path:
    return write_bin(folder, *content, legacy=True)


FORMS: dict[str, Callable[[Path], Any]] = {
    "safetensors": write_safetensors,
    "another name": lambda folder: write_safetensors(folder, name="student.safetensors"),
    "bin": write_bin,
    "bin of before torch 1.6": legacy,
    "sharded safetensors": lambda folder: write_shards(folder, write_safetensors, "model.safetensors"),
    "sharded bin": lambda folder: write_shards(folder, write_bin, "pytorch_model.bin"),
    "sharded bin of before torch 1.6": lambda folder: write_shards(folder, legacy_shard, "pytorch_model.bin"),
}


def legacy_shard(folder: Path, state: Any, name: str) -> Path:
    return write_bin(folder, state, name, legacy=True)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file_fills_the_model(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path)
    files = opened(tmp_path)
    assert files.name == "my-model"
    assert files.shapes == {"q": (4, 2), "k": (2, 2), "v": (2, 2), "o": (2, 4), "scale": (2,)}
    assert all(torch.equal(files.tensor(key), tensor) for key, tensor in WEIGHTS.items())
    model = Mixer()
    fill(model, files, LAYOUT)
    assert_filled(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_first_form_that_is_there_is_taken(tmp_path: Path) -> None:
    orders: list[tuple[str, Callable[[Path, Mapping[str, Tensor]], Any]]] = [
        ("other", lambda folder, tensors: write_safetensors(folder, tensors, "other.safetensors")),
        ("bin", write_bin),
        ("bin shards", lambda folder, tensors: index(folder, "pytorch_model.bin", write_bin(folder, tensors, "a.bin"))),
        ("safetensors", write_safetensors),
        (
            "shards",
            lambda folder, tensors: index(
                folder, "model.safetensors", write_safetensors(folder, tensors, "a.safetensors")
            ),
        ),
    ]
    for name, write in orders:  # each wins over all before it
        write(tmp_path, {name: torch.zeros(1)})
        assert list(opened(tmp_path).shapes) == [name]


def index(folder: Path, whole: str, shard: Path) -> None:
    key = {"a.bin": "bin shards", "a.safetensors": "shards"}[shard.name]
    (folder / f"{whole}.index.json").write_text(json.dumps({"weight_map": {key: shard.name}}))


def test_what_other_tools_leave_in_the_folder_is_not_looked_at(tmp_path: Path) -> None:
    write_safetensors(tmp_path, name="student.safetensors")
    write_safetensors(tmp_path, {"lora": torch.zeros(1)}, "adapter_model.safetensors")
    (tmp_path / "original").mkdir()
    write_safetensors(tmp_path / "original", {"w": torch.zeros(1)})
    for name in ("consolidated.00.pth", "training_args.bin", "adapter_model.bin"):
        (tmp_path / name).write_bytes(b"?")
    assert opened(tmp_path).shapes.keys() == WEIGHTS.keys()


@pytest.mark.parametrize(
    ("others", "listed"),
    [
        ([], "nothing"),
        (["config.json"], "config.json"),
        (["a.safetensors", "b.safetensors"], "a.safetensors, b.safetensors"),
        (["adapter_model.safetensors"], "adapter_model.safetensors"),
        ([f"{number}.txt" for number in range(6)], "0.txt, 1.txt, 2.txt, 3.txt, 4.txt, 5.txt"),
        ([f"{number}.txt" for number in range(9)], "0.txt, 1.txt, 2.txt, 3.txt, 4.txt, 5.txt and 3 more"),
    ],
)
def test_a_folder_without_weights_is_answered_with_what_it_has(tmp_path: Path, others: list[str], listed: str) -> None:
    for name in others:
        (tmp_path / name).write_bytes(b"")
    assert refusal(tmp_path) == (
        "the checkpoint 'my-model' has neither model.safetensors nor pytorch_model.bin, nor the .index.json of either "
        f"(its folder has {listed}); put its weight files there"
    )


@pytest.mark.parametrize(
    ("whole", "write"), [("model.safetensors", write_safetensors), ("pytorch_model.bin", write_bin)]
)
def test_shards_and_index_must_agree(tmp_path: Path, whole: str, write: Callable[..., Path]) -> None:
    first, second = write_shards(tmp_path, write, whole)
    without_o = {key: WEIGHTS[key] for key in ("v", "scale")}
    write(tmp_path, without_o, second.name)
    assert refusal(tmp_path) == (
        f"the index of 'my-model' says that 'o' is in {second.name}, and it is not; download it again"
    )
    write(tmp_path, {**without_o, "o": WEIGHTS["o"], "q": WEIGHTS["q"]}, second.name)
    assert refusal(tmp_path) == (
        f"the weight 'q' of 'my-model' stands in both {first.name} and {second.name}; download it again"
    )
    second.unlink()
    assert f"lacks 1 of the 2 weight files that its index names: {second.name}; download" in refusal(tmp_path)


def test_a_key_in_the_other_shard_than_the_index_says_is_refused(tmp_path: Path) -> None:
    second = write_shards(tmp_path, write_safetensors, "model.safetensors")[1]
    path = tmp_path / "model.safetensors.index.json"
    told = json.loads(path.read_text())
    told["weight_map"]["q"] = second.name
    path.write_text(json.dumps(told))
    assert f"says that 'q' is in {second.name}, and it is not" in refusal(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        '{"weight_map": {}}',
        '{"weight_map": []}',
        '{"weight_map": ["model.safetensors"]}',
        '{"weight_map": 3}',
        '{"weight_map": {"q": 1}}',
        '{"weight_map": {"q": "../secret.safetensors"}}',
        '{"weight_map": {"q": "/secret.safetensors"}}',
        b"\xff\xfe",
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "has no weight_map from keys to files beside it" in refusal(tmp_path)


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4990000000\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
def test_a_git_lfs_pointer_is_recognised(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    assert refusal(tmp_path) == f"'{name}' of 'my-model' is only a git-LFS pointer; run `git lfs pull` in its folder"


def test_a_pointer_in_place_of_one_shard_is_recognised(tmp_path: Path) -> None:
    write_shards(tmp_path, write_safetensors, "model.safetensors")[1].write_text(POINTER)
    assert "'model-2-of-2.safetensors' of 'my-model' is only a git-LFS pointer" in refusal(tmp_path)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_safetensors(tmp_path)

    def refuse(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "'model.safetensors' of 'my-model' cannot be read (Permission denied)" in refusal(tmp_path)


DAMAGED = "the weight file '{}' of 'my-model' is damaged or cut short; download it again"


def test_safetensors_cut_at_any_byte_are_refused(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert refusal(tmp_path) == DAMAGED.format("model.safetensors")
    path.write_bytes(whole + b"\0")
    assert refusal(tmp_path) == DAMAGED.format("model.safetensors")


def header(entries: Any) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**64 - 1) + b"{}",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 90_000_000) + b"{}",
        header(b"\xff" * 40),
        header(b"[" * 5000),
        header([1]),
        header({"q": 1}),
        header({"q": entry([2], 0, 4)}) + bytes(4),
        header({"q": entry([2], 8, 16)}) + bytes(16),
        header({"q": entry([2], 8, 0)}) + bytes(8),
        header({"q": entry([-2], 0, 8)}) + bytes(8),
        header({"q": entry([2], 0, 8, "F31")}) + bytes(8),
        header({"q": entry([2**62, 4], 0, 16)}) + bytes(16),
        header({"q": entry([2], 0, 8), "k": entry([2], 4, 12)}) + bytes(12),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert refusal(tmp_path) == DAMAGED.format("model.safetensors")


@settings(deadline=None)
@given(content=st.binary(max_size=200), has_length=st.booleans())
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, has_length: bool) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(content)) + content if has_length else b"\x9c" + content)
    assert refusal(folder) == DAMAGED.format(path.name)
    path.rename(folder / "pytorch_model.bin")
    assert "'pytorch_model.bin' of 'my-model'" in refusal(folder)


@pytest.mark.parametrize("is_legacy", [False, True])
def test_a_bin_that_is_cut_is_refused(tmp_path: Path, is_legacy: bool) -> None:
    path = write_bin(tmp_path, legacy=is_legacy)
    whole = path.read_bytes()
    for length in [*range(40), *range(40, len(whole), max(1, len(whole) // 150)), len(whole) - 1]:
        path.write_bytes(whole[:length])
        words = refusal(tmp_path)
        assert "damaged" in words
        if length == 0 or (length >= 4 and not is_legacy):  # from 4 bytes on it is known to be a zip archive
            assert words == DAMAGED.format("pytorch_model.bin")


@pytest.mark.parametrize("is_legacy", [False, True])
def test_a_bin_with_wrong_bytes_is_refused_or_read(tmp_path: Path, is_legacy: bool) -> None:
    path = write_bin(tmp_path, legacy=is_legacy)
    whole = path.read_bytes()
    chance = random.Random(0)
    for _ in range(150):
        wrong = bytearray(whole)
        for _ in range(chance.choice([1, 3])):
            wrong[chance.randrange(len(wrong))] = chance.randrange(256)
        path.write_bytes(wrong)
        try:
            fill(Mixer(), opened(tmp_path), LAYOUT)
        except UserError as error:
            one_sentence(error)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def plain_pickle(state: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(state, protocol=2))


def zipped(state: Any, path: Path) -> None:
    torch.save(state, path)


def unzipped(state: Any, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [plain_pickle, zipped, unzipped])
def test_code_in_a_bin_is_refused_and_not_run(tmp_path: Path, write: Callable[[Any, Path], None]) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "pytorch_model.bin"
    for state in ({**WEIGHTS, "q": Evil(mark)}, Evil(mark), {"state": [Evil(mark)]}):
        write(state, path)
        assert "'pytorch_model.bin' of 'my-model' cannot be read without running code" in refusal(tmp_path)
        assert not mark.exists()
    if write is plain_pickle:
        pickle.loads(path.read_bytes())
        assert mark.is_dir()  # it does run where it may


def test_a_bin_beside_safetensors_is_not_opened(tmp_path: Path) -> None:
    write_safetensors(tmp_path)
    zipped(Evil(tmp_path / "mark"), tmp_path / "pytorch_model.bin")
    assert opened(tmp_path).shapes.keys() == WEIGHTS.keys()


@pytest.mark.parametrize(
    "state",
    [
        [torch.zeros(2)],
        torch.zeros(2),
        {"model": dict(WEIGHTS)},
        {**WEIGHTS, "step": 3},
        dict([*WEIGHTS.items(), (3, torch.zeros(2))]),
        {**WEIGHTS, "q": torch.zeros(2, 2).to_sparse()},
        {**WEIGHTS, "q": torch.zeros(2, device="meta")},
    ],
)
def test_a_bin_that_is_no_flat_state_dict_is_refused(tmp_path: Path, state: Any) -> None:
    zipped(state, tmp_path / "pytorch_model.bin")
    words = refusal(tmp_path)
    assert "the weight file 'pytorch_model.bin' of 'my-model' is not a flat state dict of tensors" in words
    assert "torch.save(model.state_dict(), 'pytorch_model.bin')" in words


def test_a_bin_of_parameters_that_share_memory_is_read(tmp_path: Path) -> None:
    tied = nn.Parameter(torch.arange(6.0).view(3, 2))
    zipped({"embedding": tied, "head": tied}, tmp_path / "pytorch_model.bin")
    files = opened(tmp_path)
    assert torch.equal(files.tensor("head"), tied)
    assert files.shapes == {"embedding": (3, 2), "head": (3, 2)}


@pytest.mark.parametrize("is_zip", [False, True])
def test_an_unusual_pickle_protocol_is_read_or_refused_without_a_warning(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(dict(WEIGHTS), path, pickle_protocol=3, _use_new_zipfile_serialization=is_zip)
    assert opened(tmp_path).shapes.keys() == WEIGHTS.keys()
    path.write_bytes(pickle.dumps({"q": 1}, protocol=5))
    assert "cannot be read without running code from it, which is refused, or is damaged" in refusal(tmp_path)


def held(tensors: Mapping[str, Tensor]) -> WeightFiles:
    """Tensors as if files held them."""
    return WeightFiles(
        "my-model",
        {key: tuple(tensor.shape) for key, tensor in tensors.items()},
        {key: str(tensor.dtype).removeprefix("torch.") for key, tensor in tensors.items()},
        dict.fromkeys(tensors, tensors.__getitem__),
    )


def unfit(tensors: Mapping[str, Tensor], layout: Layout = LAYOUT, model: nn.Module | None = None) -> str:
    """The sentence with which `fill` refuses; nothing has been copied by then."""
    model = model or Mixer()
    before = copied(model.state_dict())
    with pytest.raises(UserError) as caught:
        fill(model, held(tensors), layout)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[key], rtol=0, atol=0, equal_nan=True)
    return one_sentence(caught.value)


def test_unknown_weights_are_listed() -> None:
    more = {f"layers.{number}.self_attn": torch.zeros(1) for number in range(8)}
    assert unfit(WEIGHTS | more) == (
        "the checkpoint 'my-model' has unknown 8 weights of its architecture: "
        f"{', '.join(f'layers.{number}.self_attn' for number in range(6))} and 2 more; check that config.json is the "
        "right one and that all weight files are there"
    )


def test_missing_weights_are_listed() -> None:
    assert "the checkpoint 'my-model' lacks 2 weights of its architecture: k, q;" in unfit(
        {key: tensor for key, tensor in WEIGHTS.items() if key not in ("q", "k")}
    )


def test_a_parameter_without_a_key_is_a_missing_weight() -> None:
    layout = {key: place for key, place in LAYOUT.items() if key != "scale"}
    tensors = {key: tensor for key, tensor in WEIGHTS.items() if key != "scale"}
    assert "lacks 1 weights of its architecture: scale;" in unfit(tensors, layout)


def test_a_key_that_is_known_and_not_used_may_be_there_or_not() -> None:
    for more in ({}, {"rotary": torch.zeros(7, dtype=torch.int64)}):
        model = Mixer()
        fill(model, held(WEIGHTS | more), LAYOUT)
        assert_filled(model)


@pytest.mark.parametrize("shape", [(3, 2), (5, 2), (4, 3), (8,), (4, 2, 1), ()])
def test_a_shape_that_does_not_fit_is_told_with_the_one_that_does(shape: tuple[int, ...]) -> None:
    assert unfit(WEIGHTS | {"q": torch.zeros(shape)}) == (
        f"the weight 'q' of 'my-model' has the shape {shape} and config.json asks for (4, 2); check that both are of "
        "the same checkpoint"
    )


def test_a_last_key_with_too_few_rows_is_refused() -> None:
    assert "'v' of 'my-model' has the shape (1, 2) and config.json asks for (2, 2)" in unfit(
        WEIGHTS | {"v": torch.zeros(1, 2)}
    )


QUANTISED = "quantised checkpoints are not supported"


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
@pytest.mark.parametrize("write", [write_safetensors, write_bin])
def test_weights_that_are_not_floats_are_refused(
    tmp_path: Path, dtype: torch.dtype, write: Callable[..., Path]
) -> None:
    write(tmp_path, WEIGHTS | {"q": torch.zeros(4, 2).to(dtype), "q_scale": torch.zeros(1)})
    with pytest.raises(UserError, match=QUANTISED) as caught:
        fill(Mixer(), opened(tmp_path), LAYOUT)
    assert "the weight 'q' of 'my-model' is stored as" in one_sentence(caught.value)


def test_four_bit_floats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(header({"q": entry([4, 2], 0, 4, "F4")}) + bytes(4))
    with pytest.raises(UserError, match=f"'q' of 'my-model' is stored as F4, and {QUANTISED}"):
        fill(Mixer(), opened(tmp_path), LAYOUT)


@pytest.mark.parametrize("name", ["q.qweight", "q.weight_packed"])
def test_the_keys_of_packed_weights_are_known(name: str) -> None:
    tensors = {key: tensor for key, tensor in WEIGHTS.items() if key != "q"}
    packed = {name: torch.zeros(1, 2, dtype=torch.int32), "q.scales": torch.zeros(1, 2)}
    assert f"'{name}' of 'my-model' is stored as int32, and {QUANTISED}" in unfit(tensors | packed)


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_cast_to_the_dtype_of_their_parameter(
    tmp_path: Path, stored: torch.dtype, wanted: torch.dtype
) -> None:
    write_safetensors(tmp_path, {key: tensor.to(stored) for key, tensor in WEIGHTS.items()})
    model = Mixer().to(wanted)
    model.scale.data = model.scale.data.float()
    fill(model, opened(tmp_path), LAYOUT)
    assert_filled(model)
    assert (model.in_proj.weight.dtype, model.scale.dtype) == (wanted, torch.float32)


class Tied(nn.Module):
    """A head that is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 2)
        self.head = nn.Linear(2, 3, bias=False)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize("name", ["embedding.weight", "head.weight"])
def test_a_tied_parameter_is_filled_once_under_either_name(name: str) -> None:
    model, wanted = Tied(), torch.arange(6.0).view(3, 2)
    layout: Layout = {"e": Place(name), "lm_head.weight": None}
    fill(model, held({"e": wanted}), layout)
    assert torch.equal(model.head.weight, wanted)
    assert torch.equal(model.embedding.weight, wanted)
    assert list(collect(model, layout)) == ["e"]
    both: Layout = {"e": Place("embedding.weight"), "h": Place("head.weight")}
    with pytest.raises(ValueError, match="without gap and overlap"):
        fill(model, held({"e": wanted, "h": wanted}), both)


def test_a_parameter_without_dimensions_is_filled() -> None:
    model = nn.Module()
    model.gain = nn.Parameter(torch.tensor(0.0))
    fill(model, held({"g": torch.tensor(2.5)}), {"g": Place("gain")})
    assert model.gain.item() == 2.5
    assert collect(model, {"g": Place("gain")})["g"].item() == 2.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"q": Place("in_projection.weight")}, "which the model does not have"),
        ({"q": Place("in_proj.weight", 1)}, "without gap and overlap"),
        ({"k": Place("in_proj.weight", 6)}, "without gap and overlap"),
        ({"v": Place("in_proj.weight", 8)}, "without gap and overlap"),
        ({"v": Place("in_proj.weight", -2)}, "without gap and overlap"),
        ({"o": Place("out_proj.weight", 1)}, "without gap and overlap"),
    ],
)
def test_a_layout_that_does_not_suit_the_model_is_a_mistake_of_the_program(
    change: dict[str, Place], words: str
) -> None:
    for use in (lambda layout: fill(Mixer(), held(WEIGHTS), layout), lambda layout: collect(Mixer(), layout)):
        with pytest.raises(ValueError, match=words):
            use({**LAYOUT, **change})


def test_a_model_without_memory_is_not_filled_in_silence() -> None:
    with torch.device("meta"):
        model = Mixer()
    with pytest.raises(ValueError, match="meta device"):
        fill(model, held(WEIGHTS), LAYOUT)
    model.to_empty(device="cpu")
    fill(model, held(WEIGHTS), LAYOUT)
    assert_filled(model)


def test_collect_gives_the_published_keys_as_copies(tmp_path: Path) -> None:
    model = Mixer()
    fill(model, held(WEIGHTS), LAYOUT)
    state = collect(model, LAYOUT)
    assert state.keys() == WEIGHTS.keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in WEIGHTS.items())
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in state.values())
    save_file(state, tmp_path / "model.safetensors")  # which refuses tensors that share memory
    fill(model, held({key: tensor * 0 for key, tensor in WEIGHTS.items()}), LAYOUT)
    assert torch.equal(state["k"], WEIGHTS["k"])
    fill(model, opened(tmp_path), LAYOUT)
    assert_filled(model)


def test_collect_does_not_leave_out_a_parameter() -> None:
    with pytest.raises(ValueError, match=r"no key for scale"):
        collect(Mixer(), {key: place for key, place in LAYOUT.items() if key != "scale"})


class Rows(nn.Module):
    """Parameters of the given numbers of rows."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__()
        self.weights = nn.ParameterList([torch.zeros(number, 3) for number in rows])


@settings(deadline=None)
@given(parts=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=4), seed=st.integers(0))
def test_any_parting_of_rows_is_filled_and_collected(parts: list[list[int]], seed: int) -> None:
    chance = random.Random(seed)
    pieces = [[torch.tensor([[chance.random()] * 3] * rows) for rows in counts] for counts in parts]
    entries = [
        (f"{number}.{piece}", Place(f"weights.{number}", sum(counts[:piece])), pieces[number][piece])
        for number, counts in enumerate(parts)
        for piece in range(len(counts))
    ]
    chance.shuffle(entries)
    layout = {key: place for key, place, _ in entries}
    model = Rows([sum(counts) for counts in parts])
    fill(model, held({key: tensor for key, _, tensor in entries}), layout)
    for parameter, joined in zip(model.weights, pieces, strict=True):
        assert torch.equal(parameter, torch.cat(joined))
    back = collect(model, layout)
    assert all(torch.equal(back[key], tensor) for key, _, tensor in entries)


@pytest.mark.parametrize("shard", ["1MB", "20kB"])
def test_what_transformers_saves_is_read(tmp_path: Path, shard: str) -> None:
    saved = tiny.llama()
    saved.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").is_file() == (shard == "20kB")
    other = type(saved)(saved.config)
    files = opened(tmp_path)
    fill(other, files, {key: Place(key) for key in files.shapes})
    tokens = torch.arange(10)[None]
    assert torch.equal(other(tokens).logits, saved(tokens).logits)


MEMORY = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from torch import nn
from harness.models.architectures.layout import Layout, Place
from harness.models.checkpoints import Checkpoint
from harness.models.architectures.layout import Place
from harness.models.weights import fill, open_weights

def anonymous_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

torch.set_num_threads(1)
folder = Path(sys.argv[1])
model = nn.ParameterList([torch.ones(1024, 1024) for _ in range(16)])
seen = []
before = anonymous_mb()
files = open_weights(Checkpoint("my-model", str(folder), folder, {}, "llama"))
def watched(read):
    def reading(key):
        seen.append(anonymous_mb())
        tensor = read(key)
        seen.append(anonymous_mb())
        return tensor
    return reading
files = replace(files, readers={key: watched(read) for key, read in files.readers.items()})
fill(model, files, {str(number): Place(str(number)) for number in range(16)})
assert len(seen) == 32 and model[15][3, 4] == 15
print(max(*seen, anonymous_mb()) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc")
@pytest.mark.parametrize("write", [write_safetensors, write_bin])
def test_filling_does_not_hold_the_weights_twice(tmp_path: Path, write: Callable[..., Path]) -> None:
    write(tmp_path, {str(number): torch.full((1024, 1024), float(number)) for number in range(16)})  # 64 MiB
    root = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 24  # MiB beyond the model's own; the weights at once would be 64


class Hub:
    """A stand-in for the hub: `snapshot_download` as documented, from a table of files."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        self.folder, self.files = folder, files
        self.asked: list[str | None] = []

    def snapshot_download(
        self, repo_id: str, *, allow_patterns: list[str], ignore_patterns: list[str], revision: str
    ) -> str:
        from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

        assert (repo_id, revision) == ("some-org/some-model", self.folder.name)
        for name in filter_repo_objects(self.files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_bytes(self.files[name])
        return str(self.folder)

    def stored(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}


def written(write: Callable[[io.BytesIO], None]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def remote(folder: Path) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    return Checkpoint("my-model", "some-org/some-model", folder, {}, "llama")


SMALL = ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model"]
NOT_FETCHED = ["README.md", "original/model.safetensors", "original/params.json", "adapter_model.safetensors", "x.pth"]


@pytest.mark.parametrize("whole", ["model.safetensors", "pytorch_model.bin"])
def test_a_hub_checkpoint_is_fetched_with_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: str
) -> None:
    state = written(lambda buffer: torch.save(dict(WEIGHTS), buffer))
    files = dict.fromkeys([*SMALL, *NOT_FETCHED, "training_args.bin"], b"{}") | {"pytorch_model.bin": state}
    if whole == "model.safetensors":
        files[whole] = write_safetensors(tmp_path, name="made").read_bytes()
    hub = Hub(tmp_path / "0a1b2c", files)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    found = remote(hub.folder)
    model = Mixer()
    fill(model, open_weights(found), LAYOUT)
    assert_filled(model)
    assert hub.stored() == {*SMALL, whole}
    assert whole_folder(found) == hub.folder


def test_a_hub_checkpoint_without_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(tmp_path / "0a1b2c", {"config.json": b"{}", "README.md": b""})
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    with pytest.raises(UserError, match=r"its folder has config\.json"):
        open_weights(remote(hub.folder))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full while 'some-org/some-model' is"),
        (OSError("reset"), "the hub cannot be reached for 'some-org/some-model' (OSError)"),
        (RuntimeError("of a transport"), "the hub cannot be reached for 'some-org/some-model' (RuntimeError)"),
    ],
)
def test_a_download_that_breaks_off_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError) as caught:
        open_weights(remote(tmp_path / "0a1b2c"))
    assert words in str(caught.value)


def test_a_local_folder_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    assert whole_folder(checkpoint(tmp_path)) == tmp_path
