"""Cross-entropy over the whole catalogue: every item is a negative of every position.

Shapes: B rows, L positions, D width.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD
from seqrec.kernels.cross_entropy import linear_cross_entropy
from seqrec.models.base import ItemVectors
from seqrec.models.sharded import ShardedItemVectors


class SoftmaxConfig(Config):
    """How hard the targets are."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all items")


class SoftmaxLoss:
    """Mean cross-entropy over all positions that have a target."""

    Config = SoftmaxConfig
    separable = True

    def __init__(self, config: SoftmaxConfig) -> None:
        self.config = config

    def __call__(self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: ItemVectors, batch: Batch) -> Tensor:
        """A scalar in float32; `batch` is not looked at. Targets that are PAD do not count."""
        h_TD, targets_T, smoothing = h_BLD.flatten(0, 1), targets_BL.flatten(), self.config.label_smoothing
        if isinstance(item_vectors, ShardedItemVectors):
            losses_T = item_vectors.cross_entropy(h_TD, targets_T, smoothing)
            return (losses_T.sum() / (targets_T != PAD).sum().clamp(min=1)).float()
        weight, bias, cosine = item_vectors
        return linear_cross_entropy(
            h_TD,
            weight,
            targets_T - 1,
            bias=bias,
            label_smoothing=smoothing,
            ignore_index=PAD - 1,
            cosine=cosine,
        ).float()
