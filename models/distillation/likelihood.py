"""A reward model's first lesson: how probable the model it starts from held every token of a reply.

A trunk that was trained to foresee the next token has no layer left in which to see that another one came. Labels of
whole steps are too few to teach it; the likelihood of every token is a label that costs one pass of the teacher, and a
reply's least likely token is where its reasoning most often went wrong.
"""

import torch
from torch import Tensor, nn

from harness.models.architectures.causal_lm import CausalLM

from .reward_data import RewardBatch
from .rewards import Objective, RewardKind, accuracy, probabilities, reward_loss


def make_likelihood_objective(kind: RewardKind, model: nn.Module, teacher: CausalLM) -> Objective:
    """The loss of a training stage of kind "likelihood".

    Args:
        kind: of the reward model.
        model: a `RewardTrunk` of that kind, or a wrapper with the same forward.
        teacher: the language model that says how probable each token was; it is not trained.

    Returns:
        A function of a `RewardBatch` that gives `loss`, differentiable: the cross-entropy of the score at every
        labelled token against the probability that the teacher gave the token after what stands before it. What the
        labels themselves are does not matter. For the log there is `accuracy`, as of the other reward losses.
    """
    teacher.requires_grad_(False)

    def objective(batch: RewardBatch) -> dict[str, Tensor]:
        labels = torch.where(batch.labels >= 0, token_probabilities(teacher, batch), batch.labels)
        logits = model(batch.token_ids, batch.lengths)
        scores = probabilities(kind, logits.detach())
        return {"loss": reward_loss(kind, logits, labels), "accuracy": accuracy(scores, labels)}

    return objective


@torch.no_grad()
def token_probabilities(teacher: CausalLM, batch: RewardBatch) -> Tensor:
    """P(token | the tokens before it), float32 (b, L); that of the first token, which nothing foresees, is 0."""
    token_ids = batch.token_ids
    teacher.to(token_ids.device)
    hidden = teacher.norm(teacher.read(token_ids, batch.lengths)[0])
    foreseen = teacher.head(hidden[:, :-1]).float().softmax(-1)
    given = foreseen.gather(-1, token_ids[:, 1:, None]).squeeze(-1)
    return torch.cat((torch.zeros_like(given[:, :1]), given), dim=1)
