"""The body of a reward model: token ids in, hidden states out, and a common beginning read once.

Two trunks of one surface: `NativeTrunk` around our own Llama and `LibraryTrunk` around any decoder of transformers with
attention only. The heads that turn hidden states into scores are in `heads`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from harness.errors import UserError, choices
from harness.models.architectures import llama
from harness.models.architectures.attention import Attention
from harness.models.architectures.blocks import SequentialBlock
from harness.models.architectures.causal_lm import CausalLM
from harness.models.architectures.initial import allocate
from harness.models.architectures.passes import LayerState, Span
from harness.models.checkpoints import Checkpoint, check_no_kernels, whole_folder
from harness.models.weights import WeightFiles, fill

HEADS = ("score.", "v_head.", "lm_head.", "classifier.", "qa_outputs.")
"""What the keys of every head begin with."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A beginning that several texts share, with every layer's keys and values (1, n_kv_heads, tokens, head_dim)."""

    token_ids: tuple[int, ...] = ()
    states: Sequence[LayerState] = ()

    def cut(self, tokens: int) -> "Prefix":
        """Its first tokens: attention is causal, so later ones leave no trace in their keys and values."""
        states = [tuple(tensor[:, :, :tokens] for tensor in state) for state in self.states] if tokens else []
        return Prefix(self.token_ids[:tokens], states)


@dataclass(frozen=True, slots=True)
class Past:
    """What the rows of a batch go on from: the first `lengths` of the tokens in every layer's keys and values.

    These are (1, n_kv_heads, longest, head_dim) where all rows have the same, else (b, ...) and padded on the right.
    """

    lengths: tuple[int, ...]
    states: Sequence[LayerState] = ()

    @property
    def longest(self) -> int:
        """Tokens of the longest."""
        return max(self.lengths)

    def visible(self, tokens: int, device: torch.device) -> Tensor:
        """(b or 1, 1, tokens, longest + tokens) bool: what each of a row's new tokens may look at."""
        columns = torch.arange(self.longest + tokens, device=device)
        own = columns - self.longest
        later = torch.arange(tokens, device=device)[:, None]
        return (columns < self.starts(device)[:, None, None, None]) | ((own >= 0) & (own <= later))

    def places(self, tokens: int, device: torch.device) -> Tensor:
        """(b or 1, tokens): where in its text each new token stands."""
        return self.starts(device)[:, None] + torch.arange(tokens, device=device)

    def starts(self, device: torch.device) -> Tensor:
        """(b,) tokens of each row; (1,) where all have as many."""
        return torch.tensor(self.lengths[:1] if len(set(self.lengths)) == 1 else self.lengths, device=device)


def past_of(prefixes: Sequence[Prefix]) -> Past:
    """What rows that each go on from a prefix look back at; they may all have one, and none of several is empty."""
    first, lengths = prefixes[0], tuple(len(one.token_ids) for one in prefixes)
    if all(one is first for one in prefixes):
        return Past(lengths, first.states)
    layers = zip(*(one.states for one in prefixes), strict=True)
    return Past(lengths, [tuple(map(stack, zip(*layer, strict=True))) for layer in layers])


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """(1, heads, n, head_dim) each, of several lengths n, to one (b, heads, longest, head_dim)."""
    longest = max(tensor.shape[2] for tensor in tensors)
    return torch.cat([pad(tensor, (0, 0, 0, longest - tensor.shape[2])) for tensor in tensors])


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    differing = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


class Trunk(Protocol):
    """A causal decoder without its head."""

    module: nn.Module
    weights: int
    """Weights of matrix products that one token meets."""
    attention_width: int
    """Query heads times head_dim, summed over the layers."""

    def read(self, token_ids: Tensor, lengths: Tensor, past: Past) -> tuple[Tensor, list[LayerState]]:
        """Read texts that go on from what has been read.

        Args:
            token_ids: (b, L) of what comes after it, padded on the right with anything.
            lengths: (b,) true lengths of at least 1.
            past: of b rows; may be empty.

        Returns:
            Hidden states (b, L, width) after the last norm, and the new tokens' keys and values (b, heads, L, dim).
        """
        ...


