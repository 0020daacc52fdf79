"""Cross-entropy among the target and a few items that are drawn once per step, for catalogues of millions.

Bengio and Senecal, "Adaptive importance sampling to accelerate training of a neural probabilistic language model",
2008: a negative that is drawn with probability q stands for 1 / (K q) items, so log(K q) is taken from its score.
Mikolov et al., "Distributed representations of words and phrases", 2013: draws by popularity to the power 0.75.

Shapes: B rows, L positions, T = B L, D width, N items (column j is item j + 1), K negatives, A = T + K.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD, Sequences
from seqrec.errors import ConfigError
from seqrec.kernels.cross_entropy import shared_cross_entropy
from seqrec.models.base import ItemVectors


class SampledSoftmaxConfig(Config):
    """How many negatives there are, and which."""

    num_negatives: int = Field(1000, ge=1, description="draws per step, with replacement, shared by all positions")
    sampling: Literal["uniform", "popularity"] = Field(
        "uniform", description="popularity: by events in training; items that have none there are never negatives"
    )
    power: float = Field(0.75, gt=0, le=1, description="popularity only: counts are raised to it")
    logq: bool = Field(True, description="take log(K q) from the scores of negatives: an estimate of the full softmax")


class SampledSoftmaxLoss:
    """Mean cross-entropy over all positions that have a target.

    A negative that is a position's own target is left out there. Draws are from torch's global generator.
    """

    Config = SampledSoftmaxConfig

    def __init__(self, config: SampledSoftmaxConfig) -> None:
        self.config = config
        self._before: Tensor | None = None  # (N + 1,) float64, share of the draws that fall on columns below each

    def fit(self, train: Sequences) -> None:
        """Count how often each item occurs, where draws are by popularity."""
        if self.config.sampling == "popularity":
            drawn_N = torch.from_numpy(train.counts()).double() ** self.config.power
            before = F.pad(drawn_N.cumsum(0), (1, 0))
            self._before = before / before[-1]

    def __call__(self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: ItemVectors, batch: Batch) -> Tensor:
        """A scalar in float32; `batch` is not looked at. Targets that are PAD do not count.

        Raises:
            ConfigError: draws are by popularity, and `fit` was not called.
        """
        weight, bias, cosine = item_vectors
        h_TD, columns_T = h_BLD.flatten(0, 1), targets_BL.flatten() - 1
        negatives_K, log_q_K = self._draw(len(weight), h_TD.device)
        # One look-up for all: its gradient is as large as the table.
        columns_A = torch.cat([columns_T.clamp(min=0), negatives_K])
        rows_AD = F.embedding(columns_A, weight)
        if cosine:
            rows_AD = F.normalize(rows_AD, dim=-1)
        bias_A = weight.new_zeros(len(columns_A)) if bias is None else F.embedding(columns_A, bias[:, None])[:, 0]
        parts = [len(columns_T), len(negatives_K)]
        (own_TD, negative_KD), (own_bias_T, bias_K) = rows_AD.split(parts), bias_A.split(parts)
        if self.config.logq:
            bias_K = bias_K - log_q_K
        return shared_cross_entropy(
            h_TD,
            own_TD,
            negative_KD,
            columns_T,
            negatives_K,
            own_bias=own_bias_T,
            bias=bias_K,
            ignore_index=PAD - 1,
        ).float()

    def _draw(self, num_items: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Columns (K,) of the negatives, and log(K q) of each; nothing waits for the device."""
        K = self.config.num_negatives
        if self.config.sampling == "uniform":
            columns_K = torch.randint(num_items, (K,), device=device)
            return columns_K, torch.full((K,), K / num_items, device=device).log_()
        if self._before is None:
            raise ConfigError(
                "loss.sampling: popularity needs to know how often items occur. Call the loss's fit(train) with the "
                "training histories first, as Trainer does."
            )
        self._before = self._before.to(device, non_blocking=True)  # moves in the first call only
        # In float64: float32 would give items with a share below 1e-7 too many draws, or none.
        points_K = torch.rand(K, dtype=torch.float64, device=device)
        columns_K = torch.searchsorted(self._before, points_K, right=True) - 1
        chance_K = self._before[columns_K + 1] - self._before[columns_K]
        return columns_K, (K * chance_K).log_().float()
