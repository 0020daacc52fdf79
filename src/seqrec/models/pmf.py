"""Probabilistic matrix factorisation: Salakhutdinov and Mnih, "Probabilistic Matrix Factorization", NeurIPS 2007.

Ratings are normal around u v' and vectors around zero, so the most probable vectors minimise squared errors plus
squared lengths. Here ratings are divided by the highest one; events without a rating count 1.

What it is good for: predicting how well somebody will like a film that they did rate. Which film somebody watches
next is another question, and ratings of watched films alone say nothing about it; so every event comes with
`negatives` items drawn uniformly, which are wanted to score 0. It is here for comparison, and other models rank better.

Shapes: B rows, N items, K factors, U users, E events, S events of a step, M drawn items per event.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import embedding

from seqrec.data.sequences import Sequences
from seqrec.models.factors import FactorConfig, FactorModel, ridge_fold_in


class PMFConfig(FactorConfig):
    """How it learns."""

    negatives: int = Field(4, ge=1, description="items drawn per event and wanted to score 0")
    regularisation: float = Field(0.02, gt=0, description="of both vectors, per squared error")
    learning_rate: float = Field(0.01, gt=0, description="of Adam")
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(1 << 16, ge=1, description="events of a step, at most a twentieth of all")


class PMF(FactorModel):
    """Item vectors by Adam on both sides; a person's vector by ridge regression on the history."""

    Config = PMFConfig
    config: PMFConfig
    stochastic = True

    def __init__(self, config: PMFConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.fold_in_weights = torch.ones(2)

    def factorise(self, train: Sequences) -> None:
        config = self.config
        users_E, items_E, ratings_E = events_of(train)
        U, N, E, K = len(train), self.num_items, len(users_E), config.factors
        user_UK = (0.1 * torch.randn(U, K)).requires_grad_()
        item_NK = (0.1 * torch.randn(N, K)).requires_grad_()
        optimizer = torch.optim.Adam([user_UK, item_NK], config.learning_rate)
        size = max(1, min(config.batch_size, E // 20))
        for _ in range(config.epochs):
            for step_S in torch.randperm(E).split(size):
                loss = self._loss(embedding(users_E[step_S], user_UK), item_NK, items_E[step_S], ratings_E[step_S])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.item_factors_NK = item_NK.detach()
        self.fold_in_weights = torch.tensor([E * config.negatives / (U * N), E / U * config.regularisation])

    def _loss(self, user_SK: Tensor, item_NK: Tensor, items_S: Tensor, ratings_S: Tensor) -> Tensor:
        """Squared errors of events and of what is drawn, and squared lengths, per event."""
        drawn_SM = torch.randint(0, self.num_items, (len(items_S), self.config.negatives))
        items_SM = torch.cat([items_S[:, None], drawn_SM], 1)
        wanted_SM = torch.cat([ratings_S[:, None], torch.zeros(drawn_SM.shape)], 1)
        vectors_SMK = embedding(items_SM, item_NK)
        errors_SM = (vectors_SMK @ user_SK[:, :, None])[:, :, 0] - wanted_SM
        lengths = user_SK.square().sum() + vectors_SMK[:, 0].square().sum()
        return (errors_SM.square().sum() + self.config.regularisation * lengths) / len(items_S)

    def fold_in(self, history_BN: Tensor) -> Tensor:
        zero_weight, regularisation = self.fold_in_weights.tolist()
        return ridge_fold_in(history_BN, self.item_factors_NK, self.bias_N, 1.0, zero_weight, regularisation)

    def state_dict(self) -> dict[str, Tensor]:
        return {**super().state_dict(), "fold_in_weights": self.fold_in_weights}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state)
        self.fold_in_weights = state["fold_in_weights"]


def events_of(train: Sequences) -> tuple[Tensor, Tensor, Tensor]:
    """User (E,), column (E,) and rating over the highest one (E,) of every event."""
    users, items, ratings = [], [], []
    for block, _ in train.blocks():
        starts, lengths = train.starts[block], train.lengths[block]
        rows = np.repeat(np.arange(block.start, block.stop), lengths)
        events = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(starts, lengths)
        users.append(rows)
        items.append(train.items[events].astype(np.int64) - 1)
        given = np.full(len(rows), np.nan, np.float32) if train.values is None else train.values[events]
        ratings.append(given)
    given = np.concatenate(ratings)
    highest = np.nanmax(given, initial=-np.inf)
    given = given / highest if highest > 0 else np.full_like(given, np.nan)
    columns = np.concatenate(users), np.concatenate(items), np.nan_to_num(given, nan=1.0)
    return torch.from_numpy(columns[0]), torch.from_numpy(columns[1]), torch.from_numpy(columns[2])
