"""Pairs: a target is to score above the negatives of its position.

bpr: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.
bpr_max: Hidasi and Karatzoglou, "Recurrent Neural Networks with Top-k Gains for Session-based Recommendations", CIKM
2018: negatives count as softmax over their scores has it, so that many of them help; scores of strong negatives are
pulled to zero.

Shapes: R positions, K negatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seqrec.config import Choice, Range
from seqrec.losses.negatives import ComparingLoss, NegativesConfig, Rule

#: In place of the score of a negative that does not count: below all that do, and finite.
NOTHING = -1e30


class BPRConfig(NegativesConfig):
    """Nothing but the negatives."""


class BPRMaxConfig(NegativesConfig):
    """The negatives, and how strongly their scores are held down."""

    num_negatives: int = Field(128, ge=1, description="draws per position, with replacement")
    regularisation: float = Field(1.0, ge=0, description="times the mean square of the negatives' scores, weighted")

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "num_negatives": Choice(32, 128, 512),
        "regularisation": Choice(0.0, 0.1, 0.5, 1.0, 2.0),
    }


class BPRLoss(ComparingLoss):
    """Mean over a position's negatives of -log sigma(s+ - s-); nothing where all are the target."""

    Config = BPRConfig

    def rule(self, num_items: int) -> Rule:
        return pair_losses


class BPRMaxLoss(ComparingLoss):
    """-log sum_j w_j sigma(s+ - s_j) + regularisation sum_j w_j s_j^2, with w the softmax of the negatives' scores."""

    Config = BPRMaxConfig
    config: BPRMaxConfig

    def rule(self, num_items: int) -> Rule:
        regularisation = self.config.regularisation

        def rule(own_R1: Tensor, others_RK: Tensor, counts_RK: Tensor) -> Tensor:
            log_weights_RK = others_RK.masked_fill(~counts_RK, NOTHING).log_softmax(1)
            # Where nothing counts the weights are equal, and what they weigh is 0.
            above_RK = F.logsigmoid(own_R1 - others_RK).masked_fill(~counts_RK, 0)
            squares_RK = others_RK.masked_fill(~counts_RK, 0).square()
            held_R = (log_weights_RK.exp() * squares_RK).sum(1)
            return regularisation * held_R - (log_weights_RK + above_RK).logsumexp(1)

        return rule


def pair_losses(own_R1: Tensor, others_RK: Tensor, counts_RK: Tensor) -> Tensor:
    """What `BPRLoss` loses."""
    lost_RK = F.softplus(others_RK - own_R1).masked_fill(~counts_RK, 0)
    return lost_RK.sum(1) / counts_RK.sum(1).clamp(min=1)
