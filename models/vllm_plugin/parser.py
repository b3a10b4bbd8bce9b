"""How vLLM reads a checkpoint's config: a student is recognised before anything takes it for a Llama."""

import logging
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from vllm.transformers_utils.config import HFConfigParser, get_config_parser, register_config_parser
from vllm.transformers_utils.repo_utils import file_or_path_exists, get_hf_file_to_dict

from harness.errors import UserError
from harness.models.checkpoints import Checkpoint, download, find_checkpoint

from .configs import llamba_config, mamba_in_llama_config

STUDENTS = ("llamba", "mamba-in-llama")


class StudentConfigParser(HFConfigParser):  # type: ignore[misc]
    """vLLM's parser of Hugging Face checkpoints, which leaves it everything but the students."""

    def parse(
        self,
        model: str | Path,
        trust_remote_code: bool,
        revision: str | None = None,
        code_revision: str | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], PreTrainedConfig]:
        """The config.json as it is and as vLLM wants it. Raises ValueError for a student with damaged files."""
        try:
            found = find_student(str(model), revision)
            if found is None:
                parsed: tuple[dict[str, Any], PreTrainedConfig] = super().parse(
                    model, trust_remote_code, revision=revision, code_revision=code_revision, **kwargs
                )
                return parsed
            make = llamba_config if found.family == "llamba" else mamba_in_llama_config
            config = make(found)
        except UserError as error:
            raise ValueError(str(error)) from error
        config.name_or_path = str(model)
        return dict(found.config), config


def find_student(model: str, revision: str | None) -> Checkpoint | None:
    """The checkpoint if it is a student's, else None; of a hub repository two small files are looked at first."""
    if Path(model).is_dir():
        return checked(model) if (Path(model) / "config.json").is_file() else None
    config = get_hf_file_to_dict("config.json", model, revision) or {}
    if not is_llamba(config) and not file_or_path_exists(model, "mamba_config.json", revision):
        return None
    return checked(str(download(model, revision=revision)))


def checked(folder: str) -> Checkpoint | None:
    """The checkpoint in a folder if it is a student's."""
    found = find_checkpoint(folder)
    return found if found.family in STUDENTS else None


def is_llamba(config: dict[str, Any]) -> bool:
    """Whether a config.json is a Llamba's."""
    return config.get("model_type") == "llamba" or {"ssm_cfg", "mlp_cfg"} <= config.keys()


def install_parser() -> None:
    """Put the parser in the place of vLLM's, once and without the warning that this is meant for."""
    if isinstance(get_config_parser("hf"), StudentConfigParser):
        return
    log = logging.getLogger(register_config_parser.__module__)
    was_disabled, log.disabled = log.disabled, True
    try:
        register_config_parser("hf")(StudentConfigParser)
    finally:
        log.disabled = was_disabled
