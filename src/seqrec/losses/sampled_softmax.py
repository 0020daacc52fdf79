"""Cross-entropy among the target and a few items that are drawn once per step, for catalogues of millions.

Bengio and Senecal, "Adaptive importance sampling to accelerate training of a neural probabilistic language model",
2008: a negative that is drawn with probability q stands for 1 / (K q) items, so log(K q) is taken from its score. The
target is not drawn: nothing is taken from its score, and it is none of its own negatives (the correction of the
correction, arXiv 2507.09331, whose gradient this one has).
Mikolov et al., "Distributed representations of words and phrases", 2013: draws by popularity to the power 0.75.
In-batch negatives are targets of the batch, so that an item's q is its share of all targets in training; with uniform
draws beside them as in Yang et al., "Mixed Negative Sampling for Learning Two-tower Neural Networks", WWW 2020.

Shapes: B rows, L positions, T = B L, D width, N items (column j is item j + 1), K negatives, A = T + K.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seqrec.config import Choice, Config, Range, Switch
from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD, Sequences
from seqrec.kernels.cross_entropy import shared_cross_entropy
from seqrec.losses.frequencies import target_counts
from seqrec.losses.negatives import Draws
from seqrec.losses.pieces import in_pieces
from seqrec.models.base import ItemVectors


class SampledSoftmaxConfig(Config):
    """How many negatives there are, and which."""

    num_negatives: int = Field(1000, ge=1, description="draws per step, with replacement, shared by all positions")
    sampling: Literal["uniform", "popularity", "in_batch", "mixed"] = Field(
        "uniform",
        description="popularity: by events in training; items that have none there are never negatives; in_batch: "
        "targets of the batch; mixed: in_batch, a share of it uniform",
    )
    power: float = Field(0.75, gt=0, le=1, description="popularity only: counts are raised to it")
    uniform_share: float = Field(0.5, gt=0, lt=1, description="mixed only: share of the draws that are uniform")
    logq: bool = Field(True, description="take log(K q) from the scores of negatives: an estimate of the full softmax")

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "num_negatives": Choice(128, 256, 512, 1000, 2000),
        "sampling": Choice("uniform", "popularity", "in_batch", "mixed"),
    }
    switches: ClassVar[Mapping[str, Switch]] = {"logq": Switch({"logq": False})}

    @property
    def num_uniform(self) -> int:
        """How many of the negatives are uniform."""
        shares = {"uniform": 1.0, "mixed": self.uniform_share}
        return round(self.num_negatives * shares.get(self.sampling, 0.0))


class SampledSoftmaxLoss:
    """Mean cross-entropy over all positions that have a target.

    A negative that is a position's own target is left out there. Draws are from torch's global generator.
    """

    Config = SampledSoftmaxConfig

    def __init__(self, config: SampledSoftmaxConfig) -> None:
        self.config = config
        self._uniform = Draws(None)
        self._frequent = Draws(config.power if config.sampling == "popularity" else 1.0)

    def fit(self, train: Sequences) -> None:
        """Count how often each item occurs, where that is asked for."""
        if self.config.sampling == "popularity":
            self._frequent.fit(train)
        elif self.config.sampling != "uniform":
            self._frequent.take(target_counts(train).clamp(min=1))  # an item that gaps ask for may have none

    def __call__(self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: ItemVectors, batch: Batch) -> Tensor:
        """A scalar in float32; `batch` is not looked at. Targets that are PAD do not count.

        Raises:
            ConfigError: it has to know how often items occur, and `fit` was not called.
        """
        h_TD, columns_T = h_BLD.flatten(0, 1), targets_BL.flatten() - 1
        negatives_K = self._draw(columns_T, item_vectors.num_items)
        less_K = self._log_draws(negatives_K, item_vectors.num_items) if self.config.logq else None
        if not isinstance(item_vectors, ItemVectors):
            return _by_scores(h_TD, columns_T, negatives_K, item_vectors, less_K)
        weight, bias, cosine = item_vectors
        # One look-up for all: its gradient is as large as the table.
        columns_A = torch.cat([columns_T.clamp(min=0), negatives_K])
        rows_AD = F.embedding(columns_A, weight)
        if cosine:
            rows_AD = F.normalize(rows_AD, dim=-1)
        bias_A = weight.new_zeros(len(columns_A)) if bias is None else F.embedding(columns_A, bias[:, None])[:, 0]
        parts = [len(columns_T), len(negatives_K)]
        (own_TD, negative_KD), (own_bias_T, bias_K) = rows_AD.split(parts), bias_A.split(parts)
        return shared_cross_entropy(
            h_TD,
            own_TD,
            negative_KD,
            columns_T,
            negatives_K,
            own_bias=own_bias_T,
            bias=bias_K if less_K is None else bias_K - less_K,
            ignore_index=PAD - 1,
        ).float()

    def _draw(self, columns_T: Tensor, num_items: int) -> Tensor:
        """Columns (K,) of the negatives; nothing waits for the device."""
        uniform, device = self.config.num_uniform, columns_T.device
        others = self.config.num_negatives - uniform
        parts = [self._uniform.columns((uniform,), num_items, device)] if uniform else []
        if others and self.config.sampling == "popularity":
            parts.append(self._frequent.columns((others,), num_items, device))
        elif others:
            parts.append(_some_of(columns_T, others))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _log_draws(self, columns_K: Tensor, num_items: int) -> Tensor:
        """log of how often each column is expected among K draws, whichever way it came there, float32."""
        uniform, expected_K = self.config.num_uniform, torch.zeros((), dtype=torch.float64, device=columns_K.device)
        if uniform:
            expected_K = uniform * self._uniform.chances(columns_K, num_items)
        if uniform < self.config.num_negatives:
            others = self.config.num_negatives - uniform
            expected_K = expected_K + others * self._frequent.chances(columns_K, num_items)
        return expected_K.log().float()


def _some_of(columns_T: Tensor, count: int) -> Tensor:
    """Columns (count,) of positions that have one, drawn with replacement; 0 where none has."""
    until_T = (columns_T >= 0).cumsum(0)
    points = torch.rand(count, dtype=torch.float64, device=columns_T.device) * until_T[-1]
    places = torch.searchsorted(until_T, points.long(), right=True).clamp(max=len(columns_T) - 1)
    return columns_T[places].clamp(min=0)


def _by_scores(
    h_TD: Tensor, columns_T: Tensor, negatives_K: Tensor, vectors: ItemVectors, less_K: Tensor | None
) -> Tensor:
    """The loss where scores are no products of two vectors."""
    drawn = vectors.of(negatives_K + 1)
    counted_T = columns_T >= 0

    def losses(h_RD: Tensor, columns_R: Tensor) -> Tensor:
        own_R1 = vectors.scores_of(h_RD, columns_R.clamp(min=0)[:, None] + 1)
        others_RK = drawn.score(h_RD) if less_K is None else drawn.score(h_RD) - less_K
        others_RK = others_RK.masked_fill(negatives_K == columns_R[:, None], -torch.inf)
        return torch.cat([own_R1, others_RK], 1).logsumexp(1) - own_R1[:, 0]

    h_TD = h_TD.to(torch.promote_types(h_TD.dtype, torch.float32)).masked_fill(~counted_T[:, None], 0)
    losses_T = in_pieces(losses, len(negatives_K) * vectors.numbers_per_score, h_TD, columns_T)
    return (losses_T.masked_fill(~counted_T, 0).sum() / counted_T.sum().clamp(min=1)).float()
