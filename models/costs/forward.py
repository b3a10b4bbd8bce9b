"""The FLOPs of a model's passes as numbers that an engine can add up per row and step.

What is counted: every weight of a linear layer once per token as a multiply and an add; attention's two products over
the causal context; the recurrence and the short convolution of state-space layers (see `layers`). What is not:
normalisation, activations, rotary embedding, softmax, a mixture's router, sampling. In prefill the output head runs on
the last position only.

Conventions: attention is causal, so a prompt of T tokens has T(T+1)/2 query-key pairs (an operation counter that sees
the kernel multiply full matrices counts T*T); a sliding window is not subtracted; state-space prefill is counted as the
recurrence, a lower bound of the chunked algorithm's work (`ModelShape.chunk_products`). Of a mixture's experts those
that a token visits are counted.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ForwardFlops:
    """Cost of a model's forward pass.

    `body` and `head` are the weights that one token meets in matrix products, without and in the output head;
    `attention` is heads * head_dim summed over the attention layers; `scan` is the other FLOPs of state-space layers
    per token.
    """

    body: int
    head: int
    attention: int
    scan: int = 0

    def prefill(self, tokens: int) -> float:
        """FLOPs of reading a prompt of `tokens` tokens, with logits for the last one."""
        return self.read(tokens) + float(2 * self.head)

    def score(self, tokens: int, scored: int, before: int = 0) -> float:
        """FLOPs of a reward model that reads `tokens` tokens (see `read`) and whose head runs on `scored` of them."""
        return self.read(tokens, before) + float(2 * self.head * scored)

    def read(self, tokens: int, before: int = 0) -> float:
        """FLOPs of reading `tokens` tokens after `before` that have been read, without any logits."""
        pairs = tokens * before + tokens * (tokens + 1) // 2
        return float(tokens * (2 * self.body + self.scan) + 4 * self.attention * pairs)

    def decode(self, tokens: int, contexts: int) -> float:
        """FLOPs of `tokens` single-token passes whose context lengths, the token itself included, sum to `contexts`."""
        return float(tokens * (2 * (self.body + self.head) + self.scan) + 4 * self.attention * contexts)

    def decode_row(self, prompt_tokens: int, passes: int) -> float:
        """FLOPs of `passes` consecutive single-token passes of one row after its prompt."""
        return self.decode(passes, passes * prompt_tokens + passes * (passes + 1) // 2)
