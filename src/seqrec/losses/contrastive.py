"""Softmax, and beside it: two altered copies of a history are to say the same, and other histories something else.

Xie et al., "Contrastive Learning for Sequential Recommendation", ICDE 2022 (CL4SRec): copies that are cropped, masked
or reordered. Qiu et al., "Contrastive Learning for Representation Degeneration Problem in Sequential Recommendation",
WSDM 2022 (DuoRec): the same history twice, which dropout alone tells apart. InfoNCE: van den Oord et al.,
"Representation Learning with Contrastive Predictive Coding", 2018, between directions, divided by a temperature.

Shapes: B rows, L positions, D width, V views of all rows (2 B).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seqrec.config import Choice, Range, Switch
from seqrec.data.batches import NO_TIME, Batch
from seqrec.data.sequences import PAD, Sequences
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.base import ItemVectors, SequenceModelConfig


class ContrastiveConfig(SoftmaxConfig):
    """How views are made, and how much they count; softmax has its own options."""

    weight: float = Field(0.1, ge=0, description="lambda: times InfoNCE, beside softmax")
    temperature: float = Field(0.1, gt=0, description="cosines between states are divided by it")
    augmentations: tuple[Literal["crop", "mask", "reorder"], ...] = Field(
        ("crop", "mask", "reorder"),
        description="each view of a history gets one of these by chance; none: the same history twice, told apart by "
        "dropout",
    )
    crop_share: float = Field(0.6, gt=0, le=1, description="of a history, a run of events that is kept")
    mask_share: float = Field(0.3, ge=0, lt=1, description="of a history's events, those that are hidden")
    reorder_share: float = Field(0.6, ge=0, le=1, description="of a history, a run of events that is shuffled")

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "weight": Range(0.01, 0.5, log=True),
        "temperature": Choice(0.05, 0.1, 0.2, 0.5, 1.0),
        "augmentations": Choice((), ("crop", "mask", "reorder")),
    }
    switches: ClassVar[Mapping[str, Switch]] = {"contrast": Switch({"weight": 0})}

    def misfit(self, model: SequenceModelConfig, bidirectional: bool) -> str | None:
        if bidirectional:
            return (
                "loss.name: contrastive compares what a model says after the last event, and a bidirectional model "
                "says nothing there without a gap to fill. Take another loss, or a model that reads forwards (for "
                "xlstm: model.bidirectional=false)."
            )
        if not self.augmentations and not model.dropout:
            return (
                "loss.augmentations: without any, two views of a history differ by dropout alone, and model.dropout is "
                "0. Raise it, or name crop, mask or reorder."
            )
        return super().misfit(model, bidirectional)


class ContrastiveLoss:
    """Softmax plus weight times InfoNCE; the negatives of a view are all views of the batch's other histories."""

    Config = ContrastiveConfig

    def __init__(self, config: ContrastiveConfig) -> None:
        self.config = config
        self._softmax = SoftmaxLoss(config)

    def fit(self, train: Sequences) -> None:
        """What softmax has to know."""
        self._softmax.fit(train)

    def views(self, batch: Batch) -> tuple[Batch, ...]:
        """Two altered copies; where nothing is altered one, beside the pass that is made anyway."""
        if not self.config.augmentations:
            return (batch,)
        return self._altered(batch), self._altered(batch)

    def __call__(
        self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: ItemVectors, batch: Batch, *states_BD: Tensor
    ) -> Tensor:
        """A scalar in float32.

        Args:
            states_BD: what the model says after the last event of each of `views`.
        """
        first, second = states_BD if len(states_BD) == 2 else (batch.last(h_BLD), *states_BD)
        with torch.autocast(h_BLD.device.type, enabled=False):
            apart = info_nce(first.float(), second.float(), self.config.temperature)
        return self._softmax(h_BLD, targets_BL, item_vectors, batch) + self.config.weight * apart

    def _altered(self, batch: Batch) -> Batch:
        """Each row by one of the augmentations."""
        make: dict[str, Callable[[Batch, float], Places]] = {"crop": crop, "mask": mask, "reorder": reorder}
        shares = {name: getattr(self.config, f"{name}_share") for name in make}
        names = self.config.augmentations
        chosen_B = torch.randint(len(names), (len(batch),), device=batch.items.device)
        found = make[names[0]](batch, shares[names[0]])
        for number, name in enumerate(names[1:], 1):
            other, mine_B = make[name](batch, shares[name]), chosen_B == number
            found = Places(
                torch.where(mine_B[:, None], other.index_BL, found.index_BL),
                torch.where(mine_B[:, None], other.hidden_BL, found.hidden_BL),
                torch.where(mine_B, other.lengths_B, found.lengths_B),
            )
        return found.of(batch)


