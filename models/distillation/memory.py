"""An estimate of the memory that training takes on one device, from shapes alone.

Weights are float32, and with bf16 there are also the copies that autocast makes of them; gradients and AdamW's two
moments are float32, of trained weights alone. The teacher, where it is needed, is float32 too, with copies in bf16.

Activations are what the layers of `architectures` keep for the backward pass, counted on small models in float32 and
written down as formulas below, with half the size under bf16 for what autocast computes in bf16; the recurrences stay
float32. The scan of a Mamba-1 mixer keeps 18 numbers per state element and token. With checkpointing one vector of the
model's width per block is kept, and one block in full. In the matching stages every replaced block starts from a state
of the teacher's.

Logits are taken as if no token were masked: in the recipe's precision the student's, a copy and the teacher's; in
float32 five times the vocabulary for each divergence (two log-softmaxes, the probabilities, their difference and a
gradient) and twice for cross entropy. Matrix orientation keeps four float32 matrices per head and layer, with
checkpointing of one layer alone, and works with four more.

What an allocator wastes, communication buffers and kernels' workspace are not counted.
"""

from dataclasses import dataclass

from torch import nn

from harness.models.architectures.attention import Attention
from harness.models.architectures.blocks import Mixer
from harness.models.architectures.causal_lm import CausalLM
from harness.models.architectures.discrete_mamba2 import DiscreteMamba2
from harness.models.architectures.mamba1 import Mamba1Mixer
from harness.models.architectures.ssd import CHUNK

from .recipes import Recipe, Stage
from .rewards import RewardTrunk

FLOAT32 = 4
STREAM_VECTORS = 4
"""Float32 vectors of the model's width that a block's residual stream and norms keep."""

ORIENTATION_KEPT = 4
ORIENTATION_WORKING = 4
"""Matrices per head, for every layer and for one layer at a time."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one device. All but the activations can be sharded over devices (FSDP)."""

    weights: int
    gradients: int
    moments: int
    teacher: int
    activations: int

    def total(self, shards: int = 1) -> int:
        """The sum, with weights, gradients, moments and teacher divided among so many devices."""
        return (self.weights + self.gradients + self.moments + self.teacher) // shards + self.activations


def stage_memory(recipe: Recipe, stage: Stage, teacher: CausalLM, student: nn.Module) -> Memory:
    """The peak of one device in a stage; what is trained is read off the student's `requires_grad`."""
    width = 2 if recipe.precision == "bf16" else FLOAT32
    copy = width if recipe.precision == "bf16" else 0
    trained = count(student, trained=True)
    return Memory(
        weights=(FLOAT32 + copy) * count(student),
        gradients=FLOAT32 * trained,
        moments=2 * FLOAT32 * trained,
        teacher=(FLOAT32 + copy) * count(teacher) if stage.needs_teacher else 0,
        activations=stage.rows * stage.context * token_bytes(stage, trunk_of(student), width),
    )


def count(model: nn.Module, *, trained: bool = False) -> int:
    """Parameters, a shared one once; only those that are trained when asked."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trained)


def trunk_of(student: nn.Module) -> CausalLM:
    """The language model of a student; of a reward model, what is under its score head."""
    found = student.trunk if isinstance(student, RewardTrunk) else student
    if not isinstance(found, CausalLM):
        raise TypeError(f"the cost of a {type(student).__name__} is not known")
    return found


def token_bytes(stage: Stage, trunk: CausalLM, width: int) -> int:
    """Activations per token, `width` bytes a number where autocast rules."""
    vector = FLOAT32 * trunk.embedding.embedding_dim
    pairs: list[tuple[nn.Module, Mixer]] = list(zip(trunk.blocks, trunk.mixers, strict=True))
    if stage.kind in ("matrix-orientation", "hidden-alignment"):
        pairs = [(block, mixer) for block, mixer in pairs if not isinstance(mixer, Attention)]
    inputs = vector * (len(trunk.blocks) + 1)
    if stage.kind == "matrix-orientation":
        layers = [orientation_bytes(stage, mixer, width) for _, mixer in pairs]
        kept = [size for size, _ in layers]
        working = max(size for _, size in layers)
        return inputs + working + (max(kept) if stage.activation_checkpointing else sum(kept))
    blocks = [block_bytes(block, mixer, width) + STREAM_VECTORS * vector for block, mixer in pairs]
    if stage.kind == "hidden-alignment":
        return inputs + (max(blocks) + vector * len(blocks) if stage.activation_checkpointing else sum(blocks))
    return (inputs + max(blocks) if stage.activation_checkpointing else sum(blocks)) + logit_bytes(stage, trunk, width)


def block_bytes(block: nn.Module, mixer: Mixer, width: int) -> int:
    """What a block's mixer and feed-forward layer keep per token."""
    linear = [part for name, part in block.named_modules() if name.startswith("mlp.") and isinstance(part, nn.Linear)]
    feed_forward: int = sum(part.in_features + part.out_features for part in linear[:1]) + sum(
        2 * part.in_features for part in linear[1:]
    )
    return width * (feed_forward + projected(mixer)) + FLOAT32 * scanned(mixer)


def projected(mixer: Mixer) -> int:
    """Numbers per token that a mixer keeps in the precision of autocast."""
    linear = mixer.in_proj
    if isinstance(mixer, Attention):
        return linear.in_features + 2 * linear.out_features + mixer.attention_width
    return linear.in_features + linear.out_features


def scanned(mixer: Mixer) -> int:
    """Float32 numbers per token that a recurrence keeps."""
    if isinstance(mixer, Attention):
        return 0
    inner = mixer.out_proj.in_features
    if isinstance(mixer, Mamba1Mixer):
        return 10 * inner + 18 * inner * mixer.d_state
    chunks = 3 * mixer.heads * CHUNK + 2 * inner * mixer.d_state // CHUNK
    if isinstance(mixer, DiscreteMamba2):
        return 10 * inner + 8 * mixer.groups * mixer.d_state + chunks
    return 20 * inner + chunks


def orientation_bytes(stage: Stage, mixer: Mixer, width: int) -> tuple[int, int]:
    """What a layer keeps per token, and what it works with."""
    heads = 0 if isinstance(mixer, Attention | Mamba1Mixer) else mixer.heads
    line = FLOAT32 * heads * stage.context
    return 2 * width * projected(mixer) + ORIENTATION_KEPT * line, ORIENTATION_WORKING * line


def logit_bytes(stage: Stage, trunk: CausalLM, width: int) -> int:
    """What the token losses keep per token; reward models have none."""
    loss = stage.loss
    divergences = (loss.forward_kl > 0) + (loss.reverse_kl > 0)
    if not divergences and not loss.cross_entropy:
        return 0
    precise = 5 * divergences + 2 * (loss.cross_entropy > 0)
    return trunk.head.out_features * ((3 if divergences else 2) * width + FLOAT32 * precise)
