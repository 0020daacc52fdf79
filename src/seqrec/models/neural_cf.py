"""Neural collaborative filtering as two towers: who likes what, without the order in which it happened.

He et al., "Neural Collaborative Filtering", WWW 2017, learn an interaction of a user's vector and an item's by a
multilayer perceptron over both at once, which costs a pass per pair and knows no user it was not trained on. What is
here is the form that ranks a whole catalogue: Covington et al., "Deep Neural Networks for YouTube Recommendations",
RecSys 2016, in which a perceptron over the mean of a history's item vectors makes the user's vector, and softmax over
all items trains it; with a perceptron on the side of the items too, as in the two-tower retrieval that grew out of it
(Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019).

Shapes: B rows, L positions, D width, N items.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqrec.data.batches import Batch
from seqrec.models.base import ItemVectors, SequenceModel, SequenceModelConfig
from seqrec.models.layers import Dropout, ItemTable


class NeuralCFConfig(SequenceModelConfig):
    """How wide the towers are."""

    hidden_factor: float = Field(2, gt=0, description="width of each tower's hidden layer over embedding_dim")

    @model_validator(mode="after")
    def _one_product(self) -> Self:
        if self.head != "product":
            raise ValueError("head: neural_cf has a tower of its own for items, whose vectors it multiplies with")
        return self


class NeuralCF(SequenceModel):
    """The running mean of item vectors through one tower, the item table through the other."""

    Config = NeuralCFConfig
    reads_ratings = True

    def __init__(self, config: NeuralCFConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.items = ItemTable(config, num_items)
        self.dropout = Dropout(config.dropout)
        self.history_tower = Tower(config)
        self.item_tower = Tower(config)

    def encode(self, batch: Batch) -> Tensor:
        """One vector per prefix: position t knows which events came up to it, and not when."""
        x_BLD = self.dropout(self.items(batch.items, batch.values))
        count_L = torch.arange(1, x_BLD.shape[1] + 1, device=x_BLD.device, dtype=x_BLD.dtype)
        return self.items.query(self.history_tower(x_BLD.cumsum(1) / count_L[:, None]))

    def item_vectors(self) -> ItemVectors:
        weight_ND = self.item_tower(self.items.table()[1:] * self.items.scale)
        return ItemVectors(F.normalize(weight_ND, dim=-1) if self.items.cosine else weight_ND, self.items.bias)


class Tower(nn.Module):
    """norm(x), then x + perceptron(x), then a norm. The mean of many vectors is short: its direction is what counts."""

    def __init__(self, config: NeuralCFConfig) -> None:
        super().__init__()
        D, hidden = config.embedding_dim, int(config.embedding_dim * config.hidden_factor)
        self.input_norm = nn.LayerNorm(D)
        self.perceptron = nn.Sequential(
            nn.Linear(D, hidden),
            nn.GELU(),
            Dropout(config.dropout),
            nn.Linear(hidden, D),
            Dropout(config.dropout),
        )
        self.norm = nn.LayerNorm(D)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_norm(x)
        return self.norm(x + self.perceptron(x))
