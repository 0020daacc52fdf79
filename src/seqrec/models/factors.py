"""What matrix factorisations share: an item is a vector, a history becomes one, and their dot product is the score.

Only item vectors are kept. The vector of a person is worked out from the history that is shown ("fold-in"), so that
somebody new is treated as somebody who was there in training, and every event counts at once.

Shapes: B rows, N items, K factors, E events.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.sequences import Sequences
from seqrec.errors import MissingExtraError
from seqrec.models.base import Scorer
from seqrec.models.interaction_matrix import history_matrix


class FactorConfig(Config):
    """What every factorisation has."""

    factors: int = Field(64, ge=1, description="width of item vectors; less where the data has fewer dimensions")
    decay: float = Field(0.9, gt=0, le=1, description="weight of an item in a history against the one after it")


class FactorModel(Scorer):
    """scores = u V' + bias."""

    Config = FactorConfig

    def __init__(self, config: FactorConfig, num_items: int) -> None:
        self.config: FactorConfig = config
        self.num_items = num_items
        self.item_factors_NK = torch.zeros(num_items, 1)
        self.bias_N = torch.zeros(num_items)

    def fit(self, train: Sequences) -> Self:
        """Factorise what trains. Without any event every item scores the same.

        Raises:
            MissingExtraError: the library that does it is not installed.
        """
        if train.num_events:
            self.factorise(train)
        return self

    @abstractmethod
    def factorise(self, train: Sequences) -> None:
        """Learn `item_factors_NK`, and `bias_N` where there is one, from at least one event."""

    @abstractmethod
    def fold_in(self, history_BN: Tensor) -> Tensor:
        """Vectors (B, K) of people from their weighted histories (B, N)."""

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        device = batch.items.device
        self.item_factors_NK, self.bias_N = self.item_factors_NK.to(device), self.bias_N.to(device)
        u_BK = self.fold_in(history_matrix(batch, self.num_items, self.config.decay))
        scores_BN = torch.addmm(self.bias_N, u_BK, self.item_factors_NK.T)
        return scores_BN if items is None else scores_BN[:, items - 1]

    def state_dict(self) -> dict[str, Tensor]:
        return {"item_factors": self.item_factors_NK, "bias": self.bias_N}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.item_factors_NK, self.bias_N = state["item_factors"], state["bias"]


def ridge_fold_in(
    history_BN: Tensor,
    factors_NK: Tensor,
    bias_N: Tensor,
    confidence: float,
    zero_weight: float,
    regularisation: float,
) -> Tensor:
    """People's vectors u (B, K) by weighted ridge regression, with the items' vectors v_i and biases b_i fixed.

    Minimises sum over items in the history of c_i (1 - b_i - u v_i)^2, plus zero_weight times the sum over all other
    items of (b_i + u v_i)^2, plus regularisation |u|^2, where c_i = confidence * weight of the item in the history.
    The normal equations are summed and solved in float64.
    """
    V_NK, b_N = factors_NK.double(), bias_N.double()
    eye_KK = torch.eye(V_NK.shape[1], dtype=V_NK.dtype, device=V_NK.device)
    everything_KK = zero_weight * V_NK.T @ V_NK + regularisation * eye_KK
    nothing_K = -zero_weight * V_NK.T @ b_N
    u = []
    for history_N in history_BN:  # one person at a time: a long history's K x K terms need no memory of their own
        rows = history_N.nonzero()[:, 0]
        V, b, c = V_NK[rows], b_N[rows], confidence * history_N[rows].double()
        left = everything_KK + V.T @ ((c - zero_weight)[:, None] * V)
        right = nothing_K + V.T @ (c * (1 - b) + zero_weight * b)
        u.append(torch.linalg.solve(left, right))
    return torch.stack(u).to(factors_NK.dtype)


def implicit_fit(module: str, name: str, weights: Any, **settings: Any) -> Tensor:
    """Item vectors (N, K) that a model of the library `implicit` learns from a sparse matrix (U, N).

    On the CPU and silently; with one thread, so that the same seed gives the same bits.

    Raises:
        MissingExtraError: the library is not installed.
    """
    try:
        model = importlib.import_module(f"implicit.cpu.{module}")
        threads = importlib.import_module("threadpoolctl")
    except ImportError as error:
        raise MissingExtraError("implicit", "classical") from error
    with threads.threadpool_limits(1, "blas"):
        fitted = getattr(model, name)(num_threads=1, random_state=drawn_seed(), **settings)
        fitted.fit(weights, show_progress=False)
    return torch.from_numpy(fitted.item_factors)


def drawn_seed() -> int:
    """A seed for a library, drawn from torch's global generator."""
    return int(torch.randint(2**31 - 1, ()))
