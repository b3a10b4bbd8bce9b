"""What vLLM settles for models without attention once their config is read."""

from typing import Any

from vllm.model_executor.models.config import MambaModelConfig

from harness.errors import UserError
from harness.models.checkpoints import find_checkpoint
from harness.models.tokenizers_ import base_model, has_tokenizer


class AttentionFreeDefaults(MambaModelConfig):  # type: ignore[misc]
    """vLLM's own settings for state-space models, which it gives by the name of the architecture."""

    @staticmethod
    def verify_and_update_model_config(model_config: Any) -> None:
        """Take the base model's tokenizer, and its chat template, for a Llamba that ships none."""
        if model_config.skip_tokenizer_init or model_config.tokenizer != model_config.model:
            return
        try:
            found = find_checkpoint(model_config.model)
            if not has_tokenizer(found):
                model_config.tokenizer = base_model(found)
        except UserError as error:
            raise ValueError(str(error)) from error
