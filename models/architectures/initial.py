"""Memory for the parameters of a model that was built on the meta device, and random values for them."""

import torch
from torch import Tensor, nn

FLOAT32_NAMES = ("A_log", "D", "dt_bias", "z_bias")
"""Small parameters on which the recurrence depends sensitively: float32 whatever the model's dtype."""


def allocate(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give every parameter uninitialised memory; one that two modules share stays shared."""
    new: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            kept = torch.float32 if name in FLOAT32_NAMES else dtype
            new.setdefault(id(parameter), nn.Parameter(torch.empty(parameter.shape, dtype=kept, device=device)))
            setattr(module, name, new[id(parameter)])
    for buffer_owner in model.modules():
        for name, buffer in buffer_owner.named_buffers(recurse=False):
            setattr(buffer_owner, name, buffer.to(device))


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0, std: float = 0.02) -> None:
    """Values as at the start of a training run: normal matrices, open norms, decays and step sizes in Mamba's ranges.

    Step sizes are log-uniform in [1e-3, 0.1] and exp(A_log) uniform in [1, 16] (arXiv 2312.00752 and 2405.21060); a
    Mamba-1 `A_log` keeps log(1..N).
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        kind = name.rsplit(".", 1)[-1]
        if kind == "A_log" and parameter.ndim == 2:
            parameter.copy_(torch.arange(1, parameter.shape[1] + 1, device=device).float().log().expand_as(parameter))
        elif kind == "A_log":
            parameter.uniform_(1, 16, generator=generator).log_()
        elif kind == "dt_bias" or name.endswith("dt_proj.bias"):
            parameter.copy_(inverse_softplus(log_uniform(parameter.float(), generator)))
        elif kind == "D" or (kind == "weight" and parameter.ndim == 1):
            parameter.fill_(1)
        elif parameter.ndim == 1:
            parameter.zero_()
        else:
            parameter.normal_(0, 0.5 if parameter.ndim == 3 else std, generator=generator)


def log_uniform(like: Tensor, generator: torch.Generator, low: float = 1e-3, high: float = 0.1) -> Tensor:
    """Values whose logarithm is uniform, in the shape of a tensor."""
    uniform = torch.empty_like(like).uniform_(0, 1, generator=generator)
    return low * (high / low) ** uniform


def inverse_softplus(values: Tensor) -> Tensor:
    """X of softplus(x) = values, for positive values."""
    return values + (-(-values).expm1()).log()
