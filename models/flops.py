"""The FLOPs of a loaded model's passes, as the engines charge them; `costs` has the arithmetic and the conventions."""

from typing import TYPE_CHECKING, Any

from .costs.forward import ForwardFlops
from .costs.shapes import native_shape, transformers_shape

if TYPE_CHECKING:
    from .architectures.causal_lm import CausalLM

__all__ = ["ForwardFlops", "count_flops", "count_native_flops"]


def count_flops(model: Any) -> ForwardFlops:
    """Read the cost of a transformers causal LM off its modules and its config."""
    return transformers_shape(model).forward


def count_native_flops(model: "CausalLM") -> ForwardFlops:
    """Read the cost of one of our own models off its modules."""
    return native_shape(model).forward
