"""Popularity of late: every history gets what occurred most often in the last days of the training part.

Where tastes follow trends this is hard to beat: Ji, Sun, Zhang & Li, "A Re-visit of the Popularity Baseline in
Recommender Systems", SIGIR 2020.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field

from seqrec.data.filters import DAY_MS
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError
from seqrec.models.popularity import Popularity, PopularityConfig

#: Weight of overall popularity: it orders items that occurred equally often of late, or not at all.
PRIOR = 1e-3


class RecentPopularityConfig(PopularityConfig):
    """How long ago is recent."""

    days: float = Field(7.0, gt=0, description="before the last event that trains")


class RecentPopularity(Popularity):
    """Scores are counts in the last days of training."""

    Config = RecentPopularityConfig
    config: RecentPopularityConfig

    def fit(self, train: Sequences) -> Self:
        """Count what trains.

        Raises:
            DataError: the log has no clock times.
        """
        if train.times is None:
            raise DataError("recent_popularity needs clock times, and this log has none. Use popularity.")
        last = int(train.times[train.ends[train.lengths > 0] - 1].max(initial=0))
        recent = train.since(last - int(self.config.days * DAY_MS)).counts()
        overall = train.counts()
        self.counts_N = torch.from_numpy(recent + PRIOR * overall / max(overall.max(), 1)).float()
        return self