def forward_flops(trunk: Trunk, tokens: int, before: int) -> float:
    """FLOPs of reading `tokens` tokens of one text after `before` others: products with weights, causal attention."""
    pairs = tokens * before + tokens * (tokens + 1) // 2
    return float(2 * trunk.weights * tokens + 4 * trunk.attention_width * pairs)


def extend(trunk: Trunk, prefix: Prefix, token_ids: Sequence[int]) -> Prefix:
    """The prefix that goes on with `token_ids`; of the old one's work nothing is done again."""
    if not token_ids:
        return prefix
    row = torch.tensor([token_ids], device=device_of(trunk))
    _, states = trunk.read(row, torch.tensor([len(token_ids)], device=row.device), past_of([prefix]))
    if prefix.states:
        states = [join(old, new) for old, new in zip(prefix.states, states, strict=True)]
    return Prefix((*prefix.token_ids, *token_ids), states)


def join(old: LayerState, new: LayerState) -> LayerState:
    """Keys and values of a beginning (1, ...) before those of the rows (b, ...) that go on from it."""
    return tuple(torch.cat((a.expand(len(b), -1, -1, -1), b), dim=2) for a, b in zip(old, new, strict=True))


def device_of(trunk: Trunk) -> torch.device:
    """Where its weights are."""
    return next(trunk.module.parameters()).device


class NativeTrunk:
    """Our own Llama."""

    def __init__(self, model: CausalLM) -> None:
        self.module: nn.Module = model
        self.model = model
        linear = sum(one.weight.numel() for one in model.modules() if isinstance(one, nn.Linear))
        self.weights = linear - model.head.weight.numel()
        self.attention_width = sum(mixer.attention_width for mixer in model.mixers)

    def read(self, token_ids: Tensor, lengths: Tensor, past: Past) -> tuple[Tensor, list[LayerState]]:
        """See `Trunk`."""
        model = self.model
        if not past.longest:
            h, own = model.read(token_ids, lengths)
            return model.norm(h), own
        asked = token_ids.shape[1], token_ids.device
        span = Span(None if model.rotary is None else model.rotary(past.places(*asked)))
        visible = past.visible(*asked)
        h = model.embedding(token_ids)
        states: list[LayerState] = []
        for block, state in zip(model.blocks, past.states, strict=True):
            h, new = go_on(cast(SequentialBlock, block), h, span, state, visible)
            states.append(new)
        return model.norm(h), states


def go_on(
    block: SequentialBlock, h: Tensor, span: Span, before: LayerState, visible: Tensor
) -> tuple[Tensor, LayerState]:
    """A block's pass over tokens (b, L, width) that come after others; `visible` as `Past` says."""
    mixer = cast(Attention, block.mixer)
    split = mixer.split(mixer.in_proj(block.mixer_norm(h)), span.rotation)
    queries, keys, values = (heads.transpose(1, 2) for heads in split)
    shared, (all_keys, all_values) = mixer.n_heads // mixer.n_kv_heads, join(before, (keys, values))
    if h.is_cuda and shared > 1:
        # With a mask only the kernel that holds all weights of the softmax at once knows shared heads on a GPU.
        all_keys, all_values = (heads.repeat_interleave(shared, dim=1) for heads in (all_keys, all_values))
        shared = 1
    y = scaled_dot_product_attention(queries, all_keys, all_values, attn_mask=visible, enable_gqa=shared > 1)
    h = h + mixer.out_proj(y.transpose(1, 2).flatten(2))
    return h + block.mlp(block.mlp_norm(h)), (keys, values)


