"""PureSVD: Cremonesi, Koren & Turrin, "Performance of Recommender Algorithms on Top-N ... Tasks", RecSys 2010.

The best approximation of the matrix of histories, missing events as zeros, by one of small rank: scores = x V V' with
V the leading right singular vectors and x the history. Sparse all the way: only products with the matrix are taken.

Shapes: B rows, N items, K factors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from seqrec.data.sequences import Sequences
from seqrec.models.factors import FactorConfig, FactorModel
from seqrec.models.interaction_matrix import interaction_matrix, scipy_sparse


class SVDConfig(FactorConfig):
    """Nothing beyond what every factorisation has."""


class SVD(FactorModel):
    """Orthonormal item vectors; a person's vector is the projection of the history."""

    Config = SVDConfig
    config: SVDConfig

    def factorise(self, train: Sequences) -> None:
        scipy_sparse()
        from scipy.sparse.linalg import svds

        X = interaction_matrix(train, self.config.decay)
        rank = min(self.config.factors, min(X.shape) - 1)
        if rank < 1:  # one person or one item: a dense matrix of one row or column
            V_KN = np.linalg.svd(X.toarray(), full_matrices=False)[2]
        else:
            # A fixed start, in general position: the same data give the same bits.
            start = np.random.default_rng(0).standard_normal(min(X.shape)).astype(np.float32)
            V_KN = svds(X, rank, v0=start, return_singular_vectors="vh")[2]
        self.item_factors_NK = torch.from_numpy(np.ascontiguousarray(V_KN.T, dtype=np.float32))

    def fold_in(self, history_BN: Tensor) -> Tensor:
        return history_BN @ self.item_factors_NK
