"""Item-based nearest neighbours: items like those of the history, recent ones counting most.

score(j | history) = sum_l decay^(l-1) s(x_l, j), over the history x_1 (newest), x_2, ..., where s(x, j) is the
similarity of j to x if j is one of the k items most like x, and 0 otherwise: Deshpande & Karypis, "Item-Based Top-N
Recommendation Algorithms", ACM TOIS 2004, whose own setting is `similarity: cosine, decay: 1`.

Shapes: B rows, N items, U users, A items of a block, E events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.sequences import Sequences
from seqrec.models.base import Scorer
from seqrec.models.interaction_matrix import history_matrix, interaction_matrix, scipy_sparse
from seqrec.models.neighbours import Compare, Neighbours, nearest, others_only
from seqrec.models.similarities import NEED_RATINGS, SIMILARITIES, Floats, Pair, Rows
from seqrec.models.similarity_inputs import centred, rating_matrix, require_few_products, svd_vectors
from seqrec.models.successions import Successions

#: Weight of popularity: orders the items that are like nothing in the history, and nothing else.
PRIOR = 1e-9


class ItemKNNConfig(Config):
    """What makes items alike, and how the past counts."""

    similarity: Literal[
        "cosine", "adjusted_cosine", "pearson", "common_pearson", "jaccard", "euclidean", "manhattan", "hamming",
        "bhattacharyya", "kullback_leibler", "embedding", "sequence",
    ] = "sequence"  # fmt: skip
    neighbours: int = Field(200, ge=1, description="items kept per item")
    decay: float = Field(0.8, gt=0, le=1, description="weight of an item of the history against the one after it")
    shrink: float = Field(
        1.0, ge=0, description="a similarity that rests on n users or successions counts n / (n + shrink)"
    )
    ratings: bool = Field(False, description="compare ratings, not who met what; adjusted_cosine, common_pearson do")
    window: int = Field(10, ge=1, description="how far apart items may stand, for the similarity `sequence`")
    width: int = Field(64, ge=1, description="of the vectors, for the similarity `embedding`")

    @model_validator(mode="after")
    def _order_has_no_ratings(self) -> Self:
        if self.ratings and self.similarity == "sequence":
            raise ValueError("similarity sequence looks at order, not at ratings: leave ratings off, or choose cosine")
        return self


class NeighbourScorer(Scorer):
    """Scores from lists of similar items, however they were made."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items
        self.popularity_N = torch.zeros(num_items)
        self.neighbours = Neighbours.none(num_items)

    def remember(self, train: Sequences, neighbours: Neighbours) -> None:
        """Keep what scores are made of."""
        popularity = torch.from_numpy(train.counts()).float()
        self.popularity_N = PRIOR * popularity / popularity.max().clamp(min=1)
        self.neighbours = neighbours

    def summed(self, batch: Batch, decay: float) -> Tensor:
        """(B, N) float32 similarity to the history, summed over its items."""
        history = scipy_sparse().csr_matrix(history_matrix(batch, self.num_items, decay).cpu().numpy())
        sums = torch.from_numpy((history @ self.neighbours.matrix(self.num_items)).toarray())
        return sums.to(batch.items.device) + self.popularity_N.to(batch.items.device)

    def state_dict(self) -> dict[str, Tensor]:
        return {"popularity": self.popularity_N, **self.neighbours._asdict()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.popularity_N, self.neighbours = state["popularity"], Neighbours.of(state)


class ItemKNN(NeighbourScorer):
    """The similarity of items comes from who met them, or from the order in which they were met."""

    Config = ItemKNNConfig

    def __init__(self, config: ItemKNNConfig, num_items: int) -> None:
        super().__init__(num_items)
        self.config: ItemKNNConfig = config

    def fit(self, train: Sequences) -> Self:
        """Find the neighbours of every item.

        Raises:
            DataError: the similarity needs ratings and the log has none, or there are too many pairs to compare.
            MissingExtraError: scipy or scikit-learn is not installed.
        """
        config = self.config
        in_order = config.similarity == "sequence"
        compare = Successions(train, config.window).compare if in_order else self._by_users(train)
        self.remember(train, nearest(compare, self.num_items, config.neighbours, config.shrink))
        return self

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        scores_BN = self.summed(batch, self.config.decay)
        return scores_BN if items is None else scores_BN[:, items - 1]

    def _by_users(self, train: Sequences) -> Compare:
        """Rows are items, columns the users who met them."""
        name = self.config.similarity
        rated = self.config.ratings or name in NEED_RATINGS
        matrix_UN = rating_matrix(train, name) if rated else interaction_matrix(train)
        if name == "adjusted_cosine":
            matrix_UN = centred(matrix_UN)
        matrix_NU = matrix_UN.T.tocsr()
        by_vectors = name == "embedding"
        rows = Rows(matrix_NU, svd_vectors(matrix_NU, self.config.width)[0] if by_vectors else None)
        if not by_vectors:
            require_few_products(rows)

        def compare(first: int, last: int) -> tuple[Floats, Floats]:
            pair = Pair(rows.block(first, last), rows)
            similarity = others_only(SIMILARITIES[name](pair), first)
            # Vectors may be alike though nobody met both items.
            return similarity, np.ones_like(similarity) if by_vectors else pair.common

        return compare