class LibraryTrunk:
    """A base model of transformers, such as Qwen2Model or MistralModel."""

    def __init__(self, model: Any) -> None:
        self.module: nn.Module = model
        config = model.config
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.weights = sum(one.weight.numel() for one in model.modules() if isinstance(one, nn.Linear))
        self.attention_width = config.num_hidden_layers * heads * head_dim

    def read(self, token_ids: Tensor, lengths: Tensor, past: Past) -> tuple[Tensor, list[LayerState]]:
        """See `Trunk`."""
        from transformers import DynamicCache

        (rows, tokens), device, before = token_ids.shape, token_ids.device, past.longest
        cache = DynamicCache()
        for number, state in enumerate(past.states):
            keys, values = (tensor.expand(rows, -1, -1, -1) for tensor in state)
            cache.update(keys, values, number)
        columns = torch.arange(before + tokens, device=device)
        real = (columns < past.starts(device)[:, None]) | ((columns >= before) & (columns < before + lengths[:, None]))
        out = self.module(
            input_ids=token_ids,
            attention_mask=real.long(),
            position_ids=past.places(tokens, device).expand(rows, -1),
            past_key_values=cache,
            use_cache=True,
        )
        states: list[LayerState] = [(layer.keys[:, :, before:], layer.values[:, :, before:]) for layer in cache.layers]
        return out.last_hidden_state, states


def load_trunk(
    checkpoint: Checkpoint, files: WeightFiles, dtype: torch.dtype, device: torch.device
) -> NativeTrunk | LibraryTrunk:
    """The trunk of a reward model, in evaluation mode; its head's weights are left in the files.

    A Llama is read into our own module, anything else by transformers, whose remote code is never run. Raises UserError
    when the files are damaged or incomplete, or no such architecture is known.
    """
    if checkpoint.family == "llama":
        return load_native(checkpoint, files, dtype, device)
    return load_library(checkpoint, dtype, device)


def load_native(checkpoint: Checkpoint, files: WeightFiles, dtype: torch.dtype, device: torch.device) -> NativeTrunk:
    """A Llama of ours, its own unused head tied to the embedding."""
    config = {**checkpoint.config, "tie_word_embeddings": True}
    try:
        with torch.device("meta"):
            model, layout = llama.build(config, files.shapes.keys())
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the config of '{checkpoint.name}' is not that of a llama ({type(error).__name__}: {error}); download it "
            "again"
        ) from error
    allocate(model, dtype, device)
    fill(model, files, dict(layout) | {key: None for key in files.shapes if key.startswith(HEADS)})
    return NativeTrunk(model.eval())


def load_library(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> LibraryTrunk:
    """A base model of transformers. Raises UserError when it cannot be loaded whole."""
    from transformers import CONFIG_MAPPING, AutoModel
    from transformers.utils.logging import disable_progress_bar

    if checkpoint.family not in CONFIG_MAPPING:
        raise UserError(f"'{checkpoint.name}' is a {checkpoint.family}, of which transformers has no model")
    check_no_kernels(checkpoint)
    disable_progress_bar()
    config = CONFIG_MAPPING[checkpoint.family].from_dict(dict(checkpoint.config))
    try:
        model, report = AutoModel.from_pretrained(
            whole_folder(checkpoint), config=config, dtype=dtype, output_loading_info=True, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise UserError(
            f"transformers cannot load '{checkpoint.name}' ({type(error).__name__}: {str(error)[:200]}); check that "
            "its files are whole"
        ) from error
    unknown = [key for key in report["unexpected_keys"] if not key.startswith(HEADS)]
    for what, keys in (("lacks", list(report["missing_keys"])), ("has unknown", unknown)):
        if keys:
            raise UserError(
                f"the checkpoint '{checkpoint.name}' {what} {len(keys)} weights of its architecture: "
                f"{choices(keys[:6])}; check config.json and that all weight files are there"
            )
    if not hasattr(model.config, "num_attention_heads"):
        raise UserError(f"'{checkpoint.name}' is a {checkpoint.family}; a reward model's trunk has attention only")
    return LibraryTrunk(model.eval().to(device))
