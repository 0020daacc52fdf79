"""Alternating least squares: Hu, Koren & Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.

Items of a history are wanted to score 1 with confidence alpha * weight, all others 0 with confidence 1. Fitted by the
library `implicit`.

Shapes: B rows, N items, K factors.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from seqrec.data.sequences import Sequences
from seqrec.models.factors import FactorConfig, FactorModel, implicit_fit, ridge_fold_in
from seqrec.models.interaction_matrix import interaction_matrix


class ALSConfig(FactorConfig):
    """Strength of events and of the pull to zero."""

    alpha: float = Field(10.0, gt=0, description="confidence of the newest event; that of a missing one is 1")
    regularisation: float = Field(10.0, gt=0, description="of both sides' vectors")
    iterations: int = Field(15, ge=1, description="times that both sides are solved for")


class ALS(FactorModel):
    """A person's vector is one more half step of the same least squares."""

    Config = ALSConfig
    config: ALSConfig
    stochastic = True

    def factorise(self, train: Sequences) -> None:
        config = self.config
        self.item_factors_NK = implicit_fit(
            "als",
            "AlternatingLeastSquares",
            config.alpha * interaction_matrix(train, config.decay),
            factors=config.factors,
            regularization=config.regularisation,
            iterations=config.iterations,
        )

    def fold_in(self, history_BN: Tensor) -> Tensor:
        config = self.config
        return ridge_fold_in(history_BN, self.item_factors_NK, self.bias_N, config.alpha, 1.0, config.regularisation)
