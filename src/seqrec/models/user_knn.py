"""User-based nearest neighbours: what people with a similar history met.

score(j | history) = sum_v s(history, v) w(v, j), over the k users v of the training part whose histories are most
like the one shown: Resnick et al., "GroupLens", CSCW 1994; with recency, Ludewig & Jannach, "Evaluation of
session-based recommendation algorithms", UMUAI 2018. Where v never met j, w(v, j) is 0. Where v did, it is 1; for the
similarity `sequence` it is decay^(events after it in v's history), as in the vectors that are compared, and of an item
that occurs several times the latest occurrence counts. Neighbours are looked up when scores are asked for, so it works
for anybody. Who is in the training part is no neighbour of their own, if the batch says who they are.

Shapes: B rows, A rows of a block, L positions, N items, U users of the training part, E events, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.sequences import Sequences
from seqrec.models.base import Scorer
from seqrec.models.interaction_matrix import history_matrix, interaction_matrix, scipy_sparse
from seqrec.models.neighbours import blocks, top
from seqrec.models.similarities import DISTANCES, NEED_RATINGS, SIMILARITIES, Floats, Pair, Rows, Sparse
from seqrec.models.similarity_inputs import svd_vectors

#: Weight of popularity: orders the items that no neighbour met, and nothing else.
PRIOR = 1e-9


class UserKNNConfig(Config):
    """What makes people alike."""

    similarity: Literal[
        "cosine", "pearson", "jaccard", "euclidean", "manhattan", "hamming", "bhattacharyya", "kullback_leibler",
        "embedding", "sequence",
    ] = "sequence"  # fmt: skip
    neighbours: int = Field(100, ge=1, description="people asked")
    window: int | None = Field(None, ge=1, description="how many of the last events are compared; none for all")
    decay: float = Field(0.9, gt=0, le=1, description="weight of an event against the next, for `sequence`")
    width: int = Field(64, ge=1, description="of the vectors, for the similarity `embedding`")

    @field_validator("similarity", mode="before")
    @classmethod
    def _without_ratings(cls, name: object) -> object:
        if name in NEED_RATINGS:
            raise ValueError(f"{name} compares ratings, and a history that is shown has none: choose cosine or pearson")
        return name


class UserKNN(Scorer):
    """Keeps the training part as a sparse matrix; `sequence` is the cosine of histories that fade with age."""

    Config = UserKNNConfig

    def __init__(self, config: UserKNNConfig, num_items: int) -> None:
        self.config: UserKNNConfig = config
        self.num_items = num_items
        self.fading = config.decay if config.similarity == "sequence" else 1.0
        self.measure = SIMILARITIES["cosine" if config.similarity == "sequence" else config.similarity]
        self._remember(scipy_sparse().csr_matrix((0, num_items), dtype=np.float32), np.zeros((num_items, 0)))

    def fit(self, train: Sequences) -> Self:
        """Keep who met what.

        Raises:
            MissingExtraError: scipy or scikit-learn is not installed.
        """
        matrix_UN = interaction_matrix(train, self.fading)
        factors_ND = np.zeros((self.num_items, 0))
        if self.config.similarity == "embedding":
            factors_ND = svd_vectors(matrix_UN, self.config.width)[1]
        self._remember(matrix_UN, factors_ND)
        return self

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        shown = batch if self.config.window is None else batch.tail(self.config.window)
        history_BN = scipy_sparse().csr_matrix(history_matrix(shown, self.num_items, self.fading).cpu().numpy())
        asked = Rows(history_BN, history_BN @ self._factors_ND)
        users = np.full(len(batch), -1) if batch.users is None else batch.users.cpu().numpy()
        parts = [self._block(asked, users, *block) for block in blocks(len(batch), len(self._rows.sizes))]
        scores_BN = torch.from_numpy(np.concatenate(parts) + self._prior_N).to(batch.items.device)
        return scores_BN if items is None else scores_BN[:, items - 1]

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "offsets": torch.from_numpy(self._matrix.indptr.astype(np.int64)),
            "items": torch.from_numpy(self._matrix.indices.astype(np.int32)),
            "weights": torch.from_numpy(self._matrix.data),
            "factors": torch.from_numpy(np.ascontiguousarray(self._factors_ND)),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        parts = tuple(state[name].numpy() for name in ("weights", "items", "offsets"))
        shape = (len(state["offsets"]) - 1, self.num_items)
        self._remember(scipy_sparse().csr_matrix(parts, shape=shape), state["factors"].numpy())

    def _remember(self, matrix_UN: Sparse, factors_ND: Floats) -> None:
        self._matrix, self._factors_ND = matrix_UN, factors_ND
        self._rows = Rows(matrix_UN, matrix_UN @ factors_ND)
        popularity = np.bincount(matrix_UN.indices, minlength=self.num_items).astype(np.float32)
        self._prior_N = PRIOR * popularity / max(popularity.max(initial=0), 1)

    def _block(self, asked: Rows, users: np.ndarray, first: int, last: int) -> np.ndarray:
        """Scores (A, N) of rows `first` to `last` - 1."""
        pair = Pair(asked.block(first, last), self._rows)
        similarity_AU = self.measure(pair)
        if self.config.similarity in DISTANCES:
            similarity_AU[pair.common == 0] = 0
        own = users[first:last]
        known = (own >= 0) & (own < similarity_AU.shape[1])
        similarity_AU[np.flatnonzero(known), own[known]] = 0
        counts, others, values = top(similarity_AU, self.config.neighbours)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        weights = scipy_sparse().csr_matrix((values, others, offsets), shape=similarity_AU.shape)
        return (weights @ self._matrix).toarray()
