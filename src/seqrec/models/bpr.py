"""BPR: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.

Stochastic gradient steps that put an item of a history above one drawn from elsewhere. Fitted by the library
`implicit`, with one thread, because several race for the same vectors and no two runs would agree.

Shapes: B rows, N items, K factors.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from seqrec.data.sequences import Sequences
from seqrec.models.factors import FactorConfig, FactorModel, implicit_fit
from seqrec.models.interaction_matrix import interaction_matrix


class BPRConfig(FactorConfig):
    """How long and how strongly it learns."""

    learning_rate: float = Field(0.01, gt=0)
    regularisation: float = Field(0.01, ge=0, description="of vectors and biases, per step")
    epochs: int = Field(100, ge=1, description="as many steps in each as there are events")


class BPR(FactorModel):
    """Item vectors and biases; a person's vector is the weighted mean of those of the history's items."""

    Config = BPRConfig
    config: BPRConfig
    stochastic = True

    def factorise(self, train: Sequences) -> None:
        config = self.config
        fitted_NK = implicit_fit(
            "bpr",
            "BayesianPersonalizedRanking",
            interaction_matrix(train),
            factors=config.factors,
            learning_rate=config.learning_rate,
            regularization=config.regularisation,
            iterations=config.epochs,
        )
        self.item_factors_NK, self.bias_N = fitted_NK[:, :-1].contiguous(), fitted_NK[:, -1].contiguous()

    def fold_in(self, history_BN: Tensor) -> Tensor:
        return history_BN @ self.item_factors_NK / history_BN.sum(1, keepdim=True)
