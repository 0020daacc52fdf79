"""First-order Markov chain with decay: what followed each of the last items, recent items counting most.

score(j | history) = sum_l decay^(l-1) P(j follows x_l) + a little popularity, over the last `window` items
x_1 (newest), x_2, ...; P is estimated from pairs of neighbours in the training part.

Shapes: B rows, L positions, N items, E pairs (item, next item) that occur in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.sequences import Sequences
from seqrec.models.base import Scorer

#: Weight of popularity: orders the items that never followed anything in the history, and nothing else.
PRIOR = 1e-6


class MarkovConfig(Config):
    """How far back the chain looks."""

    window: int = Field(5, ge=1, description="how many of the last items count")
    decay: float = Field(0.5, gt=0, le=1, description="weight of an item against the one after it")


class Markov(Scorer):
    """Transition probabilities kept as sparse rows."""

    Config = MarkovConfig

    def __init__(self, config: MarkovConfig, num_items: int) -> None:
        self.config: MarkovConfig = config
        self.num_items = num_items
        self.popularity_N = torch.zeros(num_items)
        self.offsets = torch.zeros(num_items + 2, dtype=torch.int64)
        self.followers_E = torch.zeros(0, dtype=torch.int64)
        self.chances_E = torch.zeros(0)

    def fit(self, train: Sequences) -> Self:
        index = np.concatenate([np.arange(s, e - 1) for s, e in zip(train.starts, train.ends, strict=True)])
        width = self.num_items + 1
        pairs = train.items[index].astype(np.int64) * width + train.items[index + 1]
        keys, counts = np.unique(pairs, return_counts=True)
        rows = keys // width
        self.offsets = torch.from_numpy(np.searchsorted(rows, np.arange(width + 1)))
        self.followers_E = torch.from_numpy(keys % width)
        self.chances_E = torch.from_numpy((counts / np.bincount(rows, counts)[rows]).astype(np.float32))
        popularity = torch.from_numpy(train.counts()).float()
        self.popularity_N = PRIOR * popularity / popularity.max().clamp(min=1)
        return self

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        device = batch.items.device
        scores_BN = self.popularity_N.to(device).repeat(len(batch), 1)
        offsets, followers, chances = (x.to(device) for x in (self.offsets, self.followers_E, self.chances_E))
        for lag in range(min(self.config.window, batch.items.shape[1])):
            position = (batch.lengths - 1 - lag).clamp(min=0)
            item_B = batch.items.gather(1, position[:, None])[:, 0] * (batch.lengths > lag)
            first, count = offsets[item_B], offsets[item_B + 1] - offsets[item_B]
            row = torch.repeat_interleave(count)
            edge = torch.arange(len(row), device=device) - (count.cumsum(0) - count)[row] + first[row]
            weight = self.config.decay**lag * chances[edge]
            scores_BN.index_put_((row, followers[edge] - 1), weight, accumulate=True)
        return scores_BN if items is None else scores_BN[:, items - 1]

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "popularity": self.popularity_N,
            "offsets": self.offsets,
            "followers": self.followers_E,
            "chances": self.chances_E,
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.popularity_N, self.offsets = state["popularity"], state["offsets"]
        self.followers_E, self.chances_E = state["followers"], state["chances"]
