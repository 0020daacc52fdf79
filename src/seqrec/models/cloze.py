"""Learning to fill gaps, for models that see both sides of one: what is hidden, and where they are read.

Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer",
CIKM 2019. Some events of a window are replaced by MASK, and the model says what stood there. To recommend, MASK is
appended to the history and read.

Inside such a model, and nowhere else, item number `num_items + 1` stands for MASK.

Shapes: B rows, L positions, D width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seqrec.data.batches import NO_TIME, Batch
from seqrec.data.sequences import PAD
from seqrec.models.layers import ItemTable, StackConfig


class ClozeConfig(StackConfig):
    """What is masked in training."""

    mask_share: float = Field(0.2, gt=0, lt=1, description="share of a window's events that are masked")
    last_share: float = Field(0.1, ge=0, le=1, description="share of windows whose last event alone is masked")


def gaps(batch: Batch, config: ClozeConfig, mask: int) -> tuple[Batch, Tensor]:
    """The same rows with `mask` in some places, and what stood there as targets (B, L), PAD elsewhere."""
    masked_BL = _draw(batch, config)
    return _hide(batch, masked_BL, mask), batch.items.masked_fill(~masked_BL, PAD)


def with_mask(batch: Batch, mask: int) -> Batch:
    """Histories with `mask` after their last event, and nothing behind it: what scores are read from."""
    longer = replace(
        batch,
        items=F.pad(batch.items, (0, 1), value=PAD),
        lengths=batch.lengths + 1,
        times=None if batch.times is None else F.pad(batch.times, (0, 1), value=NO_TIME),
        values=None if batch.values is None else F.pad(batch.values, (0, 1), value=torch.nan),
    )
    places_L = torch.arange(longer.items.shape[1], device=batch.items.device)
    return _hide(longer, places_L == batch.lengths[:, None], mask)


def embed(items: ItemTable, mask_D: Tensor, batch: Batch, mask: int) -> Tensor:
    """Vectors (B, L, D) of the events, `mask_D` where `mask` stands."""
    masked_BL = batch.items >= mask
    x_BLD = items(batch.items.masked_fill(masked_BL, PAD), batch.values)
    return torch.where(masked_BL[..., None], mask_D.to(x_BLD.dtype), x_BLD)


def _draw(batch: Batch, config: ClozeConfig) -> Tensor:
    """Where to mask (B, L): as many events as the share asks for, at least one and not all; or the last alone."""
    places_L = torch.arange(batch.items.shape[1], device=batch.items.device)
    noise_BL = torch.rand(batch.items.shape, device=batch.items.device).masked_fill(~batch.valid, 2.0)
    count_B = (batch.lengths * config.mask_share).round().minimum(batch.lengths - 1).clamp(min=1)
    cloze_BL = noise_BL.argsort(1).argsort(1) < count_B[:, None]
    last_BL = places_L == batch.lengths[:, None] - 1
    last_only_B = torch.rand(len(batch), device=batch.items.device) < config.last_share
    return torch.where(last_only_B[:, None], last_BL, cloze_BL)


def _hide(batch: Batch, masked_BL: Tensor, mask: int) -> Batch:
    """`mask` in place of items; when a hidden event happened, and how it was rated, is hidden too."""
    times_BL = None if batch.times is None else batch.times.masked_fill(masked_BL, NO_TIME)
    values_BL = None if batch.values is None else batch.values.masked_fill(masked_BL, torch.nan)
    return replace(batch, items=batch.items.masked_fill(masked_BL, mask), times=times_BL, values=values_BL)
