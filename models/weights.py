"""Reading the weight files of a checkpoint into a module, tensor by tensor, and the way back.

A family's layout says where each key of the published files goes; this module knows files, rows and shapes, and
nothing of any architecture. Files are memory-mapped and never run code.
"""

import json
import pickle
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from harness.errors import UserError

from .architectures.layout import Layout
from .checkpoints import Checkpoint, whole_folder

FLOATS = {"F64", "F32", "F16", "BF16", "float64", "float32", "float16", "bfloat16"}
PACKED = (".qweight", ".weight_packed")
LFS = b"version https://git-lfs"
ZIP = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """What the weight files of a checkpoint hold; tensor data is read only by `tensor`.

    `name` is what the user typed; `dtypes` are spelled as the files spell them, "BF16" or "bfloat16".
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    readers: Mapping[str, Callable[[str], Tensor]]

    def tensor(self, key: str) -> Tensor:
        """One tensor on the CPU, backed by its file where the format allows it."""
        return self.readers[key](key)


def open_weights(checkpoint: Checkpoint) -> WeightFiles:
    """Find the weight files of a checkpoint and read their headers; a hub checkpoint is downloaded first.

    Looks for `model.safetensors` and then for `pytorch_model.bin`, each with shards named by its index or whole, and
    last for a single `*.safetensors` of another name. Raises UserError when there are none, when a file is missing,
    damaged or not plain tensors, or when shards and index disagree.
    """
    folder = whole_folder(checkpoint)
    paths, index = find_files(checkpoint.name, folder)
    if missing := [path.name for path in paths if not path.is_file()]:
        raise UserError(
            f"the checkpoint '{checkpoint.name}' lacks {len(missing)} of the {len(paths)} weight files that its index "
            f"names: {some(missing)}; download it again"
        )
    return join(checkpoint.name, {path.name: open_file(checkpoint.name, path) for path in paths}, index)


def find_files(name: str, folder: Path) -> tuple[list[Path], Mapping[str, str]]:
    """The weight files, and the file of each key where an index tells. Raises UserError when there are none."""
    for whole in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{whole}.index.json"
        if index.is_file():
            file_of_key = read_index(name, index)
            return [folder / file for file in sorted(set(file_of_key.values()))], file_of_key
        if (folder / whole).is_file():
            return [folder / whole], {}
    others = [path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_model.")]
    if len(others) == 1:
        return others, {}
    raise UserError(
        f"the checkpoint '{name}' has neither model.safetensors nor pytorch_model.bin, nor the .index.json of either "
        f"(its folder has {some(path.name for path in folder.iterdir())}); put its weight files there"
    )


def read_index(name: str, path: Path) -> Mapping[str, str]:
    """The file of each key. Raises UserError when the index is not one, or names a file outside its folder."""
    read_head(name, path)
    with suppress(ValueError, TypeError, LookupError, AttributeError, RecursionError):
        index = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if index and all(isinstance(file, str) and Path(file).name == file for file in index.values()):
            return dict(index)
    raise UserError(f"'{path.name}' of '{name}' has no weight_map from keys to files beside it; download it again")


def open_file(name: str, path: Path) -> WeightFiles:
    """The header of one file. Raises UserError when it is damaged or holds more than tensors."""
    head = read_head(name, path)
    if path.suffix == ".safetensors":
        return open_safetensors(name, path)
    return open_bin(name, path, can_be_mapped=head.startswith(ZIP))


def read_head(name: str, path: Path) -> bytes:
    """The first bytes of a file. Raises UserError when they are of a git-LFS pointer, or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(len(LFS))
    except OSError as error:
        raise UserError(f"'{path.name}' of '{name}' cannot be read ({error.strerror}); mend its permissions") from error
    if head == LFS:
        raise UserError(f"'{path.name}' of '{name}' is only a git-LFS pointer; run `git lfs pull` in its folder")
    return head


def open_safetensors(name: str, path: Path) -> WeightFiles:
    """The header of a safetensors file. Raises UserError when it does not describe the whole file."""
    try:
        file: Any = safe_open(path, framework="pt", device="cpu")  # which the library leaves half typed
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (the file is no mapping)
    except (SafetensorError, OSError) as error:
        raise damaged(name, path) from error
    shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
    dtypes = {key: part.get_dtype() for key, part in slices.items()}
    return WeightFiles(name, shapes, dtypes, dict.fromkeys(slices, file.get_tensor))


