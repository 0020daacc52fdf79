"""Popularity: every history gets the items that occur most often in the training part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.sequences import Sequences
from seqrec.models.base import Scorer


class PopularityConfig(Config):
    """Nothing to choose."""


class Popularity(Scorer):
    """Scores are training counts."""

    Config = PopularityConfig

    def __init__(self, config: PopularityConfig, num_items: int) -> None:
        self.config = config
        self.num_items = num_items
        self.counts_N = torch.zeros(num_items)

    def fit(self, train: Sequences) -> Self:
        self.counts_N = torch.from_numpy(train.counts()).float()
        return self

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        counts = self.counts_N.to(batch.items.device)
        counts = counts if items is None else counts[items - 1]
        return counts.expand(len(batch), -1).clone()

    def state_dict(self) -> dict[str, Tensor]:
        return {"counts": self.counts_N}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.counts_N = state["counts"]
