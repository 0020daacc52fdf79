"""Binary cross-entropy: each target against negatives of its own, each a yes or no by itself.

bce: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, with one negative.
gbce: Petrov and Macdonald, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
Sampling", RecSys 2023. With few negatives targets look surer than they are; their share of the loss is lowered to

    beta = alpha (t (1 - 1 / alpha) + 1 / alpha),    alpha = K / (N - 1)

from t = 0, which is bce, to t = 1, where probabilities are calibrated.

Shapes: R positions, K negatives, N items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seqrec.config import Choice, Range, Switch
from seqrec.losses.negatives import ComparingLoss, NegativesConfig, Rule


class BCEConfig(NegativesConfig):
    """Nothing but the negatives."""


class GBCEConfig(NegativesConfig):
    """The negatives, and how far the loss is calibrated."""

    num_negatives: int = Field(256, ge=1, description="draws per position, with replacement")
    calibration: float = Field(0.75, ge=0, le=1, description="t: 0 is bce, 1 gives calibrated probabilities")

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "num_negatives": Choice(64, 128, 256, 512),
        "calibration": Choice(0.0, 0.5, 0.75, 0.9, 1.0),
    }
    switches: ClassVar[Mapping[str, Switch]] = {"calibration": Switch({"calibration": 0})}


class BCELoss(ComparingLoss):
    """-(log sigma(s+) + sum over negatives of log(1 - sigma(s-))) / (K + 1)."""

    Config = BCEConfig

    def rule(self, num_items: int) -> Rule:
        return binary_losses(1.0)


class GBCELoss(ComparingLoss):
    """The same with beta times the target's part."""

    Config = GBCEConfig
    config: GBCEConfig

    def rule(self, num_items: int) -> Rule:
        share = min(1.0, self.config.num_negatives / max(1, num_items - 1))  # alpha
        return binary_losses(1 - self.config.calibration * (1 - share))  # beta, multiplied out


def binary_losses(weight: float) -> Rule:
    """The rule in which targets count `weight` times."""

    def rule(own_R1: Tensor, others_RK: Tensor, counts_RK: Tensor) -> Tensor:
        against_R = F.softplus(others_RK).masked_fill(~counts_RK, 0).sum(1)
        return (weight * F.softplus(-own_R1[:, 0]) + against_R) / (1 + others_RK.shape[1])

    return rule
