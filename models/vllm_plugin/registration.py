"""What vLLM runs in every process of its own before it looks at a model."""

import logging

SUPPORTED = "0.32"
"""The versions of vLLM whose layers these models are built of, up to the last dot."""

MODELS = {
    "LlambaForCausalLM": "harness.models.vllm_plugin.llamba:LlambaForCausalLM",
    "MambaInLlamaForCausalLM": "harness.models.vllm_plugin.mamba_in_llama:MambaInLlamaForCausalLM",
    "PureMambaInLlamaForCausalLM": "harness.models.vllm_plugin.mamba_in_llama:PureMambaInLlamaForCausalLM",
}
"""Architectures by name; the modules are imported when vLLM wants one."""

logger = logging.getLogger(__name__)


def is_supported(version: str) -> bool:
    """Whether this version of vLLM is one that the models were built for."""
    return version == SUPPORTED or version.startswith(f"{SUPPORTED}.")


def register() -> None:
    """Make vLLM recognise and run the students; may be called any number of times.

    In an environment with another version of vLLM it says so and changes nothing, since it runs for every user of vLLM.
    """
    import vllm

    if not is_supported(vllm.__version__):
        logger.warning(
            "ttc-harness adds Llamba and MambaInLlama to vLLM %s only; this is %s, left as it is",
            SUPPORTED,
            vllm.__version__,
        )
        return
    from transformers import AutoConfig
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from .configs import LlambaConfig
    from .defaults import AttentionFreeDefaults
    from .parser import install_parser

    for architecture, place in MODELS.items():
        ModelRegistry.register_model(architecture, place)
    MODELS_CONFIG_MAP["LlambaForCausalLM"] = AttentionFreeDefaults
    MODELS_CONFIG_MAP["PureMambaInLlamaForCausalLM"] = AttentionFreeDefaults
    AutoConfig.register("llamba", LlambaConfig, exist_ok=True)
    install_parser()