def open_bin(name: str, path: Path, can_be_mapped: bool) -> WeightFiles:
    """The tensors of a file that `torch.save` wrote; the format from before torch 1.6 is held in memory, whole.

    Raises UserError when it is damaged, is not a flat state dict, or needs more of pickle than tensors do.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickle protocols, which is for the file's author
            state = torch.load(path, weights_only=True, map_location="cpu", mmap=can_be_mapped)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"the weight file '{path.name}' of '{name}' cannot be read without running code from it, which is refused, "
            "or is damaged; use a safetensors file of this checkpoint or download it again"
        ) from error
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        raise damaged(name, path) from error
    if not isinstance(state, dict) or not all(is_plain(key, value) for key, value in state.items()):
        raise UserError(
            f"the weight file '{path.name}' of '{name}' is not a flat state dict of tensors; write one with "
            f"torch.save(model.state_dict(), '{path.name}')"
        )
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    dtypes = {key: str(tensor.dtype).removeprefix("torch.") for key, tensor in state.items()}
    return WeightFiles(name, shapes, dtypes, dict.fromkeys(state, state.__getitem__))


def is_plain(key: object, value: object) -> bool:
    """Whether an entry of a state dict is a name with an ordinary tensor that has data."""
    if not isinstance(key, str) or not isinstance(value, Tensor):
        return False
    return value.layout is torch.strided and value.device.type == "cpu"


def join(name: str, files: Mapping[str, WeightFiles], index: Mapping[str, str]) -> WeightFiles:
    """Several files as one. Raises UserError when a key stands in two or is not in the file the index names."""
    owners: dict[str, str] = {}
    joined: dict[str, WeightFiles] = {}
    for file, held in files.items():
        for key in held.shapes:
            if key in owners:
                raise UserError(
                    f"the weight '{key}' of '{name}' stands in both {owners[key]} and {file}; download it again"
                )
            owners[key], joined[key] = file, held
    for key, file in index.items():
        if owners.get(key) != file:
            raise UserError(f"the index of '{name}' says that '{key}' is in {file}, and it is not; download it again")
    shapes = {key: held.shapes[key] for key, held in joined.items()}
    dtypes = {key: held.dtypes[key] for key, held in joined.items()}
    return WeightFiles(name, shapes, dtypes, {key: held.tensor for key, held in joined.items()})


def fill(model: nn.Module, files: WeightFiles, layout: Layout) -> None:
    """Copy every tensor to its place, in the dtype and on the device of its parameter.

    Everything is checked first; then one tensor is read at a time, so that the model is never in memory twice.

    Raises:
        UserError: when a key is unknown or missing, a parameter is left without weights, a shape is not that of its
            place, or the weights are quantised.
        ValueError: when the layout itself does not suit the model, or its parameters are on the meta device.
    """
    check_floats(files, layout)
    check_keys(model, files, layout)
    rows = find_rows(model, layout)
    check_shapes(files, rows)
    for key, row in rows.items():
        row.copy_(files.tensor(key))


def collect(model: nn.Module, layout: Layout) -> dict[str, Tensor]:
    """The weights under their published keys, as copies on the CPU: what `fill` reads back.

    Raises ValueError when the layout does not suit the model or leaves out a parameter.
    """
    if unplaced(model, layout):
        raise ValueError(f"the layout has no key for {some(unplaced(model, layout))}")
    rows = find_rows(model, layout).items()
    return {key: row.to("cpu", copy=True, memory_format=torch.contiguous_format) for key, row in rows}


def find_rows(model: nn.Module, layout: Layout) -> dict[str, Tensor]:
    """The rows that each key fills, as detached views of the parameters.

    Raises ValueError when a layout names no parameter of the model, or does not part its rows without gap and overlap.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    keys_of: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    for key, place in layout.items():
        if place is not None:
            if place.parameter not in parameters:
                raise ValueError(f"the layout puts '{key}' into '{place.parameter}', which the model does not have")
            keys_of[id(parameters[place.parameter])].append((place.start, key))
    rows: dict[str, Tensor] = {}
    for parameter in model.parameters():
        if id(parameter) in keys_of:
            rows |= part(parameter.detach(), sorted(keys_of[id(parameter)]))
    return rows


def part(parameter: Tensor, keys: list[tuple[int, str]]) -> dict[str, Tensor]:
    """Share a parameter among its keys, which come with their first rows, in order."""
    if parameter.is_meta:
        raise ValueError("the model's parameters are on the meta device; give them memory with to_empty()")
    if len(keys) == 1 and keys[0][0] == 0:
        return {keys[0][1]: parameter}
    bounds = [start for start, _ in keys] + [len(parameter)]
    if bounds[0] != 0 or any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(f"the layout does not part {len(parameter)} rows without gap and overlap: {keys}")
    return {key: parameter[low:high] for (_, key), (low, high) in zip(keys, pairwise(bounds), strict=True)}


def unplaced(model: nn.Module, layout: Layout) -> list[str]:
    """The parameters that no key fills; a tied one is filled under either name."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    filled = {id(parameters.get(place.parameter)) for place in layout.values() if place is not None}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in filled]


def check_floats(files: WeightFiles, layout: Layout) -> None:
    """Raises UserError when a weight is not stored as floating-point numbers of 16 bits or more."""
    for key, dtype in files.dtypes.items():
        if key.endswith(PACKED) or (layout.get(key) is not None and dtype not in FLOATS):
            raise UserError(
                f"the weight '{key}' of '{files.name}' is stored as {dtype}, and quantised checkpoints are not "
                "supported; name the checkpoint that it was made from, in float32, bfloat16 or float16"
            )


def check_keys(model: nn.Module, files: WeightFiles, layout: Layout) -> None:
    """Raises UserError listing the weights that are left over or missing."""
    unknown = [key for key in files.shapes if key not in layout]
    missing = [key for key, place in layout.items() if place is not None and key not in files.shapes]
    for kind, keys in (("has unknown", unknown), ("lacks", missing or unplaced(model, layout))):
        if keys:
            raise UserError(
                f"the checkpoint '{files.name}' {kind} {len(keys)} weights of its architecture: {some(keys)}; check "
                "that config.json is the right one and that all weight files are there"
            )


def check_shapes(files: WeightFiles, rows: Mapping[str, Tensor]) -> None:
    """Raises UserError naming the first weight whose shape is not that of its place."""
    for key, row in rows.items():
        if files.shapes[key] != tuple(row.shape):
            raise UserError(
                f"the weight '{key}' of '{files.name}' has the shape {files.shapes[key]} and config.json asks for "
                f"{tuple(row.shape)}; check that both are of the same checkpoint"
            )


def damaged(name: str, path: Path) -> UserError:
    """The sentence for a file that does not hold together."""
    return UserError(f"the weight file '{path.name}' of '{name}' is damaged or cut short; download it again")


def some(names: Iterable[str], shown: int = 6) -> str:
    """The first few of a list of names, for an error sentence."""
    names = sorted(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more if names else "nothing"
