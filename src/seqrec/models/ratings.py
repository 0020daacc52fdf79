"""What people said about the events of a history, as a part of what a model reads: one vector for each rating.

Shapes: B rows, L positions, D width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError

#: Vectors for ratings: one for each of up to so many different ones, half stars for one; else for parts of the range.
PARTS = 10


class Ratings(nn.Module):
    """Vectors of ratings, zero at first. An unknown rating has the mean of all vectors, by how often each is given,
    and a vector of its own on top, which is learned where some ratings are missing in training."""

    edges: Tensor
    shares: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(PARTS + 1, width))
        self.register_buffer("edges", torch.arange(1, PARTS) / 2 + 0.25)  # between half stars, until data say more
        self.register_buffer("shares", torch.full((PARTS,), 1 / PARTS))

    def fit_data(self, data: PreparedData) -> None:
        """Know which ratings are given in training, and how often.

        Raises:
            ConfigError: none is.
        """
        train = data.train
        if train.values is None:
            raise ConfigError(
                f"model.rating_input: {data.name} has no ratings. Leave it out, or prepare the data with their column "
                "of ratings."
            )
        inside = np.zeros(len(train.items) + 1, dtype=np.int32)
        np.add.at(inside, train.starts, 1)
        np.add.at(inside, train.ends, -1)
        values = np.asarray(train.values)[np.cumsum(inside)[:-1] > 0]
        values = values[~np.isnan(values)]
        if len(values) == 0:
            raise ConfigError(f"model.rating_input: no event of {data.name} has a rating in training. Leave it out.")
        edges = _edges(values)
        counts = np.bincount(np.searchsorted(edges, values), minlength=PARTS)
        self.edges.copy_(torch.from_numpy(edges))
        self.shares.copy_(torch.from_numpy(counts / counts.sum()))

    def forward(self, values_BL: Tensor | None, items_BL: Tensor) -> Tensor:
        """Vectors (..., D) for ratings (...), NaN or None where unknown; zero where there is no item."""
        unknown_D = self.weight[0] + self.shares.to(self.weight) @ self.weight[1:]
        table = torch.cat([torch.zeros_like(unknown_D)[None], unknown_D[None], self.weight[1:]])
        places_BL = torch.ones_like(items_BL)
        if values_BL is not None:
            given_BL = torch.bucketize(values_BL.nan_to_num().to(self.edges.dtype), self.edges) + 2
            places_BL = torch.where(values_BL.isnan(), places_BL, given_BL.to(places_BL.dtype))
        return F.embedding(places_BL.masked_fill(items_BL == 0, 0), table)


def _edges(values: np.ndarray) -> np.ndarray:
    """(PARTS - 1,) float32 between the vectors: halfway between ratings where they are few, or parts of equal size."""
    different = np.unique(values)
    if len(different) > PARTS:
        return np.quantile(values, np.arange(1, PARTS) / PARTS).astype(np.float32)
    edges = np.full(PARTS - 1, np.inf, dtype=np.float32)
    edges[: len(different) - 1] = (different[:-1] + different[1:]) / 2
    return edges
