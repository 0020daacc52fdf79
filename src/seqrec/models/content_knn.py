"""Nearest neighbours by content: items with the genres and the words of those in the history.

score(j | history) = sum_l decay^(l-1) s(x_l, j), as in `item_knn`, with s(x, j) = sum_f w_f cos(f(x), f(j)) over
features f of items, such as their genres and titles: the vector-space recommender of Pazzani & Billsus,
"Content-Based Recommendation Systems", 2007. Who met what orders only items without any likeness; one that nobody
met yet has its place too.

Shapes: B rows, N items, A items of a block, D width of a vector, C codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
from pydantic import Field, PositiveFloat
from torch import Tensor

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.features import Categorical, Dense, Feature, Numeric
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError
from seqrec.models.interaction_matrix import scipy_sparse
from seqrec.models.item_knn import NeighbourScorer
from seqrec.models.neighbours import nearest, others_only
from seqrec.models.similarities import Floats, Pair, Rows, cosine, embedding

#: What is compared unless `weights` says otherwise, as far as the data have it.
USUAL = {"categories": 1.0, "title": 1.0}


class ContentKNNConfig(Config):
    """Which features count, and how the past does."""

    weights: dict[str, PositiveFloat] | None = Field(
        None,
        min_length=1,
        description="features of items and how much each counts; none for categories and title, 1 each",
    )
    neighbours: int = Field(50, ge=1, description="items kept per item")
    decay: float = Field(0.8, gt=0, le=1, description="weight of an item of the history against the one after it")


class ContentKNN(NeighbourScorer):
    """Neighbours of every item by its features; popularity orders the rest."""

    Config = ContentKNNConfig

    def __init__(self, config: ContentKNNConfig, num_items: int) -> None:
        super().__init__(num_items)
        self.config: ContentKNNConfig = config

    def fit(self, train: Sequences) -> Self:
        """Refuse: histories alone say nothing about content.

        Raises:
            DataError: always.
        """
        raise DataError("content_knn compares what items are, and histories do not tell: call fit_data with the data.")

    def fit_data(self, data: PreparedData) -> Self:
        """Find the neighbours of every item.

        Raises:
            DataError: the data set lacks the features, or one of them has no cosine, or there are too many pairs.
            MissingExtraError: scipy is not installed.
        """
        known = data.features().items
        sides = [(weight, compared_rows(name, known[name])) for name, weight in self._weights(known).items()]

        def compare(first: int, last: int) -> tuple[Floats, Floats]:
            similarity = np.zeros((last - first, self.num_items))
            for weight, rows in sides:
                similarity += weight * _cosine(rows, first, last)
            return others_only(similarity, first), np.ones_like(similarity)

        self.remember(data.train, nearest(compare, self.num_items, self.config.neighbours))
        return self

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        scores_BN = self.summed(batch, self.config.decay)
        return scores_BN if items is None else scores_BN[:, items - 1]

    def _weights(self, known: Mapping[str, Feature]) -> Mapping[str, float]:
        """The features to compare, all of them there."""
        wanted = self.config.weights
        found = {name: weight for name, weight in (wanted or USUAL).items() if name in known}
        missing = sorted(set(wanted or {}) - set(found))
        if missing or not found:
            raise DataError(
                f"content_knn compares {', '.join(missing or USUAL)} of items, and this data set has "
                f"{', '.join(known) or 'nothing about its items'}. Prepare it from a source that tells more about "
                "items, name features that there are in model.weights, or choose item_knn."
            )
        return found


def compared_rows(name: str, feature: Feature) -> Rows:
    """A feature (N rows) as rows that have a cosine: words as sparse rows, vectors as they are.

    Raises:
        DataError: the feature is a number.
    """
    if isinstance(feature, Numeric):
        raise DataError(f"content_knn compares words and vectors; {name} is a number. Leave it out of model.weights.")
    sparse = scipy_sparse()
    if isinstance(feature, Dense):
        return Rows(sparse.csr_matrix((len(feature), 1)), np.asarray(feature.vectors, dtype=np.float64))
    if isinstance(feature, Categorical):
        counts, codes_C = feature.present.astype(np.int64), feature.codes[feature.present]
    else:
        counts, codes_C = np.diff(feature.offsets), feature.codes
    parts = (np.ones(len(codes_C)), np.asarray(codes_C) - 1, np.concatenate([[0], np.cumsum(counts)]))
    return Rows(sparse.csr_matrix(parts, shape=(len(feature), len(feature.vocabulary))))


def _cosine(rows: Rows, first: int, last: int) -> Floats:
    """(A, N) cosines of items `first` + 1 to `last` with all."""
    pair = Pair(rows.block(first, last), rows)
    return cosine(pair) if rows.vectors is None else embedding(pair)