class Places(NamedTuple):
    """Which event of its row stands at each place (B, L), which are hidden (B, L), and how many there are (B,)."""

    index_BL: Tensor
    hidden_BL: Tensor
    lengths_B: Tensor

    def of(self, batch: Batch) -> Batch:
        """The batch with its events there; hidden ones become PAD, as with item dropout."""
        behind_BL = _places(batch) >= self.lengths_B[:, None]
        items_BL = batch.items.gather(1, self.index_BL).masked_fill(behind_BL | self.hidden_BL, PAD)
        times_BL, values_BL = batch.times, batch.values
        if times_BL is not None:
            times_BL = times_BL.gather(1, self.index_BL).masked_fill(behind_BL, NO_TIME)
        if values_BL is not None:
            values_BL = values_BL.gather(1, self.index_BL).masked_fill(behind_BL, torch.nan)
        return replace(batch, items=items_BL, lengths=self.lengths_B, times=times_BL, values=values_BL)


def crop(batch: Batch, share: float) -> Places:
    """A run of events: a share of the history, at least one."""
    kept_B = (batch.lengths * share).long().clamp(min=1)
    start_B = _start(batch.lengths - kept_B)
    index_BL = (_places(batch) + start_B[:, None]).clamp(max=batch.items.shape[1] - 1)
    return Places(index_BL, torch.zeros_like(batch.items, dtype=torch.bool), kept_B)


def mask(batch: Batch, share: float) -> Places:
    """A share of the history's events hidden, whichever they are."""
    noise_BL = torch.rand(batch.items.shape, device=batch.items.device).masked_fill(~batch.valid, 2.0)
    hidden_BL = noise_BL.argsort(1).argsort(1) < (batch.lengths * share).long()[:, None]
    return Places(_places(batch).expand_as(batch.items), hidden_BL, batch.lengths)


def reorder(batch: Batch, share: float) -> Places:
    """A run of events, a share of the history, shuffled."""
    run_B = (batch.lengths * share).long()
    start_B, places_BL = _start(batch.lengths - run_B)[:, None], _places(batch).expand_as(batch.items)
    inside_BL = (places_BL >= start_B) & (places_BL < start_B + run_B[:, None])
    # Places are sorted by keys: their own number outside the run; in it any number between its ends.
    keys_BL = start_B + torch.rand(batch.items.shape, dtype=torch.float64, device=batch.items.device) * run_B[:, None]
    index_BL = torch.where(inside_BL, keys_BL, places_BL.double()).argsort(dim=1, stable=True)
    return Places(index_BL, torch.zeros_like(inside_BL), batch.lengths)


def info_nce(first_BD: Tensor, second_BD: Tensor, temperature: float) -> Tensor:
    """Mean over all views of -log of the share that the other view of its history has among all others."""
    views_VD = F.normalize(torch.cat([first_BD, second_BD]), dim=-1)
    V, device = len(views_VD), views_VD.device
    scores_VV = views_VD @ views_VD.T / temperature
    scores_VV = scores_VV.masked_fill(torch.eye(V, dtype=torch.bool, device=device), -torch.inf)
    return F.cross_entropy(scores_VV, torch.arange(V, device=device).roll(V // 2))


def _places(batch: Batch) -> Tensor:
    """(1, L) 0, 1, ..."""
    return torch.arange(batch.items.shape[1], device=batch.items.device)[None]


def _start(room_B: Tensor) -> Tensor:
    """Anywhere from 0 to the room there is, both included."""
    points_B = torch.rand(room_B.shape, dtype=torch.float64, device=room_B.device)
    return (points_B * (room_B + 1)).long()
