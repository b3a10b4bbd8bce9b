"""Which engine runs a checkpoint when the user names none."""

from .checkpoints import find_checkpoint

NATIVE_FAMILIES = ("llama", "llamba", "mamba-in-llama", "phi-mamba", "mamba2", "phi")


def choose_engine(checkpoint: str) -> str:
    """`native` for the families it has, so that teacher and student share an engine; `transformers` for others.

    Raises UserError when there is no such checkpoint.
    """
    if checkpoint.startswith("preset/"):
        return "native"
    return "native" if find_checkpoint(checkpoint).family in NATIVE_FAMILIES else "transformers"
