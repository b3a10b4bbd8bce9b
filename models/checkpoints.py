"""Where a checkpoint is and which family it belongs to, decided from its small files before any weight is read."""

import errno
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError, choices

ZOO = Path(__file__).parent / "zoo"
"""The checkpoints that are shipped with the package."""

SMALL_FILES = ("config.json", "mamba_config.json")
WHOLE_FILES = ("*.json", "*.jinja", "*.safetensors", "merges.txt", "tokenizer.model")
UNUSED_FILES = ("*/*", "adapter_model*", "consolidated*")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was found.

    `name` is what the user typed; `source` is what a library loads it from, a folder or a hub id; `folder` holds its
    config.json on this machine; `config` is that file, with the mamba_config.json beside it under `mamba_config`;
    `family` is "mamba-in-llama", "llamba", "phi-mamba", or the config's model_type.
    """

    name: str
    source: str
    folder: Path
    config: Mapping[str, Any]
    family: str


def find_checkpoint(name: str) -> Checkpoint:
    """Find a hub id, a local folder or `zoo/NAME`.

    An existing folder wins over a hub id of the same spelling. Raises UserError when there is nothing of that name,
    when the folder has no readable config.json, or when the hub cannot be reached.
    """
    folder = find_folder(name)
    source = name if folder is None else str(folder)
    if folder is None:
        folder = download_small_files(name)
    config = read_config(name, folder, "config.json")
    if (folder / "mamba_config.json").is_file():
        config["mamba_config"] = read_config(name, folder, "mamba_config.json")
    return Checkpoint(name, source, folder, config, family(name, config))


def find_folder(name: str) -> Path | None:
    """The folder that `name` means, or None for a hub id."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name.startswith("zoo/"):
        return zoo_folder(name.removeprefix("zoo/"))
    if path.is_file():
        raise UserError(f"'{name}' is a file, not a checkpoint; name the folder that holds its config.json")
    if not HUB_ID.fullmatch(name):
        raise UserError(
            f"there is no checkpoint folder '{name}'; name an existing folder, a hub id such as ORG/MODEL, or one of "
            f"{zoo_spellings()}"
        )
    return None


def zoo_folder(name: str) -> Path:
    """The folder of a shipped checkpoint. Raises UserError naming those that exist."""
    if name in zoo_names():
        return ZOO / name
    raise UserError(f"the zoo has no checkpoint '{name}'; it has {zoo_spellings()}")


def zoo_names() -> list[str]:
    """The checkpoints that are shipped, by name."""
    return sorted(config.parent.name for config in ZOO.glob("*/config.json"))


def zoo_spellings() -> str:
    """What one types for each shipped checkpoint."""
    return choices([f"zoo/{name}" for name in zoo_names()])


def download_small_files(hub_id: str) -> Path:
    """Fetch the files that tell the family, a few kilobytes. Raises UserError when the hub does not give them."""
    return download(hub_id, allow_patterns=list(SMALL_FILES))


def whole_folder(checkpoint: Checkpoint) -> Path:
    """The folder that has the weights and the tokenizer of a checkpoint too; those of a hub id are fetched first.

    They are of the commit that its config.json is of. `.bin` files are fetched only when the repository has no
    safetensors. Raises UserError when the hub does not give them.
    """
    if checkpoint.source == str(checkpoint.folder):
        return checkpoint.folder
    commit = checkpoint.folder.name
    ignored = list(UNUSED_FILES)
    folder = download(checkpoint.source, allow_patterns=list(WHOLE_FILES), ignore_patterns=ignored, revision=commit)
    if not any(folder.glob("*.safetensors")):
        download(checkpoint.source, allow_patterns=["pytorch_model*.bin"], ignore_patterns=ignored, revision=commit)
    return folder


def tokenizer_files(checkpoint: Checkpoint) -> list[Path]:
    """The tokenizer files that a checkpoint ships, fetched without its weights; none of a Llamba or a Phi-Mamba.

    Raises UserError when the hub does not give them.
    """
    folder = checkpoint.folder
    if checkpoint.source != str(folder):
        folder = download(checkpoint.source, allow_patterns=list(TOKENIZER_FILES), revision=folder.name)
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def download(hub_id: str, **wanted: Any) -> Path:
    """Fetch files of a hub repository into the local store. Raises UserError when the hub does not give them."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(hub_id, **wanted))
    except GatedRepoError as error:
        raise UserError(
            f"the hub repository '{hub_id}' is gated; ask for access on its page and log in with `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"there is no folder and no public hub repository '{hub_id}'; name an existing folder, a hub id such as "
            f"ORG/MODEL, or one of {zoo_spellings()}"
        ) from error
    except Exception as error:  # the client also lets the errors of its transports through, which have no common type
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise UserError(f"the disk is full while '{hub_id}' is downloaded; make room or set HF_HOME") from error
        raise UserError(
            f"the hub cannot be reached for '{hub_id}' ({type(error).__name__}) and no copy is stored here; download "
            f"it where there is a network and name its folder, or use one of {zoo_spellings()}"
        ) from error


def read_config(name: str, folder: Path, file: str) -> dict[str, Any]:
    """A parsed config file. Raises UserError when it is missing or is not a JSON object."""
    path = folder / file
    if not path.is_file():
        raise UserError(f"the checkpoint '{name}' has no {file}; name the folder that holds {file} and the weights")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"the {file} of '{name}' is not valid JSON ({error}); download it again") from error
    if not isinstance(config, dict):
        raise UserError(f"the {file} of '{name}' holds no JSON object; download it again")
    return config


def check_no_kernels(checkpoint: Checkpoint) -> None:
    """Raises UserError when the config has transformers fetch compiled code from the hub and run it.

    That it does where the name of an attention or of experts is that of a repository.
    """
    for name in kernels_in(checkpoint.config):
        raise UserError(
            f"the config.json of '{checkpoint.name}' has code of '{name}' run, which is refused; take the name "
            "out, or add --trust-remote-code where you trust it"
        )


def kernels_in(value: Any, named: bool = False) -> Iterator[str]:
    """The repositories of kernels that a config names, however deep; `named` where the field is one for such a name."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from kernels_in(each, named or "implementation" in str(name))
    elif isinstance(value, list):
        for each in value:
            yield from kernels_in(each, named)
    elif named and isinstance(value, str) and "/" in value:
        yield value


def family(name: str, config: Mapping[str, Any]) -> str:
    """Which architecture the weights are for. Raises UserError when nothing tells.

    A MambaInLlama checkpoint calls itself a Llama in config.json; only the file beside it gives it away.
    """
    if "mamba_config" in config:
        return "mamba-in-llama"
    if config.get("model_type") == "llamba" or {"ssm_cfg", "mlp_cfg"} <= config.keys():
        return "llamba"
    if {"LanguageModel", "MixerModel"} <= config.keys():
        return "phi-mamba"
    if not config.get("model_type"):
        raise UserError(
            f"the config.json of '{name}' has no model_type; add the one of its architecture, for example llama"
        )
    return str(config["model_type"])
