"""Softmax, mixed with what trained models say about all items.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015: beside the item that came next, a model
learns the probabilities that teachers give to all of them, softened by a temperature. Several teachers agree by the
mean of their log-probabilities, brought back to a sum of one.

Shapes: B rows, L positions, T = B L, D width, N items, R positions of a piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seqrec.config import Choice, Range
from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD, Sequences
from seqrec.errors import ConfigError
from seqrec.losses.pieces import in_pieces
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.base import ItemVectors, SequenceModel, SequenceModelConfig

#: Tensors (R, N) that a piece holds beside the scores of the model and those of each teacher.
BESIDE = 3


class DistillationConfig(SoftmaxConfig):
    """Who teaches, and how much that counts; softmax has its own options."""

    teachers: tuple[str, ...] = Field(min_length=1, description="folders of finished runs on the same data")
    weight: float = Field(0.5, gt=0, le=1, description="share of the loss that is what the teachers say")
    temperature: float = Field(1.0, gt=0, description="scores are divided by it on both sides")

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "weight": Range(0.1, 0.9),
        "temperature": Choice(0.5, 1.0, 2.0, 4.0),
    }

    def misfit(self, model: SequenceModelConfig, bidirectional: bool) -> str | None:
        if bidirectional:
            return (
                "loss.name: distillation compares what comes next after every event, and a bidirectional model is "
                "asked for gaps instead. Take another loss, or a model that reads forwards (for xlstm: "
                "model.bidirectional=false)."
            )
        return super().misfit(model, bidirectional)


class DistillationLoss:
    """(1 - weight) softmax + weight temperature^2 KL(teachers || model), over positions that have a target."""

    Config = DistillationConfig
    separable = True

    def __init__(self, config: DistillationConfig) -> None:
        self.config = config
        self._softmax = SoftmaxLoss(config)
        self._teachers: tuple[SequenceModel, ...] = ()

    def fit(self, train: Sequences) -> None:
        """What softmax has to know."""
        self._softmax.fit(train)

    def learn_from(self, models: Sequence[SequenceModel]) -> None:
        """Take the teachers. They are not trained, and see what the model sees, without their dropout."""
        self._teachers = tuple(model.eval().requires_grad_(False) for model in models)

    def __call__(self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: ItemVectors, batch: Batch) -> Tensor:
        """A scalar in float32.

        Raises:
            ConfigError: nobody called `learn_from`.
        """
        if not self._teachers:
            raise ConfigError("loss.teachers: they are not loaded. Call the loss's learn_from(models) first.")
        counted_T, weight = (targets_BL != PAD).flatten(), self.config.weight
        told = [self._heard(teacher, batch) for teacher in self._teachers]
        vectors, temperature = [said for _, said in told], self.config.temperature

        def losses(h_RD: Tensor, *others: Tensor) -> Tensor:
            said = [teacher.score(h) for teacher, h in zip(vectors, others, strict=True)]
            return divergences(item_vectors.score(h_RD), said, temperature)

        states = [_states(h, counted_T) for h in (h_BLD, *(h for h, _ in told))]
        numbers = item_vectors.num_items * (BESIDE + item_vectors.numbers_per_score + len(told))
        losses_T = in_pieces(losses, numbers, *states).masked_fill(~counted_T, 0)
        taught = temperature**2 * losses_T.sum() / counted_T.sum().clamp(min=1)
        if weight == 1:
            return taught
        return (1 - weight) * self._softmax(h_BLD, targets_BL, item_vectors, batch) + weight * taught

    @torch.no_grad()
    def _heard(self, teacher: SequenceModel, batch: Batch) -> tuple[Tensor, ItemVectors]:
        """A teacher's hidden states (B, L, D), and what they are compared with."""
        if next(teacher.parameters()).device != batch.items.device:  # in the first call only
            teacher.to(batch.items.device)
        return teacher.encode(batch), teacher.item_vectors().plain()


def _states(h_BLD: Tensor, counted_T: Tensor) -> Tensor:
    """(T, D) in float32 at least; zero where no loss is counted, whatever stands there."""
    h_TD = h_BLD.flatten(0, 1)
    return h_TD.to(torch.promote_types(h_TD.dtype, torch.float32)).masked_fill(~counted_T[:, None], 0)


def divergences(scores_RN: Tensor, teachers_RN: Sequence[Tensor], temperature: float) -> Tensor:
    """(R,) KL of the model's distribution from that on which the teachers agree."""
    told_RN = (teachers_RN[0] / temperature).log_softmax(1)
    for other_RN in teachers_RN[1:]:
        told_RN = told_RN + (other_RN / temperature).log_softmax(1)
    if len(teachers_RN) > 1:
        told_RN = (told_RN / len(teachers_RN)).log_softmax(1)
    said_RN = (scores_RN / temperature).log_softmax(1)
    return F.kl_div(said_RN, told_RN, log_target=True, reduction="none").sum(1)
