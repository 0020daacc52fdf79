"""EASE: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, with recency.

A history is a vector x of items, each weighing decay^(events since), and scores are x W: one linear map, fitted in
closed form. With x_t the history before event t of a user, i_t the item of that event and e_i the unit vector of i,

    target = next:     W = argmin sum_t |e_(i_t) - x_t W|^2 + regularisation |W|^2       (over all events of all users)
    target = history:  W = argmin sum_users |x - x W|^2 + regularisation |W|^2, diag W = 0     (Steck's own)

`next` asks what follows, so W knows that a sequel is watched after its prequel; it needs no constraint on the
diagonal, because an item does not stand in the history before it. `history` asks which items go together: a history
is a set there, and of an item that occurs several times the latest occurrence counts.

Fitting works on two N x N matrices of float32 in place and takes N^3 steps: a catalogue of ten thousand items takes
a minute. Shapes: N items, B rows, L positions, E pairs of events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import embedding_bag

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.sequences import Ints, Sequences
from seqrec.errors import DataError
from seqrec.models.base import Scorer
from seqrec.models.interaction_matrix import interaction_matrix

Floats = npt.NDArray[np.float32]
#: Weight of popularity: orders what the history says nothing about, and nothing else.
PRIOR = 1e-7
#: Rows of the Gram matrix that are computed at a time for `target: history`.
SLAB = 512


class EASEConfig(Config):
    """How a history is weighed and what it has to predict."""

    target: Literal["next", "history"] = Field("next", description="what a history predicts; history is Steck's EASE")
    decay: float = Field(0.8, gt=0, le=1, description="weight of an item against the one after it")
    window: int = Field(50, ge=1, description="how many of the last items count")
    regularisation: float = Field(100.0, gt=0, description="of the weights, in squared events")
    max_memory_gb: float = Field(8.0, gt=0, description="what fitting may take")


class EASE(Scorer):
    """One dense matrix (N, N): row j says what item j + 1 in a history does for the score of every item."""

    Config = EASEConfig

    def __init__(self, config: EASEConfig, num_items: int) -> None:
        self.config: EASEConfig = config
        self.num_items = num_items
        self.weight_NN = torch.zeros(1, 1).expand(num_items, num_items)
        self.popularity_N = torch.zeros(num_items)

    def fit(self, train: Sequences) -> Self:
        """Solve for the weights.

        Raises:
            DataError: N x N matrices do not fit into `max_memory_gb`, or rounding makes the equations singular.
            MissingExtraError: scipy is not installed (`target: history`).
        """
        self._check_size()
        solve = next_item_weights if self.config.target == "next" else history_weights
        self.weight_NN = torch.from_numpy(solve(train, self.config))
        popularity = torch.from_numpy(train.counts()).float()
        self.popularity_N = PRIOR * popularity / popularity.max().clamp(min=1)
        return self

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        device = batch.items.device
        self.weight_NN, self.popularity_N = self.weight_NN.to(device), self.popularity_N.to(device)
        ages_L = torch.arange(min(self.config.window, batch.items.shape[1]), device=device)
        positions_BL = batch.lengths[:, None] - 1 - ages_L
        items_BL = batch.items.gather(1, positions_BL.clamp(min=0))
        weights_BL = self.config.decay ** ages_L.float() * (positions_BL >= 0)
        if self.config.target == "history":
            weights_BL = weights_BL * latest(items_BL, self.num_items)
        # An item's row at a time: work in proportion to the events, and a row of scores that is the same in any batch.
        scores_BN = embedding_bag(
            (items_BL - 1).clamp(min=0), self.weight_NN, mode="sum", per_sample_weights=weights_BL.float()
        )
        scores_BN += self.popularity_N
        return scores_BN if items is None else scores_BN[:, items - 1]

    def state_dict(self) -> dict[str, Tensor]:
        return {"weight": self.weight_NN, "popularity": self.popularity_N}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.weight_NN, self.popularity_N = state["weight"], state["popularity"]

    def _check_size(self) -> None:
        matrices = 2 if self.config.target == "next" else 1
        needed = matrices * self.num_items**2 * np.dtype(np.float32).itemsize / 1e9
        if needed > self.config.max_memory_gb:
            raise DataError(
                f"EASE on {self.num_items:,} items needs {needed:.1f} GB for {matrices} dense matrices of items by "
                f"items, and model.max_memory_gb is {self.config.max_memory_gb:g}. Take a model whose memory grows "
                f"with the events instead (markov, item_knn, als), keep fewer items (a larger data.k_core), or raise "
                f"model.max_memory_gb where the machine has the memory."
            )


def next_item_weights(train: Sequences, config: EASEConfig) -> Floats:
    """W (N, N) of `target: next`: (sum_t x_t' x_t + regularisation)^-1 sum_t x_t' e_(i_t)."""
    N, decay, window = train.num_items, config.decay, config.window
    gram_NN, follows_NN = np.zeros((N, N), np.float32), np.zeros((N, N), np.float32)
    powers = decay ** np.arange(2 * window)
    # An item that is n + 1 windows' input, aged 0..n, is there with weights decay^0..decay^n: squares add up to these.
    squares = np.concatenate([[0.0], np.cumsum(powers[::2])])
    for lag in range(window + 1):
        for earlier, later, left in pairs(train, lag):
            if lag > 0:
                np.add.at(follows_NN.reshape(-1), earlier * N + later, np.float32(powers[lag - 1]))
            if lag < window:  # both stand in the windows of the next events; one triangle is enough
                key = np.maximum(earlier, later) * N + np.minimum(earlier, later)
                weight = powers[lag] * squares[np.minimum(left, window - lag)]
                weight[(earlier == later) & (lag > 0)] *= 2  # on the diagonal both orders fall together
                np.add.at(gram_NN.reshape(-1), key, weight.astype(np.float32))
    factor = _cholesky(gram_NN, config.regularisation)
    solution = torch.from_numpy(follows_NN)
    torch.linalg.solve_triangular(factor.mT, solution, upper=False, out=solution)
    torch.linalg.solve_triangular(factor, solution, upper=True, out=solution)
    return follows_NN


def history_weights(train: Sequences, config: EASEConfig) -> Floats:
    """W (N, N) of `target: history`: I - P / diag(P) columnwise, with P = (X' X + regularisation)^-1."""
    N = train.num_items
    X = interaction_matrix(replace(train, starts=np.maximum(train.starts, train.ends - config.window)), config.decay)
    gram_NN = np.empty((N, N), np.float32)
    for start in range(0, N, SLAB):
        gram_NN[start : start + SLAB] = (X[:, start : start + SLAB].T @ X).toarray()
    factor = _cholesky(gram_NN, config.regularisation)
    torch.cholesky_inverse(factor, upper=True, out=factor)
    gram_NN /= -gram_NN.diagonal().copy()
    np.fill_diagonal(gram_NN, 0)
    return gram_NN


def latest(items_BL: Tensor, num_items: int) -> Tensor:
    """(B, L) bool: where an item stands for the first time in a row of items, newest first."""
    ages_BL = torch.arange(items_BL.shape[1], device=items_BL.device).expand_as(items_BL)
    youngest_BN = ages_BL.new_full((len(items_BL), num_items + 1), items_BL.shape[1])
    youngest_BN.scatter_reduce_(1, items_BL, ages_BL, "amin")
    return youngest_BN.gather(1, items_BL) == ages_BL


def pairs(train: Sequences, lag: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Items `lag` events apart, as columns (E,) and (E,), and how many events (E,) follow both; in blocks of users."""
    for users, _ in train.blocks():
        starts, ends = train.starts[users], train.ends[users]
        count = np.maximum(ends - starts - lag, 0)
        place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        first = np.repeat(starts, count) + place
        left = np.repeat(count, count) - 1 - place
        yield train.items[first].astype(np.int64) - 1, train.items[first + lag].astype(np.int64) - 1, left


def _cholesky(gram_NN: Floats, regularisation: float) -> Tensor:
    """U (N, N) in the memory of the matrix, whose lower triangle counts: U' U = gram + regularisation.

    In torch, whose LAPACK stands matrices of more than 2 GB, in place where they lie in column order: so does the
    transpose of an array of numpy.

    Raises:
        DataError: rounding took the matrix's definiteness away.
    """
    np.einsum("ii->i", gram_NN)[:] += np.float32(regularisation)
    factor, failed = torch.from_numpy(gram_NN).mT, torch.zeros((), dtype=torch.int32)
    torch.linalg.cholesky_ex(factor, upper=True, out=(factor, failed))
    if failed:
        raise DataError(
            f"EASE's equations cannot be solved in float32 with model.regularisation {regularisation:g}: raise it."
        )
    return factor
