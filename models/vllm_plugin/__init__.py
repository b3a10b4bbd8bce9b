"""Llamba and MambaInLlama as models of vLLM: paged keys and values, and vLLM's own cache for the recurrent states.

vLLM finds `registration.register` by the entry point `vllm.general_plugins` and runs it in each of its processes. The
plug-in knows published checkpoints and vLLM; it knows nothing of benchmarks.
"""
