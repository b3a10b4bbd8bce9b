"""Mamba-1's recurrence on a CPU over vLLM's slots, in plain torch.

vLLM has no scan of prompts for CPUs, and its one-token update there takes the step sizes of a head's channels to be
equal, as Mamba-2's are.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus


def scan_prompts(
    layer: Any, x: Tensor, step: Tensor, B: Tensor, C: Tensor, z: Tensor, y: Tensor, states: Tensor, metadata: Any
) -> None:
    """Scan all prompts of a batch side by side, token by token, and leave their last states in their slots.

    Args:
        layer: has A (inner, N), D (inner,) and the bias of the step, dt_bias (inner,).
        x: (T, inner), after the convolution.
        step: (T, inner), without its bias.
        B: (T, G, N).
        C: (T, G, N).
        z: (T, inner).
        y: (T, inner), filled.
        states: (slots, inner, N), updated in place.
        metadata: vLLM's, of the prompts: where each begins, its slot, whether its slot holds an earlier piece's state.
    """
    slots = metadata.state_indices_tensor_p.long()
    bounds = metadata.query_start_loc_p.tolist()
    lengths = [end - start for start, end in pairwise(bounds)]
    state = torch.where(metadata.has_initial_states_p[:, None, None], states[slots], 0).float()
    delta = softplus(step.float() + layer.dt_bias)
    x_, delta_, B_, C_ = (pad_to(tensor.float(), bounds, max(lengths)) for tensor in (x, delta, B, C))
    outputs = []
    for t in range(max(lengths)):
        # After a prompt's end delta is 0, which leaves the state as it was.
        state, read = advance(state, x_[:, t], delta_[:, t], B_[:, t], C_[:, t], layer.A)
        outputs.append(read)
    states[slots] = state.to(states.dtype)
    side_by_side = torch.stack(outputs, dim=1)
    read = torch.cat([side_by_side[number, :length] for number, length in enumerate(lengths)])
    y.copy_((read + layer.D * x) * silu(z.float()))


def step_tokens(
    layer: Any, x: Tensor, step: Tensor, B: Tensor, C: Tensor, z: Tensor, y: Tensor, states: Tensor, slots: Tensor
) -> None:
    """One token of every decoding request; the arguments are those of `scan_prompts` and `slots` (T, 1)."""
    places = slots[:, 0].long()
    delta = softplus(step.float() + layer.dt_bias)
    state, read = advance(states[places].float(), x.float(), delta, B.float(), C.float(), layer.A)
    states[places] = state.to(states.dtype)
    y.copy_((read + layer.D * x) * silu(z.float()))


def advance(state: Tensor, x: Tensor, delta: Tensor, B: Tensor, C: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    """The state (b, inner, N) after one more token of each row, and what C reads from it (b, inner).

    `x` and `delta` are (b, inner), `B` and `C` (b, G, N), `A` (inner, N); everything is float32.
    """
    by_group = (B.shape[1], -1)
    write = (delta * x).unflatten(-1, by_group)[..., None] * B[:, :, None]
    state = (delta[..., None] * A).exp_().mul_(state).add_(write.flatten(1, 2))
    return state, (state.unflatten(1, by_group) @ C[..., None]).flatten(1)


def pad_to(rows: Tensor, bounds: list[int], longest: int) -> Tensor:
    """(T, ...) to (prompts, longest, ...), zeros after each prompt's end."""
    padded = rows.new_zeros(len(bounds) - 1, longest, *rows.shape[1:])
    for number, (start, end) in enumerate(pairwise(bounds)):
        padded[number, : end - start] = rows[start:end]
    return padded
