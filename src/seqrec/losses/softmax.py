"""Cross-entropy over the whole catalogue: every item is a negative of every position.

Shapes: B rows, L positions, D width, N items, T positions with a target.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD
from seqrec.models.base import ItemVectors


class SoftmaxConfig(Config):
    """How hard the targets are."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all items")


class SoftmaxLoss:
    """Mean cross-entropy over all positions that have a target."""

    Config = SoftmaxConfig

    def __init__(self, config: SoftmaxConfig) -> None:
        self.config = config

    def __call__(self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: ItemVectors, batch: Batch) -> Tensor:
        """A scalar in float32; `batch` is not looked at. Targets that are PAD do not count."""
        h_TD, targets_T = h_BLD.flatten(0, 1), targets_BL.flatten()
        if h_TD.device.type == "cpu":
            # Padded positions cost a row of the catalogue each; on a GPU finding them would cost a synchronisation.
            kept = (targets_T != PAD).nonzero()[:, 0]
            h_TD, targets_T = h_TD[kept], targets_T[kept]
        logits_TN = item_vectors.score(h_TD).float()
        smoothing = self.config.label_smoothing
        return F.cross_entropy(logits_TN, targets_T - 1, ignore_index=PAD - 1, label_smoothing=smoothing)
