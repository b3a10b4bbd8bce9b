"""The layers of a model whose cost is not that of products with weights: attention and the recurrences.

FLOPs follow the convention of matrix products: a sum of n products is 2n operations. A state-space layer is counted
where its work grows with its state or its convolution, and for the skip D x; its gate, step sizes and norms are not,
no more than activations and norms elsewhere.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """Grouped-query attention: `heads` query heads over `kv_heads` keys and values of `head_dim`."""

    heads: int
    kv_heads: int
    head_dim: int

    @property
    def width(self) -> int:
        """Numbers in one token's queries: a query-key pair of all heads costs four times this."""
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Numbers kept per token: keys and values."""
        return 2 * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class SsdLayer:
    """Mamba-2, discrete or not: `heads` states of `head_dim` x `d_state`, `groups` of which share B and C.

    `channels` pass through a convolution of `taps`.
    """

    heads: int
    head_dim: int
    d_state: int
    groups: int
    channels: int
    taps: int

    @property
    def state_size(self) -> int:
        """Numbers in one row's recurrent state."""
        return self.heads * self.head_dim * self.d_state

    @property
    def window_size(self) -> int:
        """Numbers in one row's convolution window."""
        return self.taps * self.channels

    @property
    def step_flops(self) -> int:
        """One token: decay, outer product and sum (3 per element), read-out (2), convolution, D x."""
        return 5 * self.state_size + 2 * self.taps * self.channels + 2 * self.heads * self.head_dim

    def chunk_products(self, tokens: int, chunk: int) -> int:
        """The matrix products of the chunked algorithm over a text, whose last chunk is filled up.

        Per token: scores 2QNG, scores times x 2QPH, into the states 2NPH, out of them 2NPH; Q x Q pairs are multiplied
        in full, as the kernels do.
        """
        size = min(chunk, tokens)
        padded = -(-tokens // size) * size
        inner = self.heads * self.head_dim
        return padded * (2 * size * (self.d_state * self.groups + inner) + 4 * self.d_state * inner)


@dataclass(frozen=True, slots=True)
class SelectiveLayer:
    """Mamba-1: `inner` channels, each with a state of `d_state`; `channels` pass through a convolution of `taps`."""

    inner: int
    d_state: int
    channels: int
    taps: int

    @property
    def state_size(self) -> int:
        """Numbers in one row's recurrent state."""
        return self.inner * self.d_state

    @property
    def window_size(self) -> int:
        """Numbers in one row's convolution window."""
        return self.taps * self.channels

    @property
    def step_flops(self) -> int:
        """One token: Delta A, its exponential, decay, Delta x B and sum (5 per element), read-out (2), the rest."""
        return 7 * self.state_size + 2 * self.taps * self.channels + 2 * self.inner

    def chunk_products(self, tokens: int, chunk: int) -> int:
        """The matrix products of the prefix scan over a text: only the read-out is one."""
        del chunk
        return 2 * tokens * self.state_size


ScanLayer = SsdLayer | SelectiveLayer
