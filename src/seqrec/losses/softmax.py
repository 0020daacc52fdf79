"""Cross-entropy over the whole catalogue: every item is a negative of every position.

- focal: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. (1 - p)^gamma times the loss: sure hits count
  less.
- popularity_weight: what is rarely a target counts more; see `popularity_weights`.
- adjustment: Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021. Trains with s + tau log pop(i) and
  serves with s: what popularity alone explains, scores need not say.
- next_but_one: the same state also predicts the item after the next one, as in Gloeckle et al., "Better & Faster Large
  Language Models via Multi-token Prediction", ICML 2024, with one head for both.

Shapes: B rows, L positions, T = B L, D width, N items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seqrec.config import Choice, Config, Range, Switch
from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD, Sequences
from seqrec.errors import ConfigError
from seqrec.kernels.cross_entropy import linear_cross_entropy
from seqrec.losses.frequencies import log_popularity, popularity_weights
from seqrec.models.base import ItemVectors, SequenceModelConfig

#: Least 1 - p of a focal loss whose gradient is followed: below, a power under 1 would be too steep.
SURE = 1e-7


class SoftmaxConfig(Config):
    """How hard the targets are, and which count how much."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all items")
    focal: float = Field(0.0, ge=0, description="gamma: each loss is multiplied with (1 - p of its target)^gamma")
    popularity_weight: float = Field(
        0.0, ge=0, le=2, description="gamma: targets count in proportion to frequency^-gamma, the mean being 1"
    )
    adjustment: float = Field(
        0.0, ge=0, description="tau: tau log popularity joins the scores in training, and in training alone"
    )
    next_but_one: float = Field(
        0.0, ge=0, lt=1, description="share of the loss that is for the item after the next one, from the same state"
    )

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "label_smoothing": Choice(0.0, 0.1, 0.2, 0.3),
        "next_but_one": Choice(0.0, 0.1, 0.2),
    }

    switches: ClassVar[Mapping[str, Switch]] = {
        "smoothing": Switch({"label_smoothing": 0}),
        "focal": Switch({"focal": 0}),
        "popularity_weight": Switch({"popularity_weight": 0}),
        "adjustment": Switch({"adjustment": 0}),
        "next_but_one": Switch({"next_but_one": 0}),
    }

    def misfit(self, model: SequenceModelConfig, bidirectional: bool) -> str | None:
        """Why it does not suit the model."""
        if self.next_but_one and bidirectional:
            return (
                "loss.next_but_one: the targets of a bidirectional model are gaps, after which no next item follows. "
                "Leave it at 0, or take a model that reads forwards (for xlstm: model.bidirectional=false)."
            )
        return None


class SoftmaxLoss:
    """Mean over all positions that have a target."""

    Config = SoftmaxConfig
    separable = True
    shards = True

    def __init__(self, config: SoftmaxConfig) -> None:
        self.config = config
        self._weights: Tensor | None = None  # (N,) of targets
        self._offsets: Tensor | None = None  # (N,) of scores

    def fit(self, train: Sequences) -> None:
        """Count how often each item is a target, where that is asked for."""
        if self.config.popularity_weight:
            self._weights = popularity_weights(train, self.config.popularity_weight)
        if self.config.adjustment:
            self._offsets = self.config.adjustment * log_popularity(train)

    def __call__(self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: ItemVectors, batch: Batch) -> Tensor:
        """A scalar in float32; `batch` is not looked at. Targets that are PAD do not count.

        Raises:
            ConfigError: popularity is asked for, and `fit` was not called.
        """
        vectors, share = self._adjusted(item_vectors, h_BLD.device), self.config.next_but_one
        h_TD = h_BLD.flatten(0, 1)
        loss = self._mean(h_TD, targets_BL.flatten(), vectors)
        if share:
            later_T = F.pad(targets_BL[:, 1:], (0, 1), value=PAD).flatten()
            # Over the same positions: those at the end of a history have no item after the next one.
            both = (later_T != PAD).sum() / (targets_BL != PAD).sum().clamp(min=1)
            loss = (1 - share) * loss + share * both * self._mean(h_TD, later_T, vectors)
        return loss.float()

    def _mean(self, h_TD: Tensor, targets_T: Tensor, vectors: ItemVectors) -> Tensor:
        smoothing = self.config.label_smoothing
        plain = not self.config.focal and not self.config.popularity_weight
        if plain and isinstance(vectors, ItemVectors):
            weight, bias, cosine = vectors
            return linear_cross_entropy(
                h_TD,
                weight,
                targets_T - 1,
                bias=bias,
                label_smoothing=smoothing,
                ignore_index=PAD - 1,
                cosine=cosine,
            )
        losses_T = vectors.cross_entropy(h_TD, targets_T, smoothing)
        if self.config.focal:
            sharp_T = vectors.cross_entropy(h_TD, targets_T, 0.0) if smoothing else losses_T
            losses_T = losses_T * (-torch.expm1(-sharp_T)).clamp(min=SURE) ** self.config.focal
        if self.config.popularity_weight:
            self._weights = self._known(self._weights, "popularity_weight", h_TD.device)
            losses_T = losses_T * self._weights[(targets_T - 1).clamp(min=0)]
        return losses_T.sum() / (targets_T != PAD).sum().clamp(min=1)

    def _adjusted(self, vectors: ItemVectors, device: torch.device) -> ItemVectors:
        if not self.config.adjustment:
            return vectors
        self._offsets = self._known(self._offsets, "adjustment", device)
        return vectors.plus(self._offsets)

    def _known(self, counted: Tensor | None, key: str, device: torch.device) -> Tensor:
        """What was counted, on the device: moved in the first call only."""
        if counted is None:
            raise ConfigError(
                f"loss.{key} needs to know how often items occur. Call the loss's fit(train) with the training "
                "histories first, as Trainer does."
            )
        return counted.to(device, non_blocking=True)
