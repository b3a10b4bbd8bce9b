"""A reward model's first lesson: how probable the model it starts from holds every token of a reply.

A trunk that was trained to foresee the next token has no layer left in which to see that another one came. Labels of
whole steps are too few to teach it; the likelihood of a token is a label that every token has. A model's own replies
hardly ever surprise it, so some of their tokens are replaced by others that it held possible there, as in ELECTRA
(arXiv 2003.10555), whose label is whether a token was replaced.
"""

import torch
from torch import Tensor, nn

from harness.models.architectures.causal_lm import CausalLM

from .reward_data import RewardBatch
from .rewards import Objective, RewardKind, accuracy, probabilities, reward_loss

REPLACED = 0.15
"""The share of labelled tokens that are replaced, as in ELECTRA."""
AMONG = 10
"""A token is replaced by one of so many that the teacher holds likeliest in its place."""


def make_likelihood_objective(kind: RewardKind, model: nn.Module, teacher: CausalLM) -> Objective:
    """The loss of a training stage of kind "likelihood".

    Args:
        kind: of the reward model.
        model: a `RewardTrunk` of that kind, or a wrapper with the same forward.
        teacher: the language model that says how probable each token is; it is not trained.

    Returns:
        A function of a `RewardBatch` that gives `loss`, differentiable: the cross-entropy of the score at every
        labelled token of the text with replaced tokens against the probability of the token after what stands before
        it. What the labels themselves are does not matter. For the log there is `accuracy`, as of the other losses.
    """
    teacher.requires_grad_(False)

    def objective(batch: RewardBatch) -> dict[str, Tensor]:
        altered = with_replacements(teacher, batch)
        labels = torch.where(batch.labels >= 0, token_probabilities(teacher, altered), batch.labels)
        logits = model(altered.token_ids, altered.lengths)
        scores = probabilities(kind, logits.detach())
        return {"loss": reward_loss(kind, logits, labels), "accuracy": accuracy(scores, labels)}

    return objective


def with_replacements(teacher: CausalLM, batch: RewardBatch) -> RewardBatch:
    """The batch with `REPLACED` of its labelled tokens replaced; which and by what follows from its texts alone."""
    generator = torch.Generator().manual_seed(int(batch.token_ids.sum()))
    chosen = (torch.rand(batch.labels.shape, generator=generator) < REPLACED).to(batch.labels.device)
    chosen &= batch.labels >= 0
    chosen[:, 0] = False
    likely = foreseen(teacher, batch).topk(AMONG, dim=-1).indices
    drawn = torch.randint(AMONG, likely.shape[:2], generator=generator).to(likely.device)
    others = likely.gather(-1, drawn[..., None]).squeeze(-1)
    others = torch.cat((batch.token_ids[:, :1], others), dim=1)
    return RewardBatch(torch.where(chosen, others, batch.token_ids), batch.lengths, batch.labels)


def token_probabilities(teacher: CausalLM, batch: RewardBatch) -> Tensor:
    """P(token | the tokens before it), float32 (b, L); that of the first token, which nothing foresees, is 0."""
    given = foreseen(teacher, batch).float().softmax(-1).gather(-1, batch.token_ids[:, 1:, None]).squeeze(-1)
    return torch.cat((torch.zeros_like(given[:, :1]), given), dim=1)


@torch.no_grad()
def foreseen(teacher: CausalLM, batch: RewardBatch) -> Tensor:
    """Logits (b, L - 1, V) of the second token on."""
    teacher.to(batch.token_ids.device)
    hidden = teacher.norm(teacher.read(batch.token_ids, batch.lengths)[0])
    logits: Tensor = teacher.head(hidden[:, :-1])
    return logits
